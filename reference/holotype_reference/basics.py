"""The parts of all blocks: matrices and tables, and the norms that bring vectors to a common size.

Matrices and tables are left uninitialised, because `Model.reset_parameters` sets all parameters. The statistics of
norms are taken in at least float32, as the published codes do in half precision, and in float64 in a float64 model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_spec import schema


class Uninitialised:
    """A module of `torch.nn` that leaves its memory as it finds it."""

    def reset_parameters(self) -> None:
        """Nothing: see `holotype_reference.model.Model.reset_parameters`."""


class Linear(Uninitialised, nn.Linear):
    """y = x Wᵀ + b with W (outputs, inputs), its memory uninitialised."""


class Table(Uninitialised, nn.Embedding):
    """One row (hidden_size) for each index, its memory uninitialised."""


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which norms, softmax and rotary tables are computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


class LayerNorm(nn.Module):
    """y = g (x - mean(x)) / sqrt(var(x) + eps) + b, over the last axis (Ba et al. 2016, section 3).

    The variance is the mean squared deviation: it divides by hidden_size, not by hidden_size - 1.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, hidden_size). Torch's kernel takes the statistics of half precision in float32."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """y = g x / sqrt(mean(x²) + eps), over the last axis (Zhang & Sennrich 2019, equation 4)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, hidden_size)"""
        wide = x.to(compute_dtype(x.dtype))
        mean_square = wide.square().mean(dim=-1, keepdim=True)
        normalised = wide * torch.rsqrt(mean_square + self.eps)
        # The gain is applied after the cast back, as the LLaMA release does (llama/model.py, class RMSNorm).
        return normalised.to(x.dtype) * self.weight


def norm(spec: schema.Spec, size: int | None = None) -> LayerNorm | RMSNorm:
    """The norm of a spec, for vectors of its hidden size or of another one."""
    size = size or spec.hidden_size
    match spec.architecture.normalization:
        case schema.LayerNorm(eps=eps):
            return LayerNorm(size, eps)
        case schema.RMSNorm(eps=eps):
            return RMSNorm(size, eps)
        case other:
            raise ValueError(f"the reference has no class for {other!r}")
