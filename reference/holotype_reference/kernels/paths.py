"""softmax(scale · q kᵀ + bias, over the visible keys) v, in three ways that agree: `PATHS`.

    eager    the formula, step by step, with all scores in memory at once (`holotype_reference.attention`)
    blocks   the formula, tile by tile, forwards and backwards (`holotype_reference.kernels.blocks`)
    fused    through `torch.nn.functional.scaled_dot_product_attention`, in the cheapest way that is exact: `route`;
             on the CPU tile by tile where that is cheaper (`holotype_reference.kernels.cpu_flash`)

Where heads are grouped, query head h reads key-value head h // group: neighbouring query heads share (Ainslie et al.
2023, section 2.2).
"""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from holotype_reference.attention import WeightedSum, eager, share
from holotype_reference.basics import compute_dtype
from holotype_reference.kernels.blocks import by_formula
from holotype_reference.kernels.cpu_flash import by_kernel
from holotype_reference.kernels.mask_shapes import (
    by_document,
    is_causal,
    is_full,
    of_any_document,
    of_row,
    row_count,
    varies,
)
from holotype_reference.kernels.tiles import area, halved, striped, tiles
from holotype_reference.masks import Mask

Path = Literal["fused", "blocks", "eager"]
Route = Literal["full", "causal", "rows", "documents", "tiles", "dense"]


class _Given(Protocol):
    """A weighted sum whose bias, scale and dropout are settled."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *, mask: Mask) -> Tensor: ...


def blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    bias: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """The formula without `scaled_dot_product_attention`: tiles of queries against the keys that they see.

    A bias, dropout, or a mask that only its matrix tells goes the way of `eager`.
    """
    whole = partial(blocks, bias=bias, scale=scale, dropout=dropout)
    if bias is not None or dropout or not mask.is_described:
        return eager(query, key, value, mask=mask, bias=bias, scale=scale, dropout=dropout)
    if varies(mask):
        return _by_row(query, key, value, mask, whole)
    if mask.documents is not None:
        return _by_document(query, key, value, mask, whole)
    return by_formula(query, key, value, mask=mask, scale=scale)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    bias: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """The path "fused": the fastest exact way for this mask, as `route` chooses it.

    What a mask may be stands at `holotype_reference.masks.Mask`. With a bias the dense way is the only one.
    """
    heads = query.shape[0] * query.shape[1]
    chosen = "dense" if bias is not None else route(mask, heads)
    by_name = not dropout and _suits_flash(query, key, value)
    whole = partial(attend, bias=bias, scale=scale, dropout=dropout)
    match chosen:
        case "full":
            return _sdpa(query, key, value, None, scale, dropout)
        case "causal":
            found = _triangle(query, key, value, mask, scale) if by_name else None
            if found is not None:
                return found
            return _sdpa(query, key, value, None, scale, dropout, is_causal=True)
        case "rows":
            return _by_row(query, key, value, mask, whole)
        case "documents":
            if by_name and _tiled_alone(mask, heads):
                return by_kernel(query, key, value, mask=mask, scale=scale)
            return _by_document(query, key, value, mask, whole)
        case "tiles" if by_name:
            return by_kernel(query, key, value, mask=mask, scale=scale)
    # Kernels differ in what they make of a row without any key: it sees everything, and its result is left out.
    told = mask.open if bias is None else bias.masked_fill(~mask.open, float("-inf"))
    found = _sdpa(query, key, value, told, scale, dropout)
    return found if mask.shows_all else mask.silence(found)


PATHS: dict[Path, WeightedSum] = {"fused": attend, "blocks": blocks, "eager": eager}


def route(mask: Mask, heads: int) -> Route:
    """The way that `attend` goes for a mask, with so many heads in all rows: the first of these that is exact and pays.

    full        nothing is hidden, and nothing is said to the kernel
    causal      a lower triangle, which kernels know by a flag
    rows        each row of the batch by itself, because their prefixes or documents differ
    documents   each packed document by itself, those of one length together
    tiles       blocks of queries against the stretches of keys that they see
    dense       all scores, and a matrix that says which of them count
    """
    if is_full(mask):
        return "full"
    if is_causal(mask):
        return "causal"
    if not mask.is_described:
        return "dense"
    if varies(mask):
        return "rows"
    if mask.documents is not None:
        return "documents"
    return "tiles" if _tiling_pays(mask, heads) else "dense"


# What a call of a kernel for one tile costs, and each key that a head reads, in scores that could be computed
# meanwhile; and the square from which on memory decides. Measured on a CPU.
CALL = 32768
READ = 16
LARGE = 1024 * 1024


def _tiling_pays(mask: Mask, heads: int) -> bool:
    square = mask.queries * mask.keys
    if square >= LARGE:
        return True
    dense, call = square + READ * mask.keys, CALL / max(heads, 1)
    return dense > call and dense > sum(
        tile.area + READ * tile.width + call for tile in tiles(mask)
    )


def cost(mask: Mask, heads: int) -> float:
    """The scores that the route of a mask computes for so many heads, as a share of all queries times all keys.

    Kernels that know a triangle are taken to go by blocks of 64.
    """
    square = mask.queries * mask.keys
    match route(mask, heads):
        case "full" | "dense":
            return 1.0
        case "causal" | "tiles":
            return area(tiles(mask)) / square
        case "rows":
            return fmean(
                cost(of_row(mask, index), heads // row_count(mask))
                for index in range(row_count(mask))
            )
        case "documents":
            any_of_them = of_any_document(mask)
            if any_of_them is not None:
                number = mask.queries // any_of_them.queries
                return cost(any_of_them, heads * number) / number
            alone = by_document(mask)
            return sum(cost(part, heads) * part.queries * part.keys for part in alone) / square


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    told: Tensor | None,
    scale: float,
    dropout: float,
    is_causal: bool = False,
) -> Tensor:
    grouped = query.shape[1] != key.shape[1]
    if grouped and not query.is_cpu:  # not every kernel elsewhere shares heads by itself
        key, value, grouped = share(key, query.shape[1]), share(value, query.shape[1]), False
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=told,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=grouped,
    )


def _triangle(query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float) -> Tensor | None:
    """The way of a square and causal mask on the CPU, or None where nothing is faster than a flag for the kernel."""
    if query.dtype != compute_dtype(query.dtype):
        return None
    gradients = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    if gradients and _keeping_pays(mask.queries, query.shape[0] * query.shape[1]):
        return by_formula(query, key, value, mask=mask, scale=scale, keep=True)
    stripe = striped if gradients else halved
    if stripe(mask.queries) < mask.queries:
        return by_kernel(query, key, value, mask=mask, scale=scale)
    return None


# Triangles with such a side; weights of larger ones do not stay near. Small ones only if so many scores are computed in
# all: of a few they are sooner computed again.
KEPT, SMALL, MANY = range(64, 257), range(192), 1 << 18


def _keeping_pays(side: int, heads: int) -> bool:
    """Whether to keep the weights of triangles for the way back, which spares it a product of five and the softmax.

    Several threads share the heads of a kernel better than they share products.
    """
    if side not in KEPT or torch.get_num_threads() > 1:
        return False
    return side not in SMALL or heads * side**2 >= MANY


def _tiled_alone(mask: Mask, heads: int) -> bool:
    """Whether documents that are not alike can go through the kernel by their tiles, one after the other."""
    if of_any_document(mask) is not None:
        return False
    return all(route(part, heads) != "dense" for part in by_document(mask) if part.queries)


def _suits_flash(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernel of a tile takes these; the public function takes more, and elsewhere has its own kernels."""
    alike = query.dtype == key.dtype == value.dtype and query.shape[-1] == value.shape[-1]
    return alike and query.is_cpu


