"""Kernels that are named on the command line: torch's, the reference's, and (elsewhere) those of `transformers`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from holotype_conformance.kernels.candidate import (
    Documents,
    FunctionKernel,
    KernelCandidate,
    Lengths,
    Prefix,
)
from holotype_conformance.torch_tools.backends import BACK_ENDS
from holotype_reference.kernels.paths import PATHS, Path
from holotype_reference.masks import Band, Mask
from holotype_spec import schema


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


# torch ---------------------------------------------------------------------------------------------------------------


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """`scaled_dot_product_attention`. Its own `is_causal` starts the diagonal at the first key: it is used only for
    as many queries as keys."""
    k, v, mask = without_unseen(q, k, v, mask=mask, window=window)
    square = causal and mask is None and window is None and q.shape[2] == k.shape[2]
    told = None if square else visible(q, k, mask=mask, causal=causal, window=window)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=told, is_causal=square, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


class OneBackEnd(KernelCandidate):
    """`scaled_dot_product_attention` on one of its back ends only."""

    def __init__(self, name: str) -> None:
        self.title = f"sdpa:{name}"
        self.back_end = BACK_ENDS[name]

    def attention(  # type: ignore[override]
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        window: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        with sdpa_kernel(self.back_end):
            return sdpa(q, k, v, mask=mask, causal=causal, window=window, scale=scale)


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """`flex_attention` without a compiler. A boolean mask is a mask function, an additive one a score function."""
    from torch.nn.attention import flex_attention as module

    k, v, mask = without_unseen(q, k, v, mask=mask, window=window)
    told = visible(q, k, mask=mask, causal=causal, window=window)
    if told is not None:
        told = told.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])

    def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        assert told is not None
        entry = told[b, h, i, j]
        return torch.where(entry, s, -math.inf) if told.dtype == torch.bool else s + entry

    # Without its compiler it is traced anew for every shape all the same, which takes most of the time of a run.
    with patch.object(module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, create=True):
        return module.flex_attention(
            q,
            k,
            v,
            score_mod=None if told is None else score,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )


# The reference -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GivenMask(Mask):
    """A mask of the reference that is a matrix instead of a pattern.

    Attributes:
        matrix: broadcastable to (batch, heads, queries, keys), true where a query may see a key.
    """

    matrix: Tensor

    @cached_property
    def visible(self) -> Tensor:
        return self.matrix


class ReferenceKernel(KernelCandidate):
    """The weighted sum of the reference models, on one of its paths."""

    def __init__(self, path: Path) -> None:
        self.title = f"reference:{path}"
        self.path = path

    def attention(  # type: ignore[override]
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        window: int | None = None,
        prefix: Prefix | None = None,
        documents: Documents | None = None,
        scale: float | None = None,
    ) -> Tensor:
        if prefix is None and documents is None:
            k, v, mask = without_unseen(q, k, v, mask=mask, window=window)
        elif documents is not None and mask is None:
            first, documents = _without_unseen(documents, max(k.shape[2] - q.shape[2], 0))
            k, v = k[:, :, first:], v[:, :, first:]
        return PATHS[self.path](
            q,
            k,
            v,
            mask=_reference_mask(q, k, mask, causal, window, prefix, documents),
            bias=_bias(mask),
            scale=q.shape[-1] ** -0.5 if scale is None else scale,
            dropout=0.0,
        )


def _reference_mask(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    causal: bool,
    window: int | None,
    prefix: Prefix | None,
    documents: Documents | None,
) -> Mask:
    """A description where the reference has one for it, else a matrix."""
    queries, keys = q.shape[2], k.shape[2]
    pattern: schema.Pattern | Band = schema.Bidirectional()
    if causal or window is not None:
        before = keys if window is None else window - 1
        pattern = Band(before=before, after=0 if causal else before)
    described = Mask(
        pattern=pattern,
        queries=queries,
        keys=keys,
        cached=0 if isinstance(pattern, schema.Bidirectional) else keys - queries,
        padding=None,
        device=q.device,
        prefix=prefix or 0,
        documents=None if documents is None else _rows(documents),
    )
    if mask is None and described.cached >= 0:
        return described
    matrix = described.visible
    if mask is not None:
        matrix = matrix & (mask if mask.dtype == torch.bool else mask > -math.inf)
    facts = {field.name: getattr(described, field.name) for field in fields(described)}
    return GivenMask(**facts, matrix=matrix)


def _rows(documents: Documents) -> tuple[Lengths, ...]:
    """One tuple of lengths for each row of the batch, or a single one for all."""
    each = tuple(entry for entry in documents if isinstance(entry, tuple))
    return each or (tuple(entry for entry in documents if isinstance(entry, int)),)


def _without_unseen(documents: Documents, place: int) -> tuple[int, Documents]:
    """The first key that a query at `place` or behind it sees, and the lengths of documents from there on."""
    rows = _rows(documents)
    starts = [[sum(row[:number]) for number in range(len(row))] for row in rows]
    first = min(max((start for start in row if start <= place), default=0) for row in starts)
    left = tuple(
        tuple(
            length - max(first - start, 0)
            for start, length in zip(row, lengths, strict=True)
            if start + length > first
        )
        for row, lengths in zip(starts, rows, strict=True)
    )
    return first, left


def _bias(mask: Tensor | None) -> Tensor | None:
    """What an additive mask adds where it does not hide."""
    if mask is None or mask.dtype == torch.bool:
        return None
    return mask.masked_fill(mask == -math.inf, 0.0)


# By name -------------------------------------------------------------------------------------------------------------


def _of_transformers(name: str) -> KernelCandidate:
    """Imported when it is asked for: it takes seconds, and need not be installed."""
    from holotype_conformance.kernels.adapters.hf import TransformersKernel

    return TransformersKernel(name)


KERNELS: dict[str, Callable[[], KernelCandidate]] = {
    "sdpa": lambda: FunctionKernel(sdpa, "sdpa"),
    **{f"sdpa:{name}": partial(OneBackEnd, name) for name in BACK_ENDS},
    "flex": lambda: FunctionKernel(flex, "flex"),
    "reference:fused": lambda: ReferenceKernel("fused"),
    "reference:blocks": lambda: ReferenceKernel("blocks"),
    "reference:eager": lambda: ReferenceKernel("eager"),
    "hf:sdpa": partial(_of_transformers, "sdpa"),
    "hf:eager": partial(_of_transformers, "eager"),
}
