"""Floating-point operations of single torch operators: products only, a multiplication and an addition are two.

Everything else (softmax, norms, activations, copies) counts nothing, as in `holotype_spec.costs`. A fused attention
operator is taken at its word: the whole rectangle of queries and keys, with a mask or without, because a dense mask
spares no work; under `is_causal` the blocks of 64 by 64 that the triangle touches. That is nominal, as no dispatcher
sees a kernel's own blocks; but it is the notion by which `holotype_spec.areas.block_pairs` says what a mask may cost,
so that one block too many shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import flop_registry

from holotype_spec.areas import BLOCK

# Products of a fused forward pass (scores, weights times values), and of its backward pass (the scores again, and one
# for each of the gradients by weights, values, queries and keys).
FORWARD, BACKWARD = 2, 5

Formula = Callable[[Any, Sequence[Any], dict[str, Any]], int]


def operator_flops(
    operator: Any, arguments: Sequence[Any], options: dict[str, Any], out: Any
) -> int:
    """The cost of one call of a dispatched operator.

    Args:
        operator: an overload, such as ``aten.mm.default``.
        arguments, options: of the call.
        out: what it returned.
    """
    packet = getattr(operator, "overloadpacket", operator)
    formula = FORMULAS.get(_name(packet))
    if formula is not None:
        return formula(operator, arguments, options)
    if packet in flop_registry:  # convolutions, scaled products
        return int(flop_registry[packet](*arguments, **options, out_val=out))
    return 0


def _name(packet: Any) -> str:
    """Of all variants of an operator: ``baddbmm_`` writes into its first argument and costs what ``baddbmm`` does."""
    name: str = getattr(packet, "_qualified_op_name", "")
    return name.removeprefix("aten::").removesuffix("_")


def product(rows: int, inner: int, columns: int) -> int:
    """(rows, inner) @ (inner, columns): a dot product for each entry."""
    return 2 * rows * inner * columns


def triangle(queries: int, keys: int) -> int:
    """Pairs in the blocks that hold some j <= i, the first query at the first key; of a block what lies inside."""
    found = 0
    for first in range(0, queries, BLOCK):
        last = min(first + BLOCK, queries)
        found += (last - first) * min(first + BLOCK, keys)
    return found


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
        given = _given(operator, arguments, options)
        q, k, v = given["query"], given["key"], given["value"]
        causal = bool(given.get("is_causal", False))
        return attention_flops(q, k, v, causal=causal, products=products)

    return flops


def _given(operator: Any, arguments: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The arguments by their names."""
    names = [argument.name for argument in operator._schema.arguments]
    return dict(zip(names, arguments, strict=False)) | options


def _grouped(_: Any, arguments: Sequence[Any], options: dict[str, Any]) -> int:
    """Rows against the matrix of their group; only where both sides have an axis of groups is each row in all."""
    left, right = arguments[0].shape, arguments[1].shape
    groups = left[0] if len(left) == len(right) == 3 else 1
    return groups * product(left[-2], left[-1], right[-1])


def _vectors(at: int) -> Formula:
    """The product of each entry of a vector with each of another, the first being argument `at`."""

    def flops(_: Any, arguments: Sequence[Any], options: dict[str, Any]) -> int:
        return product(arguments[at].numel(), 1, arguments[at + 1].numel())

    return flops


def _multi_head(operator: Any, arguments: Sequence[Any], options: dict[str, Any]) -> int:
    """The whole of `torch.nn.MultiheadAttention` as one operator: four projections around the attention."""
    given = _given(operator, arguments, options)
    width: int = given["embed_dim"]
    query, keys = given["query"], given["key"].shape[-2]
    tokens = query.shape[:-1].numel()
    sources = given["key"].shape[:-1].numel()
    return (
        2 * product(tokens, width, width)
        + 2 * product(sources, width, width)
        + 2 * product(tokens, width, keys)
    )


def _encoder_layer(operator: Any, arguments: Sequence[Any], options: dict[str, Any]) -> int:
    """The whole of `torch.nn.TransformerEncoderLayer` as one operator."""
    given = _given(operator, arguments, options)
    x, width = given["src"], given["embed_dim"]
    tokens = x.shape[:-1].numel()
    attention = 4 * product(tokens, width, width) + 2 * product(tokens, width, x.shape[-2])
    return attention + 2 * product(tokens, width, given["ffn_weight_1"].shape[0])


def _recurrent(passes: int) -> Formula:
    """One layer of an LSTM as one operator: both matrices at each token, `passes` times."""

    def flops(operator: Any, arguments: Sequence[Any], options: dict[str, Any]) -> int:
        x, *matrices = arguments[:3]
        tokens = x.shape[:-1].numel()
        return passes * sum(product(tokens, *matrix.shape) for matrix in matrices)

    return flops


# By the name of an operator. What torch has for inference alone, on packed or quantised weights, is not among them.
FORMULAS: dict[str, Formula] = {
    "mm": _matrix(0),
    "bmm": _matrix(0),
    "mv": _matrix(0),
    "dot": _matrix(0),
    "vdot": _matrix(0),
    "_int_mm": _matrix(0),
    "_grouped_mm": _grouped,
    "addmm": _matrix(1),
    "_addmm_activation": _matrix(1),
    "addmv": _matrix(1),
    "addbmm": _matrix(1),
    "baddbmm": _matrix(1),
    "addr": _vectors(1),
    "_native_multi_head_attention": _multi_head,
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "mkldnn_rnn_layer": _recurrent(1),
    "mkldnn_rnn_layer_backward": _recurrent(2),
    "_scaled_dot_product_flash_attention_for_cpu": _fused(FORWARD),
    "_scaled_dot_product_flash_attention": _fused(FORWARD),
    "_scaled_dot_product_efficient_attention": _fused(FORWARD),
    "_scaled_dot_product_cudnn_attention": _fused(FORWARD),
    "_scaled_dot_product_flash_attention_for_cpu_backward": _fused(BACKWARD),
    "_scaled_dot_product_flash_attention_backward": _fused(BACKWARD),
    "_scaled_dot_product_efficient_attention_backward": _fused(BACKWARD),
    "_scaled_dot_product_cudnn_attention_backward": _fused(BACKWARD),
}
