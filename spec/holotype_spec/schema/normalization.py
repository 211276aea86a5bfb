"""What keeps vectors at one size."""

from __future__ import annotations

from holotype_spec.schema.values import Positive, Strict


class LayerNorm(Strict, tag="layer", tag_field="kind"):
    """Centre and scale each vector, then gain and bias (Ba et al. 2016)."""

    eps: Positive
    embedding: bool
    final: bool


class RMSNorm(Strict, tag="rms", tag_field="kind"):
    """Divide each vector by its root mean square, then gain (Zhang & Sennrich 2019)."""

    eps: Positive
    embedding: bool
    final: bool


class BiaslessLayerNorm(Strict, tag="layer-without-bias", tag_field="kind"):
    """Centre and scale each vector, then gain, and no bias (Chowdhery et al. 2022, section 2)."""

    eps: Positive
    embedding: bool
    final: bool


Normalization = LayerNorm | RMSNorm | BiaslessLayerNorm

# "gelu-tanh-rounded" is "gelu-tanh" with √(2/π) rounded to 0.79788456, in Megatron-LM and what was trained with it.
