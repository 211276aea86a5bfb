"""Scores that grow with the logarithm of the position."""

from __future__ import annotations

from math import log

import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.normalization import compute_dtype
from holotype_spec import schema


class LogLength(nn.Module):
    """Scores of queries beyond the trained length grow with the logarithm of the position (Su 2021, kexue.fm 8823).

    The query at position m, which sees m + 1 keys, is multiplied by log(m + 1) / log(max_positions) once that is more
    than 1 (the Qwen release, logn_tensor). The release leaves it out in train mode, where no input is as long; we do
    not. It has no parameters.
    """

    def __init__(self, trained: int) -> None:
        super().__init__()
        self.trained = trained

    def factors(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """(batch or 1, length) -> (batch or 1, 1, length, 1), the axis of 1 for the heads, in at least float32."""
        seen = (positions + 1).to(compute_dtype(dtype))
        factors = (seen.log() / log(self.trained)).clamp(min=1)
        return rearrange(factors, "batch length -> batch 1 length 1")

    def sharpen(self, query: Tensor, factors: Tensor) -> Tensor:
        """(batch, heads, length, head_dim) -> the same"""
        return (query * factors).to(query.dtype)


def log_length(spec: schema.Spec) -> LogLength | None:
    """How the scores of a spec grow with the position, if they do."""
    grows = spec.architecture.attention.scale == "inverse-sqrt-head-dim-log-length"
    return LogLength(spec.max_positions) if grows else None