def _by_row(query: Tensor, key: Tensor, value: Tensor, mask: Mask, attend: _Given) -> Tensor:
    """Each row of the batch by itself."""
    rows = zip(*(torch.split(x, 1) for x in (query, key, value)), strict=True)
    found = [attend(*row, mask=of_row(mask, index)) for index, row in enumerate(rows)]
    return _swapped(torch.cat([_swapped(x) for x in found]))


def _by_document(query: Tensor, key: Tensor, value: Tensor, mask: Mask, attend: _Given) -> Tensor:
    """Each document by itself; documents of one length as a batch.

    Split, not sliced: the gradient of each slice would be as long as the whole sequence.
    """
    any_of_them = of_any_document(mask)
    if any_of_them is not None:
        number = query.shape[2] // any_of_them.queries
        apart = "batch heads (number length) width -> (batch number) heads length width"
        query, key, value = (rearrange(x, apart, number=number) for x in (query, key, value))
        together = "(batch number) heads length width -> batch heads (number length) width"
        return rearrange(attend(query, key, value, mask=any_of_them), together, number=number)
    alone = by_document(mask)
    queries = _split(query, [part.queries for part in alone])
    keys, values = (_split(x, [part.keys for part in alone]) for x in (key, value))
    parts = zip(queries, keys, values, alone, strict=True)
    found = [attend(*part, mask=its_mask) for *part, its_mask in parts]
    return _swapped(torch.cat([_swapped(x) for x in found], dim=1))


def _split(x: Tensor, lengths: list[int]) -> list[Tensor]:
    """(batch, heads, length, width) -> parts of such lengths, whose gradients are joined token by token."""
    return [_swapped(part) for part in torch.split(_swapped(x), lengths, dim=1)]


def _swapped(x: Tensor) -> Tensor:
    """(batch, heads, length, width) -> (batch, length, heads, width), or back.

    Projections and kernels give heads of a token side by side, and what lies side by side is copied in one go.
    """
    return x.transpose(1, 2)
