"""Attention tile by tile, so that time follows the area of the mask and memory its length: twice.

`by_kernel` calls, for each tile, the kernel that `scaled_dot_product_attention` calls on the CPU. `by_formula` computes
each in matrix products, and on the way back computes the weights again instead of keeping them (Dao et al. 2022,
section 3.1):

    weights  = softmax(scale · query keyᵀ + added)        output = weights value
    d value  = weightsᵀ d output                          d weights = d output valueᵀ
    d scores = weights · (d weights - Σ d output · output)
    d query  = scale · d scores key                       d key = scale · d scoresᵀ query
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from holotype_reference.masks import Mask
from holotype_reference.normalization import compute_dtype
from holotype_reference.tiles import Additive, Tile, blocks_of, tiles

Gradients = tuple[Tensor | None, ...]

# So many scores stay in the cache between one operation on them and the next: as many heads at a time are computed.
CACHED = 1 << 18
BY_HEAD = "batch (kv_heads group) queries width"
BY_GROUP = "batch kv_heads (queries group) width"


def by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    scale: float,
    height: int | None = None,
) -> Tensor:
    """Attention under a described mask without documents, the same prefix in all rows, on the CPU.

    Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim) -> as query. The height of
    the tiles is as in `holotype_reference.tiles.tiles`. A query that sees nothing gets zero, and zero gradients.
    """
    parts = tiles(mask, height)
    added = Additive(mask, parts, query.dtype)
    output: Tensor = _ByKernel.apply(query, key, value, parts, added, scale)  # type: ignore[no-untyped-call]
    return output


def by_formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    scale: float,
    height: int | None = None,
) -> Tensor:
    """The same in matrix products, in at least float32 and on any device, without corners.

    The queries of a group of heads stand side by side, so that they read keys and values together.
    """
    group = query.shape[1] // max(key.shape[1], 1)
    parts = blocks_of(mask) if height is None else tiles(mask, height)
    wide = compute_dtype(query.dtype)
    queries = rearrange(query, f"{BY_HEAD} -> {BY_GROUP}", group=group).to(wide) * scale
    added = Additive(mask, parts, wide)
    output: Tensor = _ByFormula.apply(queries, key.to(wide), value.to(wide), parts, added)  # type: ignore[no-untyped-call]
    return rearrange(output, f"{BY_GROUP} -> {BY_HEAD}", group=group).to(query.dtype)


class _ByKernel(torch.autograd.Function):
    """The kernel is called by its own name because it also returns log Σ exp(scores), which the public function keeps
    to itself: from it the kernel's backward pass has the weights of a query, in whatever tiles its keys lie."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        parts: tuple[Tile, ...],
        added: Additive,
        scale: float,
    ) -> Tensor:
        output = _like(query)
        log_sum = query.new_empty(query.shape[:3], dtype=compute_dtype(query.dtype))
        done = 0
        for tile in parts:
            rows, columns = tile.queries, tile.keys
            mixed, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query[:, :, rows],
                key[:, :, columns],
                value[:, :, columns],
                0.0,
                tile.corner,
                attn_mask=added.of(tile),
                scale=scale,
            )
            if rows.start < done:
                mixed, sums = _joined(mixed, sums, output[:, :, rows], log_sum[:, :, rows])
            output[:, :, rows], log_sum[:, :, rows] = mixed, sums
            done = rows.stop
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.parts, ctx.added, ctx.scale = parts, added, scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Gradients:
        query, key, value, output, log_sum = ctx.saved_tensors
        d_query, d_key, d_value = (_like(x).zero_() for x in (query, key, value))
        for tile in ctx.parts:
            rows, columns = tile.queries, tile.keys
            d_queries, d_keys, d_values = (
                torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    upstream[:, :, rows],
                    query[:, :, rows],
                    key[:, :, columns],
                    value[:, :, columns],
                    output[:, :, rows],
                    log_sum[:, :, rows],
                    0.0,
                    tile.corner,
                    attn_mask=ctx.added.of(tile),
                    scale=ctx.scale,
                )
            )
            d_query[:, :, rows] += d_queries
            d_key[:, :, columns] += d_keys
            d_value[:, :, columns] += d_values
        return d_query, d_key, d_value, None, None, None


