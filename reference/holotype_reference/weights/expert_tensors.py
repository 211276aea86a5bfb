"""The matrices of experts apart: we keep those of a layer in one tensor, and published checkpoints each by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from holotype_spec.parameters import EXPERTS
from holotype_spec.schema import Spec
from holotype_spec.tensors import tensor_table


def shapes_apart(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors by name, as `apart` has them."""
    stacked = _stacked(spec)
    shapes: dict[str, tuple[int, ...]] = {}
    for row in tensor_table(spec):
        if row.name in stacked:
            shapes |= dict.fromkeys(stacked[row.name], row.shape[1:])
        else:
            shapes[row.name] = row.shape
    return shapes


def apart(spec: Spec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` with ``NAME.0``, ``NAME.1``, … in the place of a tensor NAME (experts, …); nothing is copied."""
    stacked = _stacked(spec)
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        found |= zip(stacked[name], tensor, strict=True) if name in stacked else {name: tensor}
    return found


def together(spec: Spec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `apart`; those of experts are copied."""
    stacked = _stacked(spec)
    return {
        row.name: torch.stack([tensors[own] for own in stacked[row.name]])
        if row.name in stacked
        else tensors[row.name]
        for row in tensor_table(spec)
    }


def _stacked(spec: Spec) -> dict[str, tuple[str, ...]]:
    """The tensors that hold one matrix for each expert, and what these are called apart."""
    return {
        row.name: tuple(f"{row.name}.{expert}" for expert in range(row.shape[0]))
        for row in tensor_table(spec)
        if row.component == EXPERTS
    }
