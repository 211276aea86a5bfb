"""Attention straight from its formula, in NumPy float64, with its gradients and every kind of mask.

    scores  = scale · q kᵀ + bias                      (batch, heads, queries, keys)
    weights = softmax(scores over the visible keys)
    output  = weights v                                (batch, heads, queries, head_dim)

(Vaswani et al. 2017, section 3.2.1; the gradients are those of Dao et al. 2022, appendix B.4.) It shares no code with
any kernel. Query head h reads key-value head h // (heads / kv_heads) (Ainslie et al. 2023, section 2.2). A query that
sees no key has the empty sum as its output, zero.

**The diagonal.** With as many queries as keys, query i stands at key i. Otherwise the *last* query stands at the last
key, as in decoding with a cache: the diagonal of query i is key ``i + keys - queries`` ("bottom right").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange, reduce, repeat
from numpy.typing import NDArray

Array = NDArray[np.float64]
Visible = NDArray[np.bool_]

# Which keys a query sees: boolean, true where it does ----------------------------------------------------------------


def distance(queries: int, keys: int) -> NDArray[np.int64]:
    """(queries, keys): how far key j stands before the diagonal of query i; negative behind it."""
    diagonal = np.arange(queries)[:, None] + keys - queries
    return diagonal - np.arange(keys)[None, :]


def full(queries: int, keys: int) -> Visible:
    """(queries, keys): everything."""
    return np.ones((queries, keys), dtype=bool)


def causal(queries: int, keys: int) -> Visible:
    """(queries, keys): the keys up to the diagonal."""
    return distance(queries, keys) >= 0


def window(queries: int, keys: int, size: int) -> Visible:
    """(queries, keys): the last `size` keys up to the diagonal, the diagonal among them."""
    away = distance(queries, keys)
    return (away >= 0) & (away < size)


def band(queries: int, keys: int, size: int) -> Visible:
    """(queries, keys): the keys less than `size` away from the diagonal, on both sides."""
    return np.abs(distance(queries, keys)) < size


def prefix(queries: int, keys: int, size: int) -> Visible:
    """(queries, keys): the first `size` keys, and beyond them those up to the diagonal."""
    return causal(queries, keys) | (np.arange(keys)[None, :] < size)


def documents(queries: int, keys: int, lengths: Sequence[int]) -> Visible:
    """(queries, keys): causal inside documents that lie one after the other; the last one takes what is left."""
    number = np.repeat(np.arange(len(lengths) + 1), [*lengths, keys])[:keys]
    places = np.clip(np.arange(queries) + keys - queries, 0, max(keys - 1, 0))
    same = number[places][:, None] == number[None, :] if keys else full(queries, keys)
    return same & causal(queries, keys)


def padding(queries: int, keys: int, real: Sequence[int], side: str) -> Visible:
    """(batch, queries, keys): of row b the first (or, for padding on the left, the last) ``real[b]`` keys."""
    place = np.arange(keys)[None, :] if side == "right" else np.arange(keys)[None, ::-1]
    return repeat(
        place < np.asarray(real)[:, None], "batch keys -> batch queries keys", queries=queries
    )


# The formula ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Of ``sum(output * upstream)``, each shaped as what it belongs to."""

    q: Array
    k: Array
    v: Array


@dataclass(frozen=True, kw_only=True)
class Attended:
    """The values of the formula.

    Attributes:
        output: (batch, heads, queries, head_dim).
        weights: (batch, heads, queries, keys).
        gradients: None where no upstream gradient was given.
        log_sums: (batch, heads, queries), of each query the logarithm of its sum of powers; zero where no key is seen.
        output_size, gradient_sizes: the same sums over absolute values, which say how large the terms were that
            cancelled: the unit in which rounding is measured.
    """

    output: Array
    weights: Array
    log_sums: Array
    output_size: Array
    gradients: Gradients | None
    gradient_sizes: Gradients | None


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    visible: Visible | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    upstream: Array | None = None,
) -> Attended:
    """Output, weights and gradients.

    Args:
        q: (batch, heads, queries, head_dim).
        k, v: (batch, kv_heads, keys, head_dim), where kv_heads divides heads.
        visible: broadcastable to (batch, heads, queries, keys); None shows everything.
        bias: added to the scores, of the same shape; -inf hides.
        scale: of the products; None for 1/√head_dim.
        upstream: the gradient that arrives at the output, shaped as the output.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1] if k.shape[1] else 1
    keys, values = _repeated(k, group), _repeated(v, group)
    found = scores(q, keys, visible=visible, bias=bias, scale=factor)
    weights = softmax(found)
    inner = (q, keys, values, weights)
    return Attended(
        output=weights @ values,
        output_size=weights @ np.abs(values),
        weights=weights,
        log_sums=_log_sums(found),
        gradients=None if upstream is None else _gradients(*inner, upstream, factor, group),
        gradient_sizes=None
        if upstream is None
        else _gradient_sizes(*inner, upstream, factor, group),
    )


def scores(
    q: Array, keys: Array, *, visible: Visible | None, bias: Array | None = None, scale: float
) -> Array:
    """(batch, heads, queries, keys): of keys that are repeated for all heads; -inf where a key is not seen."""
    found = scale * (q @ _turned(keys))
    if bias is not None:
        found = found + bias
    return found if visible is None else np.where(visible, found, -np.inf)


def softmax(scores: Array) -> Array:
    """Over the last axis; a row of -inf only becomes zeros."""
    if scores.shape[-1] == 0:
        return scores
    top = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    total = powers.sum(axis=-1, keepdims=True)
    return np.asarray(powers / np.where(total == 0.0, 1.0, total))


def _log_sums(scores: Array) -> Array:
    if scores.shape[-1] == 0:
        return np.zeros(scores.shape[:-1])
    top = scores.max(axis=-1)
    top = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(scores - top[..., None]).sum(axis=-1)
    return np.asarray(np.where(total > 0.0, top + np.log(np.where(total > 0.0, total, 1.0)), 0.0))


def _gradients(
    q: Array, keys: Array, values: Array, weights: Array, upstream: Array, factor: float, group: int
) -> Gradients:
    by_weight = upstream @ _turned(values)
    mean = (weights * by_weight).sum(axis=-1, keepdims=True)
    by_score = factor * weights * (by_weight - mean)
    return _collected(q, keys, weights, upstream, by_score, group)


def _gradient_sizes(
    q: Array, keys: Array, values: Array, weights: Array, upstream: Array, factor: float, group: int
) -> Gradients:
    by_weight = np.abs(upstream) @ _turned(np.abs(values))
    mean = (weights * by_weight).sum(axis=-1, keepdims=True)
    by_score = abs(factor) * weights * (by_weight + mean)
    return _collected(np.abs(q), np.abs(keys), weights, np.abs(upstream), by_score, group)


def _collected(
    q: Array, keys: Array, weights: Array, upstream: Array, by_score: Array, group: int
) -> Gradients:
    """From the gradient by the scores to those by q, k and v; heads that share keys and values add theirs."""
    return Gradients(
        q=by_score @ keys,
        k=_shared(_turned(by_score) @ q, group),
        v=_shared(_turned(weights) @ upstream, group),
    )


def _shared(x: Array, group: int) -> Array:
    return np.asarray(reduce(x, "b (h group) j d -> b h j d", "sum", group=group))


def _turned(x: Array) -> Array:
    return rearrange(x, "b h i j -> b h j i")


def _repeated(x: Array, group: int) -> Array:
    return repeat(x, "b h j d -> b (h group) j d", group=group)
