"""The cost of running a model: floating-point operations, KV cache and memory, from the spec alone.

Conventions, those of Chowdhery et al. 2022 (PaLM), appendix B: a multiplication and an addition are two
operations; what counts are the products with weight matrices (of experts, those that a token uses), the output matrix
included (tied or not), and the products inside attention; lookups, biases, norms, softmax and activations do not
count. Training costs three times the forward pass, because the backward pass computes two products for each of its
own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from holotype_spec.counts import count_matrix_weights, count_parameters, count_source_weights
from holotype_spec.networks import Network
from holotype_spec.parameters import stacks
from holotype_spec.schema import Spec
from holotype_spec.sketch import answers

BITS = {
    "float64": 64,
    "float32": 32,
    "bfloat16": 16,
    "float16": 16,
    "float8": 8,
    "int8": 8,
    "int4": 4,
}


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations a token."""

    forward: int
    training: int


def _network_flops(network: Network, context: int) -> Flops:
    from holotype_spec.network_costs import forward_flops

    forward = forward_flops(network)
    return Flops(forward=forward, training=3 * forward)


@answers("the FLOPs a token", network=_network_flops)
def flops_per_token(spec: Spec, context: int) -> Flops:
    """The operations of one token that attends to `context` keys, itself among them (fewer under a window).

    Of an encoder-decoder: what a source token and a target token cost together, the source as long as the
    context. The pooler and the next-sentence head run once a sequence and are left out; the head over the
    vocabulary is taken to run at every position.

    Raises:
        ValueError: `context` is below 1.
    """
    if context < 1:
        raise ValueError(
            f"context is {context}; a token attends at least to itself, so give 1 or more"
        )
    attention = _own_attention(spec, context)
    if len(stacks(spec)) > 1:
        attention += _cross_attention(spec, context) + _encoder_attention(spec, context)
    forward = 2 * count_matrix_weights(spec) + attention
    return Flops(forward=forward, training=3 * forward)


def _own_attention(spec: Spec, context: int) -> int:
    """The operations a token of self-attention in the stack that writes the logits, without its projections."""
    kept = _kept(spec, context).items()
    return 2 * spec.heads * sum(times * _products(spec, keys) for keys, times in kept)


def _cross_attention(spec: Spec, source: int) -> int:
    """The operations a token of a decoder's cross-attention, without its projections."""
    return 2 * spec.heads * spec.layers * _products(spec, source, of_positions=False)


def _encoder_attention(spec: Spec, source: int) -> int:
    """The operations a token of the encoder's self-attention, in which every token sees the whole source."""
    return 2 * spec.heads * spec.encoder_depth * _products(spec, source)


def _products(spec: Spec, keys: int, *, of_positions: bool = True) -> int:
    """Products of numbers that a query needs in each head, for scores and for the values."""
    of_content = keys * (spec.head_dim + spec.value_head_dim)
    if not of_positions:
        return of_content
    positions, both_ways = spec.architecture.positions, spec.architecture.structure != "decoder"
    return of_content + positions.score_products(keys, spec.head_dim, both_ways=both_ways)


@answers("the cache a token")
def kv_cache_bytes_per_token(spec: Spec, dtype: str) -> int:
    """Bytes of keys and values that each token adds to the KV cache of the self-attention, up to the window.

    Latent attention caches the latent vector and the rotary key instead, of which it makes keys and values. An
    encoder has no cache: 0. In an encoder-decoder a source token adds as much again, through the cross-attention.

    Raises:
        ValueError: unknown `dtype`.
    """
    return _bytes(spec.layers * _cached_values(spec), dtype)


@answers("the cache")
def kv_cache_bytes(spec: Spec, length: int, dtype: str, *, source_length: int = 0) -> int:
    """Bytes of the KV cache after `length` tokens, no more of them than the window keeps.

    Args:
        spec: the model.
        length: tokens that the stack that writes the logits has read.
        dtype: of the cache, one of `BITS`.
        source_length: tokens of the source of an encoder-decoder.

    Raises:
        ValueError: unknown `dtype`, or a source where there is no encoder to read it.
    """
    if source_length and len(stacks(spec)) == 1:
        raise ValueError(f"{spec.name} reads no source, so source_length must be 0")
    kept = sum(tokens * times for tokens, times in _kept(spec, length).items())
    return _bytes(_cached_values(spec) * (kept + spec.layers * source_length), dtype)


def state_bytes(network: Network, dtype: str) -> int:
    """Bytes of the state that the layers of a recurrent network carry from token to token, at any length.

    Raises:
        ValueError: unknown `dtype`.
    """
    from holotype_spec.network_costs import carried

    return _bytes(carried(network), dtype)


def _network_memory(network: Network, dtype: str) -> int:
    return _bytes(count_parameters(network).total, dtype)


@answers("the memory", network=_network_memory)
def memory_bytes(spec: Spec, dtype: str) -> int:
    """Bytes of all parameters of the pretraining model, tied ones once.

    Raises:
        ValueError: unknown `dtype`.
    """
    return _bytes(count_parameters(spec).total, dtype)


