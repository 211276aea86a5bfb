"""Masks of a call, as a kernel is passed them, made one; and what no query of a window sees."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def visible(
    q: Tensor, k: Tensor, *, mask: Tensor | None, causal: bool, window: int | None
) -> Tensor | None:
    """All masks of a call as one, boolean or additive; None for none."""
    if not causal and window is None:
        return mask
    queries, keys = q.shape[2], k.shape[2]
    diagonal = torch.arange(queries, device=q.device)[:, None] + keys - queries
    away = diagonal - torch.arange(keys, device=q.device)
    seen = away >= 0 if causal else torch.ones_like(away, dtype=torch.bool)
    if window is not None:
        seen = seen & (away.abs() < window)
    if mask is None:
        return seen[None, None]
    if mask.dtype == torch.bool:
        return mask & seen
    return mask.masked_fill(~seen, -math.inf)


def without_unseen(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, window: int | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys, values and mask without the first keys, where a window hides these from every query.

    Whatever they hold, NaN for one, would reach a product with zero otherwise. The diagonal ends at the last key, so
    that it stays where it is.
    """
    if window is None:
        return k, v, mask
    first = max(k.shape[2] - q.shape[2] - window + 1, 0)
    mask = mask if mask is None or mask.shape[-1] == 1 else mask[..., first:]
    return k[:, :, first:], v[:, :, first:], mask
