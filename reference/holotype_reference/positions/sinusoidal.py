"""Sinusoidal positions: rows added to the embeddings that are computed, not learned."""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from holotype_spec import schema


class Sinusoidal(nn.Module):
    """Sines and cosines of the position, added like learned rows but computed (Vaswani et al. 2017, section 3.5).

    Of d numbers pair i turns by theta^(-2i / d) a position: PE(p, 2i) = sin, PE(p, 2i + 1) = cos. The layout
    "halves" has all sines first. The angles are computed in float64, since positions go far.
    """

    def __init__(self, size: int, described: schema.Sinusoidal) -> None:
        super().__init__()
        self.size = size
        self.theta = described.theta
        self.layout = described.layout
        self.offset = described.offset

    def forward(self, positions: Tensor) -> Tensor:
        """positions: (batch or 1, length) -> (batch or 1, length, size), in float64"""
        wide = (positions + self.offset).to(torch.float64)
        pairs = torch.arange(0, self.size, 2, dtype=torch.float64, device=positions.device)
        frequencies = torch.pow(self.theta, -pairs / self.size)
        angles = einsum(wide, frequencies, "batch length, pair -> batch length pair")
        both = [angles.sin(), angles.cos()]
        match self.layout:
            case "interleaved":
                return rearrange(both, "two batch length pair -> batch length (pair two)")
            case "halves":
                return rearrange(both, "two batch length pair -> batch length (two pair)")
