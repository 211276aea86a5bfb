"""Normalisation: layer norm and RMS norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from holotype_spec.schema.mechanism import Mechanism
from holotype_spec.schema.rows import Parameter
from holotype_spec.schema.values import Positive


class NormMechanism(Mechanism):
    """A norm with a gain. One follows the `embedding`, or comes last (`final`), or none does."""

    eps: Positive
    embedding: bool
    final: bool

    shifts: ClassVar[bool] = False  # a bias follows the gain

    def parameters(
        self, name: str, size: int, component: str, *, residual: bool = False
    ) -> Iterator[Parameter]:
        """Rows of the table of parameters, for a norm over `size` numbers."""
        yield Parameter(
            name=f"{name}.weight",
            shape=(size,),
            role="gain",
            component=component,
            residual=residual,
        )
        if self.shifts:
            yield Parameter(
                name=f"{name}.bias",
                shape=(size,),
                role="shift",
                component=component,
                residual=residual,
            )


class LayerNorm(NormMechanism, tag="layer", tag_field="kind"):
    """Centre and scale each vector, then gain and bias (Ba et al. 2016)."""

    shifts: ClassVar[bool] = True


class RMSNorm(NormMechanism, tag="rms", tag_field="kind"):
    """Divide each vector by its root mean square, then gain (Zhang & Sennrich 2019)."""


class BiaslessLayerNorm(NormMechanism, tag="layer-without-bias", tag_field="kind"):
    """Centre and scale each vector, then gain, and no bias (Chowdhery et al. 2022, section 2)."""


Normalization = LayerNorm | RMSNorm | BiaslessLayerNorm

# "gelu-tanh-rounded" is "gelu-tanh" with √(2/π) rounded to 0.79788456, in Megatron-LM and what was trained with it.
