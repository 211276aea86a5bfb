"""The weighted sum of the reference models, on each of its paths, as a kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import (
    Documents,
    KernelCandidate,
    Lengths,
    Prefix,
)
from holotype_conformance.kernels.masks import without_unseen
from holotype_reference.kernels.paths import PATHS, Path
from holotype_reference.masks import Band, Mask
from holotype_spec import schema


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
    """The finite part of an additive mask: its values where it does not hide."""
    if mask is None or mask.dtype == torch.bool:
        return None
    return mask.masked_fill(mask == -math.inf, 0.0)
