"""Which specs the reference can build yet: a spec says all that it takes, and the classes here follow.

What loops over the catalogue and needs a model takes the names of `supported`; `holotype_reference.model.build`
refuses the others and says what is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import holotype_spec
from holotype_spec import schema

Uses = Callable[[schema.Spec], bool]


class UnsupportedMechanism(ValueError):
    """A spec with mechanisms that the reference has no class for yet; `mechanisms` names them in words."""

    def __init__(self, spec: schema.Spec, mechanisms: tuple[str, ...]) -> None:
        self.spec = spec
        self.mechanisms = mechanisms
        super().__init__(
            f"the reference cannot build {spec.name} yet: it has no {', no '.join(mechanisms)}"
        )


def _latent(spec: schema.Spec) -> bool:
    return isinstance(spec.architecture.attention, schema.LatentAttention)


def _partly_rotary(spec: schema.Spec) -> bool:
    positions = spec.architecture.positions
    return isinstance(positions, schema.Rotary) and positions.fraction < 1


def _alibi(spec: schema.Spec) -> bool:
    return isinstance(spec.architecture.positions, schema.Alibi)


MISSING: tuple[tuple[str, Uses], ...] = (
    ("attention over latent vectors (DeepSeek-AI 2024, V2)", _latent),
    ("rotary positions on a part of each head (GPT-J)", _partly_rotary),
    ("linear biases on the scores (ALiBi, Press et al. 2021)", _alibi),
)


def unsupported(spec: schema.Spec) -> tuple[str, ...]:
    """The mechanisms of a spec that the reference has no class for yet, in words; empty where it builds the model."""
    return tuple(words for words, uses in MISSING if uses(spec))


def check_supported(spec: schema.Spec) -> None:
    """Nothing where the reference builds the model.

    Raises:
        UnsupportedMechanism: it does not yet.
    """
    if mechanisms := unsupported(spec):
        raise UnsupportedMechanism(spec, mechanisms)


def supported() -> list[str]:
    """The names of the catalogue's specs that the reference builds, in the catalogue's order."""
    return [name for name in holotype_spec.names() if not unsupported(holotype_spec.load(name))]
