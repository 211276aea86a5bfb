"""Attention: who sees whom, and the weighted sum."""

from __future__ import annotations

import numpy as np

from holotype_reference.oracle import normalization
from holotype_reference.oracle.basics import Array, Mask, Scope, Stream, linear
from holotype_reference.oracle.positions import (
    alibi_slopes,
    log_length,
    mscale,
    relative_buckets,
    rotate,
)
from holotype_reference.oracle.relative import disentangled, score_scale, transformer_xl
from holotype_spec.parameters import Stack
from holotype_spec.schema import (
    Alibi,
    Causal,
    Disentangled,
    LatentAttention,
    LearnedPositions,
    Permutation,
    PrefixCausal,
    RelativeBuckets,
    Rotary,
    Sinusoidal,
    SlidingWindow,
    Spec,
    TransformerXLPositions,
    TwoDimensionalPositions,
    TwoDimensionalRotary,
    YarnScaling,
)


def self_attention(
    spec: Spec,
    p: Scope,
    stack: Stack,
    block: Scope,
    x: Array,
    stream: Stream,
    memory: Array | None = None,
    own: bool = True,
) -> Array:
    """Queries from x, keys and values from x too, or from a `memory` of the same positions.

    Under an order of prediction keys up to the query's own place count, or those before it (Yang et al. 2019, 2.3).
    """
    allowed = _allowed(spec, stack, stream) & stream.real[:, None, :]
    if stream.order is not None:
        later = stream.order[:, :, None] - stream.order[:, None, :]
        allowed = allowed & (later >= 0 if own else later > 0)
    if isinstance(spec.architecture.attention, LatentAttention):
        return _latent_attention(spec, spec.architecture.attention, block, x, allowed, stream)
    memory = x if memory is None else memory
    bias = _bias(spec, p, stack, block, x, memory, stream)
    return _attention(spec, block, x, memory, allowed, bias, stream)


def _bias(
    spec: Spec, p: Scope, stack: Stack, block: Scope, x: Array, memory: Array, stream: Stream
) -> Array | None:
    """(batch, length, source, heads), what positions add to the scores."""
    ahead = stream.positions[..., None, :] - stream.positions[..., :, None]
    match spec.architecture.positions:
        case RelativeBuckets() as buckets:
            indices = relative_buckets(buckets, ahead, bidirectional=stack == "encoder")
            biases: Array = p[f"{stack}.relative_bias.weight"][indices]
            return biases
        case Alibi():
            return np.asarray(ahead[..., None] * np.array(alibi_slopes(spec.heads)))
        case Disentangled():
            return disentangled(spec, p[f"{stack}.relative.weight"], block, x, memory)
        case TransformerXLPositions():
            return transformer_xl(spec, block, x, memory, stream.types)
        case LearnedPositions() | Sinusoidal() | TwoDimensionalPositions():
            return None  # they are added to the embeddings
        case Rotary() | TwoDimensionalRotary():
            return None  # they turn queries and keys
        case unknown:
            raise NotImplementedError(f"the oracle has no formula for {unknown}")


def cross_attention(spec: Spec, block: Scope, x: Array, source: Stream) -> Array:
    """Queries from the decoder, the rest from the encoder (Vaswani et al. 2017, section 3.2.3)."""
    allowed = np.broadcast_to(source.real[:, None, :], (len(x), x.shape[1], source.x.shape[1]))
    return _attention(spec, block, x, source.x, allowed, None, None)


def _attention(
    spec: Spec,
    p: Scope,
    x: Array,
    memory: Array,
    allowed: Mask,
    bias: Array | None,
    places: Stream | None,
) -> Array:
    """softmax(Q Kᵀ / √d_k) V a head, all heads through W^O (Vaswani et al. 2017, section 3.2).

    Where key-value heads are fewer, neighbouring query heads share one (Ainslie et al.
    2023, section 2.2).

    Args:
        memory: (batch, source, hidden_size), what keys and values are made of.
        allowed: (batch, length, source), true where a query may see a key.
        bias: (batch, length, source, heads), added to the scores.
        places: where queries and keys stand, in self-attention.
    """
    queries, keys, values = (
        linear(p / part, y) for part, y in (("query", x), ("key", memory), ("value", memory))
    )
    scale, rotary = _scale(spec, places), spec.architecture.positions
    heads = []
    for head in range(spec.heads):
        kv_head = head // (spec.heads // spec.kv_heads)
        q, k, v = (
            _head(spec, queries, head),
            _head(spec, keys, kv_head),
            _head(spec, values, kv_head),
        )
        if places is not None and isinstance(rotary, Rotary | TwoDimensionalRotary):
            q, k = rotate(rotary, q, places), rotate(rotary, k, places)
        scores = q @ k.transpose(0, 2, 1) * scale
        if bias is not None:
            scores = scores + bias[..., head]
        heads.append(_softmax(scores, allowed) @ v)
    return linear(p / "output", np.concatenate(heads, axis=-1))


