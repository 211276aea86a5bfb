"""The gradients of attention, step by step; the formula itself stands in `holotype_reference.attention`.

weights  = softmax(scale · query keyᵀ)                output = weights value
d value  = weightsᵀ d output                          d weights = d output valueᵀ
d scores = weights · (d weights - Σ over the keys of weights · d weights)
d query  = scale · d scores key                       d key = scale · d scoresᵀ query
"""

from __future__ import annotations

from einops import einsum, reduce
from torch import Tensor

from holotype_reference.attention import share, softmax
from holotype_reference.basics import compute_dtype
from holotype_reference.masks import Mask

Gradients = tuple[Tensor, Tensor, Tensor]


def gradients(
    upstream: Tensor, query: Tensor, key: Tensor, value: Tensor, *, mask: Mask, scale: float
) -> Gradients:
    """By query, key and value, in operations that can be differentiated again; shapes as those, upstream as query."""
    heads, kv_heads = query.shape[1], key.shape[1]
    given = (upstream, query, share(key, heads), share(value, heads))
    g, q, k, v = (x.to(compute_dtype(x.dtype)) for x in given)
    weights = softmax(q, k, mask, None, scale)
    d_value = einsum(weights, g, "batch heads i j, batch heads i width -> batch heads j width")
    d_weights = einsum(g, v, "batch heads i width, batch heads j width -> batch heads i j")
    d_scores = weights * (d_weights - (weights * d_weights).sum(dim=-1, keepdim=True))
    d_query = einsum(d_scores, k, "batch heads i j, batch heads j width -> batch heads i width")
    d_key = einsum(d_scores, q, "batch heads i j, batch heads i width -> batch heads j width")
    return (
        (scale * d_query).to(query.dtype),
        _gather(scale * d_key, kv_heads).to(key.dtype),
        _gather(d_value, kv_heads).to(value.dtype),
    )


def _gather(x: Tensor, kv_heads: int) -> Tensor:
    """The gradients of all heads that share a key-value head (GQA), as a sum: the other way round."""
    if x.shape[1] == kv_heads:
        return x
    return reduce(
        x,
        "batch (kv_heads group) keys width -> batch kv_heads keys width",
        "sum",
        kv_heads=kv_heads,
    )
