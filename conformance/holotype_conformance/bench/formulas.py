"""Floating-point operations of single torch operators: products only, a multiplication and an addition are two.

Everything else (softmax, norms, activations, copies) counts nothing, as in `holotype_spec.costs`. A fused attention
operator is taken at its word: the whole rectangle of queries and keys, with a mask or without, because a dense mask
spares no work; under `is_causal` exactly the triangle of pairs i >= j. That is nominal: inside, a kernel rounds up to
its own blocks at the diagonal, which no dispatcher sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

# Products of a fused forward pass (scores, weights times values), and of its backward pass (the scores again, and one
# for each of the gradients by weights, values, queries and keys).
FORWARD, BACKWARD = 2, 5

Formula = Callable[[Any, Sequence[Any], dict[str, Any]], int]


def operator_flops(
    operator: Any, arguments: Sequence[Any], options: dict[str, Any], out: Any
) -> int:
    """What one call of a dispatched operator costs.

    Args:
        operator: an overload, such as ``aten.mm.default``.
        arguments, options: of the call.
        out: what it returned.
    """
    packet = getattr(operator, "overloadpacket", operator)
    if packet in FORMULAS:
        return FORMULAS[packet](operator, arguments, options)
    if packet in flop_registry:  # convolutions, scaled products
        return int(flop_registry[packet](*arguments, **options, out_val=out))
    return 0


def product(rows: int, inner: int, columns: int) -> int:
    """(rows, inner) @ (inner, columns): a dot product for each entry."""
    return 2 * rows * inner * columns


def triangle(queries: int, keys: int) -> int:
    """Pairs (i, j) with j <= i, the first query at the first key."""
    square = min(queries, keys)
    return square * (square + 1) // 2 + (queries - square) * keys


def attention_flops(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, products: int) -> int:
    """A fused attention operator with `products` products over its pairs. q, k, v: (…, heads, length, width)."""
    queries, keys = q.shape[-2], k.shape[-2]
    pairs = triangle(queries, keys) if causal else queries * keys
    lead = prod(q.shape[:-2])
    # The scores and their two gradients are as wide as keys, the other products as values.
    by_key = products - products // 2
    return 2 * lead * pairs * (by_key * q.shape[-1] + (products - by_key) * v.shape[-1])


def _matrix(at: int) -> Formula:
    """(…, n, k) @ (…, k, m), the first factor being argument `at`."""

    def flops(_: Any, arguments: Sequence[Any], options: dict[str, Any]) -> int:
        left, right = arguments[at].shape, arguments[at + 1].shape
        return product(prod(left[:-1]), left[-1], right[-1] if len(right) > 1 else 1)

    return flops


def _fused(products: int) -> Formula:
    """Fused attention, its arguments found by their names."""

    def flops(operator: Any, arguments: Sequence[Any], options: dict[str, Any]) -> int:
        names = [argument.name for argument in operator._schema.arguments]
        given = dict(zip(names, arguments, strict=False)) | options
        q, k, v = given["query"], given["key"], given["value"]
        causal = bool(given.get("is_causal", False))
        return attention_flops(q, k, v, causal=causal, products=products)

    return flops


FORMULAS: dict[Any, Formula] = {
    aten.mm: _matrix(0),
    aten.bmm: _matrix(0),
    aten.mv: _matrix(0),
    aten.dot: _matrix(0),
    aten.addmm: _matrix(1),
    aten.addmv: _matrix(1),
    aten.addbmm: _matrix(1),
    aten.baddbmm: _matrix(1),
    aten._scaled_dot_product_flash_attention_for_cpu: _fused(FORWARD),
    aten._scaled_dot_product_flash_attention: _fused(FORWARD),
    aten._scaled_dot_product_efficient_attention: _fused(FORWARD),
    aten._scaled_dot_product_cudnn_attention: _fused(FORWARD),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _fused(BACKWARD),
    aten._scaled_dot_product_flash_attention_backward: _fused(BACKWARD),
    aten._scaled_dot_product_efficient_attention_backward: _fused(BACKWARD),
    aten._scaled_dot_product_cudnn_attention_backward: _fused(BACKWARD),
}