def _latent_attention(
    spec: Spec, kind: LatentAttention, p: Scope, x: Array, allowed: Mask, stream: Stream
) -> Array:
    """DeepSeek-AI 2024, V2, appendix C, head by head: q = [q^C, q^R], k = [k^C, k^R], scores q k / √(d_h + d_h^R).

    x is (batch, length, hidden_size). Compressed vectors are normalised (section 3.1.2), and their release multiplies
    scores by the square of YaRN's m.
    """
    rotary, d = spec.architecture.positions, spec.head_dim
    assert isinstance(rotary, Rotary)
    nope, width = d - kind.rope_head_dim, kind.value_head_dim
    read = x
    if kind.query_rank != "none":
        read = normalization.norm(spec, p / "query_norm", linear(p / "query_latent", x))
    latent = normalization.norm(spec, p / "latent_norm", linear(p / "latent", x))
    queries, keys, values = (
        linear(p / part, y) for part, y in (("query", read), ("key", latent), ("value", latent))
    )
    turned_key = rotate(rotary, linear(p / "rotary_key", x), stream)
    scale = _scale(spec, stream)
    heads = []
    for h in range(spec.heads):
        q, k = queries[..., h * d : (h + 1) * d], keys[..., h * nope : (h + 1) * nope]
        scores = q[..., :nope] @ k.transpose(0, 2, 1)
        scores = scores + rotate(rotary, q[..., nope:], stream) @ turned_key.transpose(0, 2, 1)
        heads.append(_softmax(scores * scale, allowed) @ values[..., h * width : (h + 1) * width])
    return linear(p / "output", np.concatenate(heads, axis=-1))


def _scale(spec: Spec, places: Stream | None) -> Array | float:
    """The factor of all scores, where it differs (batch, length, 1) by the query."""
    attention = spec.architecture.attention
    scale = score_scale(spec)
    rotary = spec.architecture.positions
    if isinstance(rotary, Rotary) and isinstance(rotary.scaling, YarnScaling):
        scale *= mscale(rotary.scaling, rotary.scaling.mscale_all_dim) ** 2
    if places is None or attention.scale != "inverse-sqrt-head-dim-log-length":
        return scale
    return scale * log_length(places.positions, spec.max_positions)[..., None]


def _head(spec: Spec, x: Array, head: int) -> Array:
    return x[..., head * spec.head_dim : (head + 1) * spec.head_dim]


def _softmax(scores: Array, allowed: Mask) -> Array:
    """Over the allowed keys only; a query that may see none gets nothing."""
    peak = np.max(scores, axis=-1, keepdims=True, where=allowed, initial=-np.inf)
    odds = np.exp(np.where(allowed, scores - peak, -np.inf))
    total: Array = odds.sum(axis=-1, keepdims=True)
    return odds / np.where(total > 0, total, 1.0)


def _allowed(spec: Spec, stack: Stack, stream: Stream) -> Mask:
    """(batch or 1, length, length): which query i (row) may see which key j (column), padding aside.

    Of a prefix all see every key, on top of the pattern (Du et al. 2021, section 2.1). The masks of a mixture are those
    of Dong et al. 2019, figure 1: the prefix is the first of two segments, or nothing at all from left to right.
    """
    length = stream.real.shape[1]
    i, j = np.arange(length)[None, :, None], np.arange(length)[None, None, :]
    pattern = spec.architecture.attention.pattern
    if stream.right_to_left:
        backward: Mask = j >= i
        return backward
    if stream.prefix is not None:
        ahead: Mask = (j <= i) | (j < stream.prefix[:, None, None])
        return ahead
    if stack == "encoder":
        return np.ones((1, length, length), dtype=bool)
    causal: Mask = j <= i
    match pattern:
        case SlidingWindow(window=window):
            return causal & (i - j < window)
        case Causal() | PrefixCausal() | Permutation():
            return causal
        case unknown:
            raise NotImplementedError(f"the oracle has no mask for {unknown}")
