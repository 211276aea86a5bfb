"""Layers whose keys and values are made of other vectors than their queries."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from holotype_reference.attention import LayerInputs


@dataclass(frozen=True, kw_only=True)
class WithMemory(LayerInputs):
    """The inputs of a layer that reads a memory.

    Only post-norm layers, which read the stream as it is, can be given another one.

    Attributes:
        memory: (batch, length, hidden_size), what keys and values are made of.
    """

    memory: Tensor

    def read(self, x: Tensor) -> Tensor:
        return self.memory


def with_memory(given: LayerInputs, memory: Tensor) -> WithMemory:
    """The same, with keys and values from `memory` (batch, length, hidden_size)."""
    return WithMemory(
        mask=given.mask, positions=given.positions, source=given.source, memory=memory
    )
