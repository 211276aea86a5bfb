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


def _positions(kind: type) -> Uses:
    return lambda spec: isinstance(spec.architecture.positions, kind)


def _pattern(kind: type) -> Uses:
    return lambda spec: isinstance(spec.architecture.attention.pattern, kind)


def _head(kind: type) -> Uses:
    return lambda spec: isinstance(spec.architecture.head, kind)


def _no_shift(spec: schema.Spec) -> bool:
    return isinstance(spec.architecture.normalization, schema.BiaslessLayerNorm)


def _typed_source(spec: schema.Spec) -> bool:
    architecture = spec.architecture
    return architecture.structure == "encoder-decoder" and architecture.token_types > 0


MISSING: tuple[tuple[str, Uses], ...] = (
    (
        "relative positions of each layer's own (GLaM)",
        _positions(schema.LayerwiseRelativeBuckets),
    ),
    ("layers of a band beside dense ones (GPT-3)", _pattern(schema.AlternatingBanded)),
    ("gated relative positions (Chi et al. 2021)", _positions(schema.GatedRelativeBuckets)),
    ("layer norm without a bias (Chowdhery et al. 2022)", _no_shift),
    ("token types of a source (AlexaTM)", _typed_source),
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
    return [spec.name for spec in holotype_spec.complete() if not unsupported(spec)]