# Whole passes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The least that some work takes: operations, and bytes that must move between memory and processor."""

    flops: int
    bytes: int


def attention_cost(
    pairs: int,
    *,
    batch: int,
    heads: int,
    kv_heads: int,
    queries: int,
    keys: int,
    head_dim: int,
    dtype: str,
    training: bool = False,
) -> Cost:
    """Attention alone, over `pairs` pairs of a query and a key that it sees (`holotype_spec.areas.pairs`).

    Bytes are those of queries, keys, values and the result, each moved once; with the backward pass they and the
    upstream gradient are read again, and their gradients written.

    Raises:
        ValueError: unknown `dtype`.
    """
    flops = 4 * batch * heads * pairs * head_dim
    values = 2 * batch * head_dim * (heads * queries + kv_heads * keys)
    if not training:
        return Cost(flops=flops, bytes=_bytes(values, dtype))
    upstream = batch * head_dim * heads * queries
    return Cost(flops=3 * flops, bytes=_bytes(3 * values + upstream, dtype))


def pass_cost(
    spec: Spec,
    *,
    batch: int,
    length: int,
    dtype: str,
    cached: int = 0,
    source_length: int | None = None,
    training: bool = False,
) -> Cost:
    """One pass over `length` tokens a row that follow `cached` ones.

    Bytes are those of the matrices once, of the cache that is read, and of the logits. Training reads the matrices
    again and writes their gradients; what it keeps of the forward pass depends on the implementation and is left
    out.

    An encoder-decoder reads its source in the pass that has no cache yet: the encoder runs, and every layer of the
    decoder makes keys and values of its output. Later passes find these in the cache.

    Args:
        spec: the model.
        batch: rows.
        length, cached: tokens of the stack that writes the logits.
        dtype: of weights, cache and logits, one of `BITS`.
        source_length: tokens of the source of an encoder-decoder; None for as many as the decoder has in all.
        training: whether the backward pass is among it.

    Raises:
        ValueError: unknown `dtype`, no tokens, or a source where there is no encoder to read it.
    """
    if batch < 1 or length < 1 or cached < 0:
        raise ValueError(
            f"batch {batch}, length {length}, cached {cached}: expected at least 1, 1 and 0"
        )
    source = _source(spec, source_length, length + cached)
    flops = batch * _sequence_flops(spec, length, cached, source)
    weights = count_matrix_weights(spec)
    moved = _bytes(length * spec.logit_size, dtype)
    if cached:
        weights -= count_source_weights(spec) if source else 0
        moved += kv_cache_bytes(spec, cached, dtype, source_length=source)
    read = _bytes(weights, dtype)
    if not training:
        return Cost(flops=flops, bytes=read + batch * moved)
    return Cost(flops=3 * flops, bytes=3 * read + 2 * batch * moved)


def _source(spec: Spec, given: int | None, tokens: int) -> int:
    """The number of tokens of the source; 0 where there is none."""
    if len(stacks(spec)) == 1:
        if given:
            raise ValueError(f"{spec.name} reads no source, so source_length must be None")
        return 0
    if given is not None and given < 1:
        raise ValueError(f"source_length is {given}; expected 1 or more")
    return tokens if given is None else given


def _sequence_flops(spec: Spec, length: int, cached: int, source: int) -> int:
    """One row of a batch."""
    weights, of_source = count_matrix_weights(spec), count_source_weights(spec) if source else 0
    if spec.architecture.structure == "encoder":
        return length * (2 * weights + _own_attention(spec, length))
    own = _sum(partial(_own_attention, spec), cached + 1, cached + length)
    flops = 2 * (weights - of_source) * length + own
    if source:
        flops += length * _cross_attention(spec, source)
    if source and not cached:
        flops += source * (2 * of_source + _encoder_attention(spec, source))
    return flops


def _sum(function: Callable[[int], int], first: int, last: int) -> int:
    """Of a function made of straight pieces that grow no steeper, without calling it everywhere."""
    if last - first < 2:
        return sum(function(x) for x in range(first, last + 1))
    middle = (first + last) // 2
    low, high = function(first), function(last)
    if (function(middle) - low) * (last - first) == (high - low) * (middle - first):
        return (low + high) * (last - first + 1) // 2
    return _sum(function, first, middle) + _sum(function, middle + 1, last)


# Parts ----------------------------------------------------------------------------------------------------


def _cached_values(spec: Spec) -> int:
    """Numbers that a layer keeps of a token in the KV cache."""
    if spec.architecture.structure == "encoder":
        return 0
    return spec.architecture.attention.cached_values(spec)


def _kept(spec: Spec, length: int) -> dict[int, int]:
    """The number of the last `length` tokens that a layer sees -> the number of layers that see so many."""
    return spec.architecture.attention.pattern.kept(length, spec.layers)


def _bytes(values: int, dtype: str) -> int:
    if dtype not in BITS:
        raise ValueError(f"unknown dtype {dtype!r}: expected one of {', '.join(BITS)}")
    return -(-values * BITS[dtype] // 8)
