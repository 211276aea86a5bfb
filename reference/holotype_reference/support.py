"""The specs that the reference can build yet: a spec says all that it takes, and the classes here follow.

What loops over the catalogue and needs a model takes the names of `supported`; `holotype_reference.model.build`
refuses the others and says what is missing.
"""

from __future__ import annotations

import holotype_spec
from holotype_spec import schema


class UnsupportedMechanism(ValueError):
    """A spec with mechanisms that the reference has no class for yet; `mechanisms` names them in words."""

    def __init__(self, spec: schema.Spec, mechanisms: tuple[str, ...]) -> None:
        self.spec = spec
        self.mechanisms = mechanisms
        super().__init__(
            f"the reference cannot build {spec.name} yet: it has no {', no '.join(mechanisms)}"
        )


MISSING: tuple[tuple[str, type], ...] = (
    ("relative positions of each layer's own (GLaM)", schema.LayerwiseRelativeBuckets),
    ("layers of a band beside dense ones (GPT-3)", schema.AlternatingBanded),
    ("gated relative positions (Chi et al. 2021)", schema.GatedRelativeBuckets),
    ("layer norm without a bias (Chowdhery et al. 2022)", schema.BiaslessLayerNorm),
)


def unsupported(spec: schema.Spec) -> tuple[str, ...]:
    """The mechanisms of a spec that the reference has no class for yet, in words; empty where it builds the model."""
    missing = []
    for words, kind in MISSING:
        if spec.has(kind):
            missing.append(words)
    if spec.architecture.structure == "encoder-decoder" and spec.architecture.token_types > 0:
        missing.append("token types of a source (AlexaTM)")
    return tuple(missing)


def supported() -> list[str]:
    """The names of the catalogue's specs that the reference builds, in the catalogue's order."""
    return [spec.name for spec in holotype_spec.complete() if not unsupported(spec)]
