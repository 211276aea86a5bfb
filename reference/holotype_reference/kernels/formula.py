"""softmax(scale · q kᵀ + bias, over the visible keys) v, and its gradients, step by step.

weights  = softmax(scale · query keyᵀ)                output = weights value
d value  = weightsᵀ d output                          d weights = d output valueᵀ
d scores = weights · (d weights - Σ over the keys of weights · d weights)
d query  = scale · d scores key                       d key = scale · d scoresᵀ query
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import einsum, reduce, repeat
from torch import Tensor, finfo

from holotype_reference.masks import Mask
from holotype_reference.normalization import compute_dtype

Gradients = tuple[Tensor, Tensor, Tensor]


def eager(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    bias: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """As `holotype_reference.kernels.paths.WeightedSum`. The softmax is taken in at least float32."""
    key, value = share(key, query.shape[1]), share(value, query.shape[1])
    weights = F.dropout(_weights(query, key, mask, bias, scale).to(query.dtype), dropout)
    return einsum(weights, value, "batch heads i j, batch heads j width -> batch heads i width")


def gradients(
    upstream: Tensor, query: Tensor, key: Tensor, value: Tensor, *, mask: Mask, scale: float
) -> Gradients:
    """By query, key and value, in operations that can be differentiated again; shapes as those, upstream as query."""
    heads, kv_heads = query.shape[1], key.shape[1]
    given = (upstream, query, share(key, heads), share(value, heads))
    g, q, k, v = (x.to(compute_dtype(x.dtype)) for x in given)
    weights = _weights(q, k, mask, None, scale)
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


def _weights(query: Tensor, key: Tensor, mask: Mask, bias: Tensor | None, scale: float) -> Tensor:
    """(batch, heads, queries, keys), in at least float32; zero for a query that sees nothing."""
    # Scaled before the product, which would leave the range of float16 otherwise.
    scores = einsum(
        query * scale, key, "batch heads i width, batch heads j width -> batch heads i j"
    )
    if bias is not None:
        scores = scores + bias
    scores = scores.to(compute_dtype(scores.dtype))
    # The lowest finite number, not -inf, which would make a row without any key NaN; exp turns it into exact zeros.
    scores = scores.masked_fill(~mask.visible, finfo(scores.dtype).min)
    return mask.silence(scores.softmax(dim=-1))


def share(x: Tensor, heads: int) -> Tensor:
    """(batch, kv_heads, keys, width) -> (batch, heads, keys, width)"""
    if x.shape[1] == heads:
        return x
    group = heads // x.shape[1]
    return repeat(x, "batch kv_heads keys width -> batch (kv_heads group) keys width", group=group)


def _gather(x: Tensor, kv_heads: int) -> Tensor:
    """What each head sends back to the key-value head that it shares: the other way round, as a sum."""
    if x.shape[1] == kv_heads:
        return x
    return reduce(
        x,
        "batch (kv_heads group) keys width -> batch kv_heads keys width",
        "sum",
        kv_heads=kv_heads,
    )