def _joined(
    output: Tensor, log_sum: Tensor, other: Tensor, other_sum: Tensor
) -> tuple[Tensor, Tensor]:
    """The result over the keys of two tiles, from their results: each counts by its share of the sum of powers."""
    total = torch.logaddexp(log_sum, other_sum)
    share = (log_sum - total).exp().unsqueeze(-1)
    joined = torch.lerp(other.to(share.dtype), output.to(share.dtype), share)
    return joined.to(output.dtype), total


class _ByFormula(torch.autograd.Function):
    """Query (batch, kv_heads, queries · group, head_dim), already scaled."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        parts: tuple[Tile, ...],
        added: Additive,
    ) -> Tensor:
        output = torch.zeros_like(query)
        scores = Scores(query, added, parts)
        for portion in scores.portions():
            q, k, v, out = (x[portion] for x in (query, key, value, output))
            for tile in parts:
                rows, columns = scores.rows(tile), tile.keys
                weights = scores.weights(q[:, rows], k[:, columns], tile, portion)
                torch.bmm(weights, v[:, columns], out=out[:, rows])
        ctx.save_for_backward(query, key, value, output)
        ctx.parts, ctx.added = parts, added
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Gradients:
        query, key, value, output = ctx.saved_tensors
        d_query, d_key, d_value = (torch.zeros_like(x) for x in (query, key, value))
        along = (upstream * output).sum(dim=-1, keepdim=True)
        scores = Scores(query, ctx.added, ctx.parts)
        for portion in scores.portions():
            q, k, v, g, a = (x[portion] for x in (query, key, value, upstream, along))
            d_q, d_k, d_v = (x[portion] for x in (d_query, d_key, d_value))
            for tile in ctx.parts:
                rows, columns = scores.rows(tile), tile.keys
                weights = scores.weights(q[:, rows], k[:, columns], tile, portion)
                d_v[:, columns].baddbmm_(weights.mT, g[:, rows])
                d_scores = scores.room(1, weights)
                torch.baddbmm(a[:, rows], g[:, rows], v[:, columns].mT, beta=-1, out=d_scores)
                d_scores.mul_(weights)
                torch.bmm(d_scores, k[:, columns], out=d_q[:, rows])
                d_k[:, columns].baddbmm_(d_scores.mT, q[:, rows])
        return d_query, d_key, d_value, None, None


class Scores:
    """Room for the scores of a tile, in as many heads at a time as the cache holds; used again for every tile."""

    def __init__(self, query: Tensor, added: Additive, parts: tuple[Tile, ...]) -> None:
        self.batch, self.heads = query.shape[:2]
        self.group = query.shape[2] // max(added.mask.queries, 1)
        self.added = added
        largest = max((tile.height * tile.width * self.group for tile in parts), default=0)
        self.number = min(max(CACHED // max(largest, 1), 1), self.heads)
        self.rooms = query.new_empty(2, self.number * largest)

    def portions(self) -> Iterator[tuple[int, slice]]:
        """A row of the batch and some of its heads, of a tensor (batch, kv_heads, …)."""
        for row in range(self.batch):
            for first in range(0, self.heads, self.number):
                yield row, slice(first, first + self.number)

    def rows(self, tile: Tile) -> slice:
        """The queries of a tile, those of a group side by side."""
        return slice(tile.queries.start * self.group, tile.queries.stop * self.group)

    def room(self, which: int, like: Tensor) -> Tensor:
        return self.rooms[which, : like.numel()].view_as(like)

    def weights(self, query: Tensor, key: Tensor, tile: Tile, portion: tuple[int, slice]) -> Tensor:
        """The softmax (heads, queries · group, keys) of a tile."""
        size = (len(query), query.shape[1], key.shape[1])
        scores = self.rooms[0, : prod(size)].view(size)
        torch.bmm(query, key.mT, out=scores)
        by_query = scores.view(len(query), tile.height, self.group, tile.width)
        for columns, numbers in self.added.edges(tile):
            by_query[..., columns] += self._own(numbers, portion)
        torch.softmax(scores, dim=-1, out=scores)
        blind = self.added.blind(tile)
        if blind is not None:  # its softmax is 0 / 0
            by_query.masked_fill_(self._own(blind, portion), 0.0)
        return scores

    def _own(self, x: Tensor, portion: tuple[int, slice]) -> Tensor:
        """(batch or 1, queries or 1, keys) -> (queries or 1, 1, keys), of a row of the batch."""
        return x[portion[0] if len(x) > 1 else 0].unsqueeze(1)


def _like(x: Tensor) -> Tensor:
    """(batch, heads, length, head_dim), with the heads of a token side by side, as the projections want them."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(
        1, 2
    )
