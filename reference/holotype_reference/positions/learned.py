"""Learned positions: rows added to the embeddings."""

from __future__ import annotations

from torch import Tensor

from holotype_reference.basics import Table


class LearnedPositions(Table):
    """A trained row for each position (Radford et al. 2018, section 3.1): position p reads row p + offset."""

    def __init__(self, positions: int, size: int, *, offset: int) -> None:
        super().__init__(positions + offset, size)
        self.offset = offset

    def forward(self, positions: Tensor) -> Tensor:
        """positions: (batch or 1, length) -> (batch or 1, length, hidden_size)"""
        return super().forward(positions + self.offset)
