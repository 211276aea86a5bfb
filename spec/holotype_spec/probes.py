"""Probes: a spec scaled down to sizes that expose bugs.

Small random models hide most bugs, so the sizes of a probe differ from each other as far as the family allows:
a swapped pair of dimensions then shows as an error or as wrong numbers. What a family fixes stays fixed (a
feed-forward of four times the hidden size, a head width that follows from the others), because an implementation of
that family may rely on it; so do all constants of the mechanisms but the distances, which shrink to fit a short input,
and the dropout rate. That is high even where the spec has no dropout and the probe therefore no site for it: many an
implementation has the knob all the same, and must not turn it in eval mode.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from holotype_spec.schema import (
    Alibi,
    AlternatingBanded,
    Architecture,
    Disentangled,
    Dropout,
    DynamicScaling,
    Embeddings,
    EnhancedMaskDecoder,
    Experts,
    FactorisedEmbedding,
    FeedForward,
    GatedRelativeBuckets,
    LatentAttention,
    LayerwiseRelativeBuckets,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    RelativeBuckets,
    Rotary,
    SlidingWindow,
    Spec,
    TwoDimensionalPositions,
    YarnScaling,
)

DROPOUT = 0.5  # a forgotten eval() must show
VOCABULARY = 97
ROWS = 41  # of a table of learned positions
LONG = 523  # tokens: several blocks of any kernel, more than bfloat16 can count, and no multiple of either
POSITIONS = 2003  # of a model that computes them: far enough for low precision to show
WINDOW = 5
BUCKETS, MAX_DISTANCE = 8, 12  # no distance lies on the edge between two buckets
NARROW = 22  # of a factorised embedding
NEAR = 6  # a distance within a short input from which on disentangled positions share a row
HEAD_DIM = 8
NARROW_HEAD_DIM = 6  # where there are many
MANY_HEADS = 11  # of ALiBi: eight have powers of two for slopes, and three the square roots of such
# With theta 500,000 the eight pairs turn 6.4, 1.2, 0.24 … times within 40 positions: one is left alone, one between.
WIDE_HEAD_DIM, ORIGINAL_POSITIONS = 16, 40
# Theta that grows does so within a short input, twice; scores that do start to somewhere else.
GROWING_FROM, SHARPENED_FROM = 9, 11
HIDDEN_SIZE = 36  # where heads · head_dim is another number
LATENT_HIDDEN_SIZE = (
    40  # a multiple of the heads, as the published classes ask although nothing divides it
)


def probe(
    spec: Spec,
    *,
    layers: int = 2,
    groups: int | None = None,
    rows: int = ROWS,
    window: int = WINDOW,
) -> Spec:
    """The spec of a model of the same architecture that runs in a millisecond.

    Args:
        spec: any full-size spec.
        layers: layers a stack. Two are the least that show a mask lost after the first one.
        groups: key-value heads; by default 2 if the spec groups its queries, else as many as heads (5, or 3 wide
            ones, or as many as it takes for slopes that low precision rounds).
        rows: of a table of learned positions.
        window: keys that a query sees, where the spec has a window.
    """
    grouped = spec.kv_heads < spec.heads
    wide = _wide_heads(spec)
    independent_heads = spec.architecture.attention.head_dim == "independent"
    alone = 3 if wide and not independent_heads else MANY_HEADS if _slopes(spec) else 5
    kv_heads = groups or (2 if grouped else alone)
    heads = kv_heads * 3 if grouped else kv_heads
    head_dim = WIDE_HEAD_DIM if wide else NARROW_HEAD_DIM if heads == MANY_HEADS else HEAD_DIM
    latent = isinstance(spec.architecture.attention, LatentAttention)
    independent_size = LATENT_HIDDEN_SIZE if latent else HIDDEN_SIZE
    hidden_size = independent_size if independent_heads else heads * head_dim
    tables = LearnedPositions | TwoDimensionalPositions
    learned = isinstance(spec.architecture.positions, tables) or isinstance(
        spec.architecture.head, EnhancedMaskDecoder
    )
    fixed_ffn = spec.architecture.feed_forward.size == "four-times-hidden-size"
    return msgspec.structs.replace(
        spec,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden_size=hidden_size,
        ffn_size=4 * hidden_size if fixed_ffn else 52,
        vocab_size=VOCABULARY,
        max_positions=rows if learned else SHARPENED_FROM if _sharpened(spec) else POSITIONS,
        architecture=_exposing(spec, layers, window),
    )


def _exposing(spec: Spec, layers: int, window: int) -> Architecture:
    architecture = spec.architecture
    attention, positions = architecture.attention, architecture.positions
    if isinstance(attention.pattern, SlidingWindow):
        attention = msgspec.structs.replace(attention, pattern=SlidingWindow(window=window))
    if isinstance(attention.pattern, AlternatingBanded):
        pattern = msgspec.structs.replace(attention.pattern, window=window)
        attention = msgspec.structs.replace(attention, pattern=pattern)
    if isinstance(attention, LatentAttention):
        attention = _thin(attention)
    if isinstance(positions, RelativeBuckets | LayerwiseRelativeBuckets):
        positions = msgspec.structs.replace(positions, buckets=BUCKETS, max_distance=MAX_DISTANCE)
    if isinstance(positions, Rotary) and (scaling := _scaling(spec)):
        scaling = _nearer(scaling)
        positions = msgspec.structs.replace(positions, scaling=scaling)
    if isinstance(positions, GatedRelativeBuckets):
        positions = GatedRelativeBuckets(buckets=BUCKETS, max_distance=MAX_DISTANCE)
    if isinstance(positions, Disentangled):
        positions = msgspec.structs.replace(positions, max_distance=NEAR)
    return msgspec.structs.replace(
        architecture,
        attention=attention,
        positions=positions,
        embeddings=_narrow(architecture.embeddings),
        encoder_layers=_deeper(architecture.encoder_layers, layers),
        feed_forward=_fewer(architecture.feed_forward),
        dropout=Dropout(rate=DROPOUT, sites=architecture.dropout.sites),
    )


def _narrow(embeddings: Embeddings) -> Embeddings:
    if not isinstance(embeddings.width, FactorisedEmbedding):
        return embeddings
    width = msgspec.structs.replace(embeddings.width, size=NARROW)
    return msgspec.structs.replace(embeddings, width=width)


def _deeper(
    encoder_layers: int | Literal["as-decoder", "none"], layers: int
) -> int | Literal["as-decoder", "none"]:
    """A number of its own stays one: another than that of the decoder."""
    return layers + 1 if isinstance(encoder_layers, int) else encoder_layers


def _thin(attention: LatentAttention) -> LatentAttention:
    """Of the 16 dimensions of a query's head 10 turn."""
    query_rank: int | Literal["none"] = "none" if attention.query_rank == "none" else 21
    return msgspec.structs.replace(
        attention, query_rank=query_rank, kv_rank=12, rope_head_dim=10, value_head_dim=9
    )


