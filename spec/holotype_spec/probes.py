"""Probes: a spec scaled down to sizes that expose bugs.

Small random models hide most bugs, so the sizes of a probe differ from each other as far as the family allows:
a swapped pair of dimensions then shows as an error or as wrong numbers. What a family fixes stays fixed (a
feed-forward of four times the hidden size, a head width that follows from the others), because an implementation of
that family may rely on it; so do all constants of the mechanisms but the distances, which shrink to fit a short input,
and the dropout rate. That is high even where the spec has no dropout and the probe therefore no site for it: many an
implementation has the knob all the same, and must not turn it in eval mode.
"""

from __future__ import annotations

import msgspec

from holotype_spec.schema import Architecture, Dropout, Spec
from holotype_spec.schema.feed_forward import PROBED_SIZE
from holotype_spec.schema.mechanism import Probing

DROPOUT = 0.5  # a forgotten eval() must show
VOCABULARY = 97
ROWS = 41  # of a table of learned positions
LONG = 523  # tokens: several blocks of any kernel, more than bfloat16 can count, and no multiple of either
POSITIONS = 2003  # of a model that computes them: far enough for low precision to show
WINDOW = 5
HEAD_DIM = 8
NARROW_HEAD_DIM = 6  # where there are many
WIDE_HEAD_DIM = 16  # where several pairs of dimensions must turn, or a part of a head alone
MOST_HEADS = 5  # of heads as wide as HEAD_DIM
SHARPENED_FROM = 11  # scores that grow with the position start to within a short input


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
    architecture = spec.architecture
    attention, positions = architecture.attention, architecture.positions
    grouped = spec.kv_heads < spec.heads
    wide = attention.wide_probe or positions.wide_probe
    independent_heads = attention.head_dim == "independent"
    alone = 3 if wide and not independent_heads else positions.probed_heads
    kv_heads = groups or (2 if grouped else alone)
    heads = kv_heads * 3 if grouped else kv_heads
    narrow = heads == positions.probed_heads > MOST_HEADS
    head_dim = WIDE_HEAD_DIM if wide else NARROW_HEAD_DIM if narrow else HEAD_DIM
    hidden_size = attention.probed_hidden_size if independent_heads else heads * head_dim
    fixed_ffn = architecture.feed_forward.size == "four-times-hidden-size"
    sharpened = SHARPENED_FROM if attention.grows_with_position else POSITIONS
    return msgspec.structs.replace(
        spec,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden_size=hidden_size,
        ffn_size=4 * hidden_size if fixed_ffn else PROBED_SIZE,
        vocab_size=VOCABULARY,
        max_positions=rows if spec.learned_positions else sharpened,
        architecture=_exposing(architecture, Probing(layers=layers, rows=rows, window=window)),
    )


def _exposing(architecture: Architecture, probing: Probing) -> Architecture:
    """The architecture with each mechanism as its class shrinks it."""
    embeddings, depth = architecture.embeddings, architecture.encoder_layers
    width = embeddings.width.probed(probing)
    return msgspec.structs.replace(
        architecture,
        attention=architecture.attention.probed(probing),
        positions=architecture.positions.probed(probing),
        normalization=architecture.normalization.probed(probing),
        embeddings=msgspec.structs.replace(embeddings, width=width),
        # A number of its own stays one: another than that of the decoder.
        encoder_layers=probing.layers + 1 if isinstance(depth, int) else depth,
        feed_forward=architecture.feed_forward.probed(probing),
        head=architecture.head.probed(probing),
        dropout=Dropout(rate=DROPOUT, sites=architecture.dropout.sites),
    )
