"""`torch.func.vmap` over attention in tiles, as gradients sample by sample take it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Mapped(torch.autograd.Function):
    """A function of query, key and value, and of what is no tensor, that is mapped over one sample after the other.

    Its operations work in place and on memory of their own, which a mapped tensor cannot be written into.
    """

    @classmethod
    def vmap(
        cls, info: Any, in_dims: tuple[Any, ...], *given: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The results of all samples, stacked along a new first axis."""
        found = [cls.apply(*_sample(given, in_dims, i)) for i in range(info.batch_size)]  # type: ignore[no-untyped-call]
        stacked = tuple(torch.stack(results) for results in zip(*found, strict=True))
        return stacked, (0,) * len(stacked)


def _sample(given: tuple[Any, ...], in_dims: tuple[Any, ...], index: int) -> list[Any]:
    """The arguments of one sample; those that are not mapped, or are no tensors, as they are."""
    return [
        x.select(dim, index) if isinstance(x, Tensor) and dim is not None else x
        for x, dim in zip(given, in_dims, strict=True)
    ]
