"""Second derivatives of attention from its formula, in NumPy float64.

Along a direction (dq, dk, dv) the weights w = softmax(s) of the scores s = scale · q kᵀ change by

    dw = w · (ds - Σ over the keys of w · ds)        ds = scale · (dq kᵀ + q dkᵀ)

and from that follows, product by product, how the output and the gradients change (those of Dao et al. 2022,
appendix B.4, once more differentiated). Second derivatives are symmetric, so that these changes are also the gradients
of the gradients' product with the direction, which is what a kernel is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import rearrange, reduce, repeat

from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.oracle import Array, Visible


@dataclass(frozen=True, kw_only=True)
class Along:
    """A direction in which q, k and v change, each shaped as what it belongs to."""

    q: Array
    k: Array
    v: Array


@dataclass(frozen=True, kw_only=True)
class Curved:
    """The derivatives of the gradients by q, k and v along a direction, and that of the output.

    The last is named by what else it is: the gradient, by the upstream gradient, of the gradients' product with the
    direction.
    """

    q: Array
    k: Array
    v: Array
    upstream: Array


def curvature(
    q: Array,
    k: Array,
    v: Array,
    upstream: Array,
    along: Along,
    *,
    visible: Visible | None,
    scale: float,
) -> tuple[Curved, Curved]:
    """The change along a direction, and the same sums over absolute values, the unit of rounding.

    Args:
        q, upstream: (batch, heads, queries, head_dim).
        k, v: (batch, kv_heads, keys, head_dim).
        along: the direction.
        visible: broadcastable to (batch, heads, queries, keys); None shows everything.
        scale: of the products.
    """
    group = q.shape[1] // k.shape[1]
    k, v, dk, dv = (
        repeat(x, "b h j d -> b (h group) j d", group=group) for x in (k, v, along.k, along.v)
    )
    weights = oracle.softmax(oracle.scores(q, k, visible=visible, scale=scale))
    given = (q, k, v, upstream, along.q, dk, dv, weights)
    signed = _changed(*given, scale=scale, group=group, minus=-1.0)
    absolute = [np.asarray(np.abs(x)) for x in given]
    sizes = _changed(*absolute, scale=abs(scale), group=group, minus=1.0)
    return signed, sizes


def _changed(
    q: Array,
    k: Array,
    v: Array,
    upstream: Array,
    dq: Array,
    dk: Array,
    dv: Array,
    weights: Array,
    *,
    scale: float,
    group: int,
    minus: float,
) -> Curved:
    """`minus` is -1, or 1 for sums over absolute values."""

    def mean(x: Array) -> Array:
        return np.asarray(x.sum(axis=-1, keepdims=True))

    by_weight, d_by_weight = upstream @ _turned(v), upstream @ _turned(dv)
    d_scores = scale * (dq @ _turned(k) + q @ _turned(dk))
    d_weights = weights * (d_scores + minus * mean(weights * d_scores))
    centred = by_weight + minus * mean(weights * by_weight)
    d_mean = mean(d_weights * by_weight + weights * d_by_weight)
    by_score = scale * weights * centred
    d_by_score = scale * (d_weights * centred + weights * (d_by_weight + minus * d_mean))
    return Curved(
        q=d_by_score @ k + by_score @ dk,
        k=_shared(_turned(d_by_score) @ q + _turned(by_score) @ dq, group),
        v=_shared(_turned(d_weights) @ upstream, group),
        upstream=d_weights @ v + weights @ dv,
    )


def _shared(x: Array, group: int) -> Array:
    return np.asarray(reduce(x, "b (h group) j d -> b h j d", "sum", group=group))


def _turned(x: Array) -> Array:
    return rearrange(x, "b h i j -> b h j i")
