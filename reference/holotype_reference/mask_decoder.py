"""DeBERTa's enhanced mask decoder (He et al. 2020, section 3.2): the last layer, run again and again.

    z₀ = h + p,    z_n = layer(queries and residual from z_(n-1), keys and values from h)

with h the states below the last layer and p a trained row for each position: the one place where absolute positions
enter. The head reads z after the last pass (the release, masked_language_model.py, emd_context_layer; what the last
layer makes of h alone is not used).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from holotype_reference.attention import LayerInputs, WeightedSum
from holotype_reference.basics import Table
from holotype_reference.heads import MaskedLanguageModelHead
from holotype_reference.inputs import Call
from holotype_reference.memory import with_memory
from holotype_reference.stack import Stack
from holotype_spec import schema


class EnhancedMaskDecoder(MaskedLanguageModelHead):
    """The head of a masked language model, and what it makes of the last layer."""

    def __init__(self, spec: schema.Spec, head: schema.EnhancedMaskDecoder) -> None:
        nn.Module.__init__(self)  # the positions' table comes first
        self.position = Table(spec.max_positions, spec.hidden_size)
        self.build(spec, head)
        self.passes = head.passes

    def decode(self, x: Tensor, layer: Callable[[Tensor], Tensor], *, positions: Tensor) -> Tensor:
        """The states h (batch, length, hidden_size) below the last layer, that layer with its keys and values from h,
        and positions (batch or 1, length) -> (batch, length, hidden_size)"""
        states: Tensor = x + self.position(positions)
        for _ in range(self.passes):
            states = layer(states)
        return states


class MaskDecodingStack(Stack):
    """A stack whose last layer runs as the head says."""

    def __init__(
        self,
        spec: schema.Spec,
        pattern: schema.Pattern,
        head: EnhancedMaskDecoder,
        *,
        weigh: WeightedSum,
    ) -> None:
        super().__init__(spec, pattern, depth=spec.layers, cross=False, weigh=weigh)
        self.decoders = (head,)  # in a tuple, so that it is no part of this module

    def through(self, x: Tensor, given: LayerInputs, inputs: Call) -> Tensor:
        for index in range(self.depth - 1):
            x = self.layers[index % len(self.layers)](x, given, None)

        def last(states: Tensor, memory: Tensor = x) -> Tensor:
            y: Tensor = self.layers[(self.depth - 1) % len(self.layers)](
                states, with_memory(given, memory), None
            )
            return y

        assert inputs.position_ids is not None
        (head,) = self.decoders
        return head.decode(x, last, positions=inputs.position_ids)
