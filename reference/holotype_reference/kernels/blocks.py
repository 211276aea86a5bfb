"""Attention tile by tile in matrix products, so that time follows the area of the mask and memory its length.

On the way back the weights are computed again instead of being kept (Dao et al. 2022, section 3.1). The formulas of the
gradients stand in `holotype_reference.kernels.gradients`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from holotype_reference.basics import compute_dtype
from holotype_reference.kernels.gradients import Gradients, gradients
from holotype_reference.kernels.tiles import Additive, Tile, area, blocks_of, tiles
from holotype_reference.kernels.vmap import Mapped
from holotype_reference.masks import Mask

# So many scores stay in the cache between one operation on them and the next: as many heads at a time are computed.
CACHED = 1 << 18
# By how many queries a key is read, on average, from which on a copy of a head's rows that lie side by side pays.
OFTEN = 512
BY_HEAD = "batch (kv_heads group) queries width"
BY_GROUP = "batch kv_heads (queries group) width"


def by_formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    scale: float,
    height: int | None = None,
    keep: bool = False,
) -> Tensor:
    """Attention under a described mask without documents, the same prefix in all rows, in at least float32.

    Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim) -> as query. The height of
    the tiles is as in `tiles` of `tiles.py`. A query that sees nothing gets zero, and zero gradients. The
    weights may be kept after all: that is faster, and takes memory for all of them.

    The queries of a group of heads stand side by side, so that they read keys and values together.
    """
    group = query.shape[1] // max(key.shape[1], 1)
    parts = blocks_of(mask) if height is None else tiles(mask, height)
    wide = compute_dtype(query.dtype)
    queries = rearrange(query, f"{BY_HEAD} -> {BY_GROUP}", group=group).to(wide)
    added = Additive(mask, parts, wide)
    given = (queries, key.to(wide), value.to(wide), parts, added, scale, keep)
    output: Tensor = _ByFormula.apply(*given)[0]  # type: ignore[no-untyped-call]
    return rearrange(output, f"{BY_GROUP} -> {BY_HEAD}", group=group).to(query.dtype)


class _ByFormula(Mapped):
    """Query (batch, kv_heads, queries · group, head_dim)."""

    @staticmethod
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        parts: tuple[Tile, ...],
        added: Additive,
        scale: float,
        keep: bool,
    ) -> tuple[Tensor, ...]:
        """The output, and the weights of each tile if they are kept."""
        scores = Scores(query, added, parts, scale)
        output = scores.like(query, value.shape[-1])
        kept = []
        for portion in scores.portions():
            q, out = query[portion], output[portion]
            k, v = (scores.packed(x[portion]) for x in (key, value))
            for tile in parts:
                rows, columns = scores.rows(tile), tile.keys
                weights = scores.weights(q[:, rows], k[:, columns], tile, portion, own=keep)
                torch.bmm(weights, v[:, columns], out=out[:, rows])
                if keep:
                    kept.append(weights)
        return output, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        query, key, value, ctx.parts, ctx.added, ctx.scale, _ = inputs
        ctx.save_for_backward(query, key, value, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # they are to be differentiated again
            return *_again(upstream, query, key, value, ctx.added.mask, ctx.scale), *[None] * 4
        scores = Scores(query, ctx.added, ctx.parts, ctx.scale)
        d_query, d_key, d_value = (scores.like(x, x.shape[-1]) for x in (query, key, value))
        known = iter(kept)
        # What keys get is added up, unless a single tile has it all.
        adds = [tile.width for tile in ctx.parts] != [key.shape[2]]
        for portion in scores.portions():
            q, k, v, g = (scores.packed(x[portion]) for x in (query, key, value, upstream))
            d_q, d_k, d_v = (x[portion] for x in (d_query, d_key, d_value))
            if adds:
                d_k.zero_()
                d_v.zero_()
            for tile in ctx.parts:
                rows, columns = scores.rows(tile), tile.keys
                weights = next(known, None)
                if weights is None:
                    weights = scores.weights(q[:, rows], k[:, columns], tile, portion)
                d_v[:, columns].baddbmm_(weights.mT, g[:, rows], beta=adds)
                d_scores = scores.gradient(weights, g[:, rows], v[:, columns])
                d_q[:, rows].baddbmm_(d_scores, k[:, columns], beta=0, alpha=ctx.scale)
                d_k[:, columns].baddbmm_(d_scores.mT, q[:, rows], beta=adds, alpha=ctx.scale)
        return d_query, d_key, d_value, None, None, None, None


def _again(
    upstream: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float
) -> Gradients:
    """The gradients by the formula as a whole."""
    group = query.shape[2] // max(mask.queries, 1)
    upstream, query = (
        rearrange(x, f"{BY_GROUP} -> {BY_HEAD}", group=group) for x in (upstream, query)
    )
    d_query, d_key, d_value = gradients(upstream, query, key, value, mask=mask, scale=scale)
    return rearrange(d_query, f"{BY_HEAD} -> {BY_GROUP}", group=group), d_key, d_value


Portion = tuple[int, slice] | tuple[slice, int]


class Scores:
    """Room for the scores of a tile, of as many heads at a time as the cache holds; used again for every tile."""

    def __init__(
        self, query: Tensor, added: Additive, parts: tuple[Tile, ...], scale: float
    ) -> None:
        self.batch, self.heads = query.shape[:2]
        self.group = query.shape[2] // max(added.mask.queries, 1)
        self.added = added
        self.scale = scale
        largest = max((tile.height * tile.width * self.group for tile in parts), default=0)
        self.number = min(max(CACHED // max(largest, 1), 1), max(self.batch, self.heads))
        self.packs = area(parts) >= OFTEN * added.mask.keys
        self.size = self.number * largest
        self.rooms: dict[str, Tensor] = {}
        self.query = query

    def portions(self) -> Iterator[Portion]:
        """Some heads of a row of the batch, or a head of some rows, of a tensor (batch, kv_heads, …)."""
        if self.heads >= self.batch:
            for row in range(self.batch):
                yield from ((row, some) for some in self._slices(self.heads))
        else:
            for head in range(self.heads):
                yield from ((some, head) for some in self._slices(self.batch))

    def like(self, x: Tensor, width: int) -> Tensor:
        """Memory for (batch, kv_heads, length of x, width) in which a portion lies side by side: the products of a
        batch are taken one by one otherwise."""
        if self.heads >= self.batch:
            return x.new_empty(self.batch, self.heads, x.shape[2], width)
        return x.new_empty(self.heads, self.batch, x.shape[2], width).transpose(0, 1)

    def _slices(self, stop: int) -> Iterator[slice]:
        return (slice(first, first + self.number) for first in range(0, stop, self.number))

    def packed(self, x: Tensor) -> Tensor:
        """(heads, length, head_dim), with the rows of a head side by side if they are read often enough."""
        return x.contiguous() if self.packs else x

    def rows(self, tile: Tile) -> slice:
        """The queries of a tile, those of a group side by side."""
        return slice(tile.queries.start * self.group, tile.queries.stop * self.group)

    def weights(
        self, query: Tensor, key: Tensor, tile: Tile, portion: Portion, own: bool = False
    ) -> Tensor:
        """The softmax (heads, queries · group, keys) of a tile, perhaps in memory of its own."""
        number = query.shape[0]
        size = (number, query.shape[1], tile.width)
        scores = query.new_empty(size) if own else self._room("weights", size)
        scores.baddbmm_(query, key.mT, beta=0, alpha=self.scale)
        by_query = scores.view(number, tile.height, self.group, tile.width)
        for columns, numbers in self.added.edges(tile):
            by_query[..., columns].add_(self._own(numbers, portion))
        torch.softmax(scores, dim=-1, out=scores)
        blind = self.added.blind(tile)
        if blind is not None:  # its softmax is 0 / 0
            by_query.masked_fill_(self._own(blind, portion), 0.0)
        return scores

    def gradient(self, weights: Tensor, upstream: Tensor, value: Tensor) -> Tensor:
        """The gradients of a tile's scores, from (heads, queries · group, head_dim): as its weights."""
        d_weights = self._room("gradient", weights.shape)
        torch.bmm(upstream, value.mT, out=d_weights)
        torch._softmax_backward_data(d_weights, weights, -1, weights.dtype, grad_input=d_weights)
        return d_weights

    def _room(self, name: str, size: tuple[int, ...]) -> Tensor:
        if name not in self.rooms:
            self.rooms[name] = self.query.new_empty(self.size)
        return self.rooms[name][: math.prod(size)].view(size)

    def _own(self, x: Tensor, portion: Portion) -> Tensor:
        """(batch or 1, queries or 1, 1, keys) -> the same of the portion's rows, or of its only row."""
        return x[portion[0] if x.shape[0] > 1 else 0]
