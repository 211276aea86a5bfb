"""Weights that hide nothing, for models whose parameters nobody can name."""

from __future__ import annotations

import torch
from torch import nn


def embolden(model: nn.Module, seed: int) -> None:
    """Give a model whose parameters we cannot name weights that hide nothing.

    Matrices and tables are drawn at 1.5/√(inputs), vectors half a unit around what they were initialised to, so
    that gains stay near one and biases near zero but none is the neutral element.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim < 2:
                parameter.add_(0.4 * noise.to(parameter))
            else:
                parameter.copy_(1.5 * noise / parameter.shape[-1] ** 0.5)
