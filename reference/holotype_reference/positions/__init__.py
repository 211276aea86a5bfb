"""Positions: one file for each mechanism, and the tables from classes of the spec to modules.

A new mechanism has its class of the spec in `SHARED`, and in `ATTENTION` too if its layers score in a way of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holotype_reference.attention import Attention, Positions
from holotype_reference.positions.disentangled import DisentangledAttention, RelativeRows
from holotype_reference.positions.relative_bias import Alibi, relative_bias
from holotype_reference.positions.rope_scaling import ScaledRotary
from holotype_reference.positions.rotary import rotary
from holotype_reference.positions.transformer_xl import RelativeSinusoids, TransformerXLAttention
from holotype_reference.positions.two_dimensional import TwoDimensionalRotary
from holotype_spec import schema

# (the spec, its positions, the pattern of the stack) -> the module
Shared = Callable[[schema.Spec, Any, schema.Pattern], Positions]


def nothing_shared(spec: schema.Spec, kind: Any, pattern: schema.Pattern) -> Positions:
    """No module: positions that are added to what enters a stack (see `holotype_reference.embeddings`)."""
    return Positions()


def scaled(spec: schema.Spec, kind: Any, pattern: schema.Pattern) -> Positions:
    """Rotary positions with scaled frequencies."""
    return ScaledRotary(spec.rotary_dim, kind)


class Table(dict[type, Shared]):
    """Modules by the classes of the spec; a class that has none is an error, and not a model without positions."""

    def __missing__(self, kind: type) -> Shared:
        raise NotImplementedError(
            f"the reference has no module for positions of the class {kind.__name__}: give it one in"
            " holotype_reference.positions.SHARED"
        )


# The class of the spec's positions, or of their scaling -> the module that the layers of a stack share.
MODULES: dict[type, Shared] = {
    schema.LearnedPositions: nothing_shared,
    schema.Sinusoidal: nothing_shared,
    schema.TwoDimensionalPositions: nothing_shared,
    schema.Rotary: rotary,
    schema.DynamicScaling: scaled,
    schema.LinearScaling: scaled,
    schema.Llama3Scaling: scaled,
    schema.YarnScaling: scaled,
    schema.TwoDimensionalRotary: lambda spec, kind, _: TwoDimensionalRotary(
        spec.head_dim, theta=kind.theta
    ),
    schema.Alibi: lambda spec, kind, _: Alibi(spec.heads),
    schema.RelativeBuckets: lambda spec, kind, pattern: relative_bias(kind, spec.heads, pattern),
    schema.Disentangled: lambda spec, kind, _: RelativeRows(spec, kind),
    schema.TransformerXLPositions: lambda spec, kind, _: RelativeSinusoids(spec, kind),
}
SHARED = Table(MODULES)
# The class of the spec's positions -> self-attention that scores by them.
ATTENTION: dict[type, Callable[..., Attention]] = {
    schema.Disentangled: DisentangledAttention,
    schema.TransformerXLPositions: TransformerXLAttention,
}
