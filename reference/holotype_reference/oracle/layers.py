"""All layers of a stack: which block reads what, and where the norms stand."""

from __future__ import annotations

import math

import numpy as np

from holotype_reference.oracle import normalization
from holotype_reference.oracle.attention import cross_attention, self_attention
from holotype_reference.oracle.basics import Array, Scope, Stream
from holotype_reference.oracle.experts import experts
from holotype_reference.oracle.feed_forward import feed_forward
from holotype_spec.parameters import Stack
from holotype_spec.schema import EnhancedMaskDecoder, Spec


def stack_output(
    spec: Spec, p: Scope, stack: Stack, stream: Stream, source: Stream | None = None
) -> Array:
    """All layers: each block reads the stream x and adds to it.

    Post-norm, x ← norm(x + f(x)), is Vaswani et al. 2017, section 3.1; pre-norm,
    x ← x + f(norm(x)), is Radford et al. 2019, section 2.3 (Xiong et al. 2020, fig. 1, draw both);
    parallel, x ← x + f(norm(x)) + g(norm(x)), is Chowdhery et al. 2022, section 2; with N
    layers deep-norm, x ← norm(√(2 N) x + f(x)), is Zeng et al. 2022, section 2.1.
    """
    if spec.architecture.residual == "parallel":
        return _parallel_stack(spec, p, stack, stream)
    if stream.order is not None:
        return _final_norm(spec, p, stack, _query_stream(spec, p, stream))
    x, post = stream.x, spec.architecture.residual in ("post-norm", "deep-norm")
    alpha = math.sqrt(2 * spec.layers) if spec.architecture.residual == "deep-norm" else 1.0
    names = _block_names(spec, stack, source)
    if isinstance(spec.architecture.head, EnhancedMaskDecoder):
        names = names[:-2]  # the head runs the last layer, in its own way
    for name in names:
        block, norm = p / f"{stack}.layers.{name}", p / f"{stack}.layers.{name}_norm"
        y = x if post else normalization.norm(spec, norm, x)
        if name.endswith("self_attention"):
            y = self_attention(spec, p, stack, block, y, stream)
        elif name.endswith("cross_attention"):
            assert source is not None
            y = cross_attention(spec, block, y, source)
        elif "router.weight" in block:
            y = experts(spec, block, y)
        else:
            y = feed_forward(spec, block, y)
        x = normalization.norm(spec, norm, alpha * x + y) if post else x + y
    if isinstance(spec.architecture.head, EnhancedMaskDecoder):
        x = _enhanced(spec, p, stream, x)
    return _final_norm(spec, p, stack, x)


def _enhanced(spec: Spec, p: Scope, stream: Stream, below: Array) -> Array:
    """The last layer over the states H below it, with queries that know where they stand (He et al. 2020, 3.2).

    Of n passes the first has the queries H + P, P a row for each absolute position, and each later one those that
    came out before; keys and values are made of H every time (the release, emd_context_layer).
    """
    head = spec.architecture.head
    assert isinstance(head, EnhancedMaskDecoder)
    layer = p / f"encoder.layers.{spec.layers - 1}"
    x = below + p["head.position.weight"][stream.positions]
    for _ in range(head.passes):
        x = _reading(spec, p, layer, x, stream, below, own=True)
    return x


def _query_stream(spec: Spec, p: Scope, stream: Stream) -> Array:
    """h_i ← Attention(Q = h_i, KV = h up to i), g_i ← Attention(Q = g_i, KV = h before i) (Yang et al. 2019, 2.3)."""
    h = stream.x
    g = np.broadcast_to(p["embeddings.query_stream.weight"][0], h.shape)
    for index in range(spec.layers):
        layer = p / f"encoder.layers.{index}"
        g, h = (_reading(spec, p, layer, x, stream, h, own=x is h) for x in (g, h))
    return g


def _reading(
    spec: Spec, p: Scope, layer: Scope, x: Array, stream: Stream, memory: Array, *, own: bool
) -> Array:
    """A post-norm layer of an encoder over x, with keys and values from `memory`."""
    block = layer / "self_attention"
    attended = self_attention(spec, p, "encoder", block, x, stream, memory, own)
    x = normalization.norm(spec, layer / "self_attention_norm", x + attended)
    inner = feed_forward(spec, layer / "feed_forward", x)
    return normalization.norm(spec, layer / "feed_forward_norm", x + inner)


def _parallel_stack(spec: Spec, p: Scope, stack: Stack, stream: Stream) -> Array:
    x = stream.x
    for index in range(spec.layers):
        layer = p / f"{stack}.layers.{index}"
        read = normalization.norm(spec, layer / "norm", x)
        attended = self_attention(spec, p, stack, layer / "self_attention", read, stream)
        x = x + attended + feed_forward(spec, layer / "feed_forward", read)
    return _final_norm(spec, p, stack, x)


def _final_norm(spec: Spec, p: Scope, stack: Stack, x: Array) -> Array:
    final = spec.architecture.normalization.final
    return normalization.norm(spec, p / f"{stack}.final_norm", x) if final else x


def _block_names(spec: Spec, stack: Stack, source: Stream | None) -> list[str]:
    """In the order in which they run; where all layers share, the first one again and again (Lan et al. 2019, 3.1)."""
    blocks = ["self_attention", *(["cross_attention"] if source else []), "feed_forward"]
    uneven = stack == "encoder" and isinstance(spec.architecture.encoder_layers, int)
    depth = spec.architecture.encoder_layers if uneven else spec.layers
    assert isinstance(depth, int)
    layers = [0] * depth if spec.architecture.layer_sharing == "all" else range(depth)
    twice = spec.architecture.feed_forward.has_dense_after  # Zoph et al. 2022, appendix C
    after = {layer: ["dense_after"] for layer in layers if twice(layer)}
    return [f"{layer}.{block}" for layer in layers for block in [*blocks, *after.get(layer, [])]]
