"""Attention tile by tile through the kernel that `scaled_dot_product_attention` calls on the CPU.

Time follows the area of the mask and memory its length, as each tile is a call of its own. Outputs of tiles that have
queries in common are joined by their log-sums, and gradients are added up: FlashAttention-2 (Dao 2023, section 3.1)
does inside a kernel what stands here around it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holotype_reference.basics import compute_dtype
from holotype_reference.kernels.gradients import gradients
from holotype_reference.kernels.mask_shapes import by_document
from holotype_reference.kernels.tiles import Additive, Tile, halved, striped, tiles, whole
from holotype_reference.kernels.vmap import Mapped
from holotype_reference.masks import Mask


def by_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    scale: float,
    height: int | None = None,
) -> Tensor:
    """Attention under a described mask, the same in all rows but for the padding, on the CPU.

    Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim) -> as query. The height of
    the tiles is as in `tiles` of `tiles.py`. A query that sees nothing gets zero, and zero gradients.
    """
    # Of narrower numbers the kernel is so fast that more calls of it do not pay.
    fine = query.dtype == compute_dtype(query.dtype)
    forwards = halved if fine and mask.padding is None else whole
    pieces: list[Piece] = []
    back: list[Piece] = []
    first, start = 0, 0  # query and key of a document
    for part in (mask,) if mask.documents is None else by_document(mask):
        if part.queries:
            parts = tiles(part, height, forwards)
            added = Additive(part, parts, query.dtype)
            pieces += (Piece(tile, first, start, added) for tile in parts)
            parts = tiles(part, height, striped if fine else whole)
            back += (Piece(tile, first, start, added) for tile in parts)
        first, start = first + part.queries, start + part.keys
    output: Tensor = _ByKernel.apply(query, key, value, pieces, back, mask, scale)[0]  # type: ignore[no-untyped-call]
    return output


class Piece:
    """A tile of a document, and where it lies among the queries and keys of all documents."""

    def __init__(self, tile: Tile, query: int, key: int, added: Additive) -> None:
        self.tile = tile
        self.added = added
        self.rows = slice(query + tile.queries.start, query + tile.queries.stop)
        self.columns = slice(key + tile.keys.start, key + tile.keys.stop)

    def queries(self, x: Tensor) -> Tensor:
        """Its part of (batch, heads, queries, …)."""
        return x.narrow(2, self.rows.start, self.rows.stop - self.rows.start)

    def keys(self, x: Tensor) -> Tensor:
        """Its part of (batch, kv_heads, keys, head_dim)."""
        return x.narrow(2, self.columns.start, self.columns.stop - self.columns.start)

    def rules(self, scale: float) -> dict[str, Any]:
        """The kernel's arguments beside the tensors."""
        return {
            "is_causal": self.tile.corner,
            "attn_mask": self.added.of(self.tile),
            "scale": scale,
        }


class _ByKernel(Mapped):
    """The kernel is called by its own name because it also returns log Σ exp(scores), which the public function keeps
    to itself: from it the kernel's backward pass has the weights of a query, in whatever tiles its keys lie."""

    @staticmethod
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pieces: list[Piece],
        back: list[Piece],
        mask: Mask,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        joined = Joined(query)
        for piece in pieces:
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                piece.queries(query), piece.keys(key), piece.keys(value), **piece.rules(scale)
            )
            joined.add(found, piece.rows)
            del found  # not alive beside the next one
        return joined.result()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        query, key, value, _, ctx.back, ctx.mask, ctx.scale = inputs
        ctx.save_for_backward(query, key, value, *output)
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: None) -> tuple[Tensor | None, ...]:
        query, key, value, output, log_sum = ctx.saved_tensors
        if torch.is_grad_enabled():  # they are to be differentiated again
            found = gradients(upstream, query, key, value, mask=ctx.mask, scale=ctx.scale)
            return *found, None, None, None, None
        # Otherwise the kernel would copy it anew for each piece.
        upstream = upstream.transpose(1, 2).contiguous().transpose(1, 2)
        sums = [Sum(x) for x in (query, key, value)]
        for piece in ctx.back:
            found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                piece.queries(upstream),
                piece.queries(query),
                piece.keys(key),
                piece.keys(value),
                piece.queries(output),
                piece.queries(log_sum),
                dropout_p=0.0,
                **piece.rules(ctx.scale),
            )
            places = (piece.rows, piece.columns, piece.columns)
            for total, part, where in zip(sums, found, places, strict=True):
                total.add(part, where)
            del found, part  # not alive beside the next ones
        d_query, d_key, d_value = (total.result() for total in sums)
        return d_query, d_key, d_value, None, None, None, None


class Joined:
    """The outputs of tiles of queries (batch, heads, some of the queries, head_dim), and their log-sums.

    Where queries come in several tiles, the result is that over the keys of all. What comes first is only kept.
    """

    def __init__(self, query: Tensor) -> None:
        self.output = query
        self.log_sum = query.new_empty(0, dtype=compute_dtype(query.dtype))
        self.end = 0  # so far there are results

    def add(self, found: tuple[Tensor, Tensor], where: slice) -> None:
        output, log_sum = found
        if self.end == 0:
            if output.shape[2] == self.output.shape[2]:
                self.output, self.log_sum, self.end = output, log_sum, where.stop
                return
            self._open()
        if where.start < self.end:
            self._join(output, log_sum, where)
        else:
            self.output[:, :, where], self.log_sum[:, :, where] = output, log_sum
            self.end = where.stop

    def result(self) -> tuple[Tensor, Tensor]:
        if self.end == 0:
            self._open()
        return self.output, self.log_sum

    def _open(self) -> None:
        self.log_sum = self.log_sum.new_empty(self.output.shape[:3])
        self.output = _like(self.output)

    def _join(self, other: Tensor, other_sum: Tensor, where: slice) -> None:
        """Each counts by its share of the sum of powers."""
        output, log_sum = self.output[:, :, where], self.log_sum[:, :, where]
        share = torch.sigmoid(other_sum - log_sum).unsqueeze(-1)
        wide = output.to(share.dtype)  # the output itself, unless its dtype is a low one
        output.copy_(wide.lerp_(other.to(share.dtype), share))
        torch.logaddexp(log_sum, other_sum, out=log_sum)


class Sum:
    """The sum of parts (batch, heads, some of the length, head_dim) that lie side by side or one over the other.

    What lies first at its place is written there, and never added to zeros.
    """

    def __init__(self, like: Tensor) -> None:
        self.total = like
        self.end = 0  # so far there is a sum

    def add(self, part: Tensor, where: slice) -> None:
        length = self.total.shape[2]
        if self.end == 0:
            if part.shape[2] == length:
                self.total, self.end = part, length
                return
            self.total = _like(self.total)
        self._fill(where.start)
        seen = min(max(self.end - where.start, 0), part.shape[2])
        self.total[:, :, where.start : where.start + seen].add_(part[:, :, :seen])
        self.total[:, :, where.start + seen : where.stop] = part[:, :, seen:]
        self.end = max(self.end, where.stop)

    def result(self) -> Tensor:
        if self.end == 0:
            self.total = _like(self.total)
        self._fill(self.total.shape[2])
        return self.total

    def _fill(self, stop: int) -> None:
        if self.end < stop:
            self.total[:, :, self.end : stop] = 0.0
            self.end = stop


def _like(x: Tensor) -> Tensor:
    """(batch, heads, length, head_dim), with the heads of a token side by side, as the projections want them."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(
        1, 2
    )
