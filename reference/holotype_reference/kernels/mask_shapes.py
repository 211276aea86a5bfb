"""Properties of a mask without its matrix: whether it is full or a triangle, and its rows and documents."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

from einops import rearrange
from torch import Tensor

from holotype_reference.masks import Mask


def part(mask: Mask, queries: slice, keys: slice) -> Tensor:
    """The part of the mask of some queries and some keys: (batch or 1, 1, those queries, those keys) boolean."""
    allowed = mask.allowed(queries, keys)
    if mask.padding is None:
        return allowed
    return allowed & rearrange(mask.padding[:, keys], "batch keys -> batch 1 1 keys")


def row_count(mask: Mask) -> int:
    """The number of rows of the batch that the mask tells apart."""
    prefixes = 1 if isinstance(mask.prefix, int) else len(mask.prefix)
    return max(
        prefixes, len(mask.documents or ()), 1 if mask.padding is None else len(mask.padding)
    )


def varies(mask: Mask) -> bool:
    """Whether prefix or documents differ from row to row of the batch."""
    return isinstance(mask.prefix, tuple) or len(mask.documents or ()) > 1


def of_row(mask: Mask, index: int) -> Mask:
    """The mask of one row of the batch."""
    documents = mask.documents
    if documents is not None and len(documents) > 1:
        documents = documents[index : index + 1]
    return replace(
        mask,
        padding=None if mask.padding is None else mask.padding[index : index + 1],
        prefix=mask.prefix if isinstance(mask.prefix, int) else mask.prefix[index],
        documents=documents,
    )


def by_document(mask: Mask) -> tuple[Mask, ...]:
    """The mask of each document by itself, of a mask that does not vary; documents may be without queries."""
    assert mask.documents is not None
    lengths = mask.documents[0]
    ends = accumulate(lengths)
    return tuple(_document(mask, end - n, end) for n, end in zip(lengths, ends, strict=True))


def of_any_document(mask: Mask) -> Mask | None:
    """If the documents of a mask that does not vary are alike: that of them all, in a batch (batch documents)."""
    assert mask.documents is not None
    length = mask.documents[0][0]
    if set(mask.documents[0]) != {length} or mask.prefix != 0 or mask.queries != mask.keys:
        return None
    padding = mask.padding
    if padding is not None:
        padding = rearrange(padding, "batch (n keys) -> (batch n) keys", keys=length)
    return replace(mask, queries=length, keys=length, padding=padding, documents=None)


def _document(mask: Mask, start: int, end: int) -> Mask:
    """The mask of the document that has the keys [start, end)."""
    assert isinstance(mask.prefix, int)
    first, last = max(start, mask.cached), min(end, mask.cached + mask.queries)
    return replace(
        mask,
        queries=max(last - first, 0),
        keys=end - start,
        cached=max(first - start, 0),
        padding=None if mask.padding is None else mask.padding[:, start:end],
        prefix=max(mask.prefix - start, 0),
        documents=None,
    )


def is_full(mask: Mask) -> bool:
    """Every query sees every key, as far as this can be known without reading the padding."""
    if not mask.is_described or mask.padding is not None or mask.documents is not None:
        return False
    before, after = mask.reach
    if isinstance(mask.prefix, int) and mask.prefix >= mask.keys:
        return True
    back = before is None or mask.cached + mask.queries - 1 <= before
    return back and (after is None or mask.keys <= mask.cached + 1 + after)


def is_causal(mask: Mask) -> bool:
    """Exactly the lower triangle of a square, which kernels know without a matrix."""
    if not mask.is_described or mask.padding is not None or mask.documents is not None:
        return False
    if mask.cached or mask.queries != mask.keys or mask.prefix != 0:
        return False
    before, after = mask.reach
    return after == 0 and (before is None or mask.keys <= before + 1)
