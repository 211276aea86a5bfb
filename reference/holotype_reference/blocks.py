"""Attention tile by tile, so that time follows the area of the mask and memory its length.

A tile is attended to as if it were all there is. Of its scores only the logarithm of their sum of powers stays behind,
one number a query: with it the backward pass computes the weights again (Dao et al. 2022, algorithms 2 and 4).

    weights = exp(scores - log_sum)         log_sum = log Σ_j exp(scores)
    d value = weightsᵀ d output             d weights = d output valueᵀ
    d scores = weights · (d weights - Σ d output · output)
    d query = scale · d scores key          d key = scale · d scoresᵀ query
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from holotype_reference.masks import Mask
from holotype_reference.normalization import compute_dtype
from holotype_reference.tiles import Additive, Tile, tiles

Gradients = tuple[Tensor, Tensor, Tensor]


class TileKernel(Protocol):
    """How one tile is computed. Query (batch, heads, queries, head_dim); key and value (batch, kv_heads, keys,
    head_dim); added to the scores (batch or 1, 1, queries or 1, keys) or None, where a query may see nothing at all;
    corner if query i sees nothing behind key i besides."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        added: Tensor | None,
        corner: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """The output, shaped as the query, and log_sum (batch, heads, queries)."""
        ...

    def backward(
        self,
        upstream: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        log_sum: Tensor,
        *,
        added: Tensor | None,
        corner: bool,
        scale: float,
    ) -> Gradients:
        """The gradients by query, key and value."""
        ...


class Formula:
    """A tile by the formulas above, in matrix products. Writes over its own intermediate results to spare memory."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        added: Tensor | None,
        corner: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        group = query.shape[1] // key.shape[1]
        scores = self.scores(_by_kv_heads(query, key), key, group, added, corner, scale)
        # Taken off so that no power overflows. It is -inf in a row of nothing but -inf, whose powers are to be 0.
        largest = scores.amax(dim=-1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
        powers = scores.sub_(largest).exp_()
        total = powers.sum(dim=-1, keepdim=True)
        weights = powers.div_(total.clamp(min=1.0)).to(value.dtype)
        output = weights @ value
        return _by_heads(output, group), _by_heads(largest + total.log(), group).squeeze(-1)

    def backward(
        self,
        upstream: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        log_sum: Tensor,
        *,
        added: Tensor | None,
        corner: bool,
        scale: float,
    ) -> Gradients:
        group = query.shape[1] // key.shape[1]
        query, upstream, output, log_sum = (
            _by_kv_heads(x, key) for x in (query, upstream, output, log_sum.unsqueeze(-1))
        )
        lowest = torch.finfo(log_sum.dtype).min
        weights = (
            self.scores(query, key, group, added, corner, scale)
            .sub_(log_sum.clamp(min=lowest))
            .exp_()
        )
        d_value = weights.to(value.dtype).mT @ upstream
        d_weights = (upstream @ value.mT).to(weights.dtype)
        along = (upstream * output).sum(dim=-1, keepdim=True)
        d_scores = d_weights.sub_(along).mul_(weights).mul_(scale).to(key.dtype)
        return _by_heads(d_scores @ key, group), d_scores.mT @ query, d_value

    def scores(
        self,
        query: Tensor,
        key: Tensor,
        group: int,
        added: Tensor | None,
        corner: bool,
        scale: float,
    ) -> Tensor:
        """(batch, kv_heads, group · queries, keys), in at least float32."""
        scores = (query * scale) @ key.mT
        scores = scores.to(compute_dtype(scores.dtype))
        by_head = rearrange(
            scores,
            "batch kv_heads (group queries) keys -> batch kv_heads group queries keys",
            group=group,
        )
        if added is not None:
            by_head += added.unsqueeze(1)
        if corner:
            by_head += torch.full_like(by_head[0, 0, 0], -math.inf).triu(1)
        return scores


class Flash:
    """A tile by the kernel that `scaled_dot_product_attention` calls on the CPU.

    It is called by its own name because it also returns log_sum, which the public function keeps to itself. A query
    that sees nothing gets zero, and zero gradients.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        added: Tensor | None,
        corner: bool,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, corner, attn_mask=added, scale=scale
        )
        return output, log_sum

    def backward(
        self,
        upstream: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        output: Tensor,
        log_sum: Tensor,
        *,
        added: Tensor | None,
        corner: bool,
        scale: float,
    ) -> Gradients:
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        gradients: Gradients = backward(
            upstream, query, key, value, output, log_sum, 0.0, corner, attn_mask=added, scale=scale
        )
        return gradients