def _fewer(blocks: FeedForward) -> FeedForward:
    """Experts of a size of their own where other layers have one block, and both kinds of layers within two."""
    if not isinstance(blocks, Experts):
        return blocks
    routing = blocks.routing
    if routing.groups > 1:
        routing = msgspec.structs.replace(routing, groups=4, active_groups=2)
    return msgspec.structs.replace(
        blocks,
        experts=8 if routing.groups > 1 else 7,
        active_experts=min(blocks.active_experts, 3),
        expert_size=52 if blocks.dense == "none" else 28,
        first_layer=min(blocks.first_layer, 1),
        routing=routing,
    )


def _nearer(
    scaling: Llama3Scaling | YarnScaling | DynamicScaling,
) -> Llama3Scaling | YarnScaling | DynamicScaling:
    """Within a short input; but that of YaRN stays, whose five pairs are two fast ones, two between and a slow one."""
    if isinstance(scaling, YarnScaling):
        return scaling
    original = GROWING_FROM if isinstance(scaling, DynamicScaling) else ORIGINAL_POSITIONS
    return msgspec.structs.replace(scaling, original_max_positions=original)


def _sharpened(spec: Spec) -> bool:
    """Whether scores grow with the position, from `max_positions` on."""
    return spec.architecture.attention.scale == "inverse-sqrt-head-dim-log-length"


def _slopes(spec: Spec) -> bool:
    """Whether each head looks back with a slope of its own."""
    return isinstance(spec.architecture.positions, Alibi)


def _wide_heads(spec: Spec) -> bool:
    """Whether several pairs of dimensions must turn, or only a part of a head does."""
    positions = spec.architecture.positions
    partly = isinstance(positions, Rotary) and positions.fraction < 1
    latent = isinstance(spec.architecture.attention, LatentAttention)
    return partly or latent or _scaling(spec) is not None


def _scaling(spec: Spec) -> Llama3Scaling | YarnScaling | DynamicScaling | None:
    positions = spec.architecture.positions
    scaling = positions.scaling if isinstance(positions, Rotary) else None
    return None if isinstance(scaling, NoScaling | LinearScaling) else scaling
