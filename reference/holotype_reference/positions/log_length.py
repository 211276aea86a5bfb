"""Scores that grow with the logarithm of the position."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from einops import rearrange
from torch import Tensor

from holotype_reference.attention import Positioning, Positions
from holotype_reference.basics import compute_dtype
from holotype_reference.inputs import Call


@dataclass(frozen=True, kw_only=True)
class Sharpened(Positioning):
    """Queries multiplied by factors of their positions, beside what another mechanism does.

    Attributes:
        inner: the other mechanism.
        factors: (batch or 1, 1, length, 1).
    """

    inner: Positioning
    factors: Tensor

    def rotate(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner.rotate(query, key)

    def scale(self, query: Tensor) -> Tensor:
        query = self.inner.scale(query)
        return (query * self.factors).to(query.dtype)

    def bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        return self.inner.bias(query, key)


class LogLength(Positions):
    """Scores of queries beyond the trained length grow with the logarithm of the position (Su 2021, kexue.fm 8823).

    The query at position m, which sees m + 1 keys, is multiplied by log(m + 1) / log(max_positions) once that is more
    than 1 (the Qwen release, logn_tensor). The release leaves it out in train mode, where no input is as long; we do
    not. It has no parameters.
    """

    def __init__(self, inner: Positions, *, trained: int) -> None:
        super().__init__()
        self.inner = inner
        self.trained = trained

    def at(self, x: Tensor, inputs: Call) -> Positioning:
        assert inputs.position_ids is not None
        factors = self.factors(inputs.position_ids, x.dtype)
        return Sharpened(inner=self.inner.at(x, inputs), factors=factors)

    def factors(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """(batch or 1, length) -> (batch or 1, 1, length, 1), the axis of 1 for the heads, in at least float32."""
        seen = (positions + 1).to(compute_dtype(dtype))
        factors = (seen.log() / log(self.trained)).clamp(min=1)
        return rearrange(factors, "batch length -> batch 1 length 1")