def tile_by_tile(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    scale: float,
    kernel: TileKernel,
    height: int | None = None,
) -> Tensor:
    """Attention under a described mask without documents, the same prefix in all rows.

    Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim) -> as query. The height of
    the tiles is as in `holotype_reference.tiles.tiles`.
    """
    parts = tiles(mask, height)
    added = Additive(mask, parts, query.dtype)
    output: Tensor = _TileByTile.apply(query, key, value, parts, added, scale, kernel)  # type: ignore[no-untyped-call]
    return output


class _TileByTile(torch.autograd.Function):
    """What is saved is linear in the length; matrices of the mask are made anew on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        parts: tuple[Tile, ...],
        added: Additive,
        scale: float,
        kernel: TileKernel,
    ) -> Tensor:
        output, log_sum = (
            _like(query),
            query.new_empty(query.shape[:3], dtype=compute_dtype(query.dtype)),
        )
        done = 0
        for tile in parts:
            rows, columns = tile.queries, tile.keys
            found = kernel.forward(
                query[:, :, rows],
                key[:, :, columns],
                value[:, :, columns],
                added=added.of(tile),
                corner=tile.corner,
                scale=scale,
            )
            if rows.start < done:
                found = _joined(*found, output[:, :, rows], log_sum[:, :, rows])
            output[:, :, rows], log_sum[:, :, rows] = found
            done = rows.stop
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.parts, ctx.added, ctx.scale, ctx.kernel = parts, added, scale, kernel
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, log_sum = ctx.saved_tensors
        d_query, d_key, d_value = (_like(x).zero_() for x in (query, key, value))
        for tile in ctx.parts:
            rows, columns = tile.queries, tile.keys
            d_queries, d_keys, d_values = ctx.kernel.backward(
                upstream[:, :, rows],
                query[:, :, rows],
                key[:, :, columns],
                value[:, :, columns],
                output[:, :, rows],
                log_sum[:, :, rows],
                added=ctx.added.of(tile),
                corner=tile.corner,
                scale=ctx.scale,
            )
            d_query[:, :, rows] += d_queries
            d_key[:, :, columns] += d_keys
            d_value[:, :, columns] += d_values
        return d_query, d_key, d_value, None, None, None, None


def _joined(
    output: Tensor, log_sum: Tensor, other: Tensor, other_sum: Tensor
) -> tuple[Tensor, Tensor]:
    """The result over the keys of two tiles, from their results: each counts by its share of the sum of powers."""
    total = torch.logaddexp(log_sum, other_sum)
    share = (log_sum - total).exp().unsqueeze(-1)
    return torch.lerp(other.to(share.dtype), output.to(share.dtype), share).to(output.dtype), total


def _like(x: Tensor) -> Tensor:
    """(batch, heads, length, head_dim), with the heads of a token side by side, as the projections want them."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(
        1, 2
    )


def _by_kv_heads(x: Tensor, key: Tensor) -> Tensor:
    """(batch, heads, queries, width) -> (batch, kv_heads, group · queries, width)"""
    return rearrange(
        x,
        "batch (kv_heads group) queries width -> batch kv_heads (group queries) width",
        kv_heads=key.shape[1],
    )


def _by_heads(x: Tensor, group: int) -> Tensor:
    """(batch, kv_heads, group · queries, width) -> (batch, heads, queries, width)"""
    return rearrange(
        x,
        "batch kv_heads (group queries) width -> batch (kv_heads group) queries width",
        group=group,
    )
