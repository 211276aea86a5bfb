"""What a model costs to run: floating-point operations, cache and memory, from the spec alone.

Conventions, those of Chowdhery et al. 2022 (PaLM), appendix B: a multiplication and an addition are two
operations; what counts are the products with weight matrices, the output matrix included (tied or not), and
the two products inside attention; lookups, biases, norms, softmax and activations do not count. Training
costs three times the forward pass, because the backward pass computes two products for each of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from holotype_spec.parameters import count_matrix_weights, count_parameters, stacks
from holotype_spec.schema import SlidingWindow, Spec

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


def flops_per_token(spec: Spec, context: int) -> Flops:
    """What one token costs that attends to `context` keys, itself among them (fewer under a window).

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
    # Self-attention in each stack, and the decoder's cross-attention.
    blocks = spec.layers * (1 if len(stacks(spec)) == 1 else 3)
    seen = _kept(spec, context) + (blocks // spec.layers - 1) * context
    attention = 4 * spec.layers * spec.heads * spec.head_dim * seen
    forward = 2 * count_matrix_weights(spec) + attention
    return Flops(forward=forward, training=3 * forward)


def kv_cache_bytes_per_token(spec: Spec, dtype: str) -> int:
    """Bytes of keys and values that each token adds to the cache of the self-attention, up to the window.

    An encoder has no cache: 0. In an encoder-decoder a source token adds as much again, through the
    cross-attention.

    Raises:
        ValueError: unknown `dtype`.
    """
    return _bytes(_cached_values(spec), dtype)


def kv_cache_bytes(spec: Spec, length: int, dtype: str, *, source_length: int = 0) -> int:
    """Bytes of the cache after `length` tokens, no more of them than the window keeps.

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
    return _bytes(_cached_values(spec) * (_kept(spec, length) + source_length), dtype)


def memory_bytes(spec: Spec, dtype: str) -> int:
    """Bytes of all parameters of the pretraining model, tied ones once.

    Raises:
        ValueError: unknown `dtype`.
    """
    return _bytes(count_parameters(spec).total, dtype)


def _cached_values(spec: Spec) -> int:
    if spec.architecture.structure == "encoder":
        return 0
    return 2 * spec.layers * spec.kv_heads * spec.head_dim


def _kept(spec: Spec, length: int) -> int:
    pattern = spec.architecture.attention.pattern
    return min(length, pattern.window) if isinstance(pattern, SlidingWindow) else length


def _bytes(values: int, dtype: str) -> int:
    if dtype not in BITS:
        raise ValueError(f"unknown dtype {dtype!r}: expected one of {', '.join(BITS)}")
    return -(-values * BITS[dtype] // 8)
