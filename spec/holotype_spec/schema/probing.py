"""Sizes of probes: a spec scaled down to sizes that expose bugs.

Small random models hide most bugs, so the sizes of a probe differ from each other as far as the family allows:
a swapped pair of dimensions then shows as an error or as wrong numbers. What a family fixes stays fixed (a
feed-forward of four times the hidden size, a head width that follows from the others), because an implementation of
that family may rely on it; so do all constants of the mechanisms but the distances, which shrink to fit a short input,
and the dropout rate. That is high even where the spec has no dropout and the probe therefore no site for it: many an
implementation has the knob all the same, and must not turn it in eval mode.
"""

from __future__ import annotations

from holotype_spec.schema.attention import Attention
from holotype_spec.schema.feed_forward import PROBED_SIZE
from holotype_spec.schema.mechanism import Probing
from holotype_spec.schema.positions import Positions
from holotype_spec.schema.sizes import Sizes

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


def probed_sizes(
    sizes: Sizes,
    attention: Attention,
    positions: Positions,
    probing: Probing,
    *,
    fixed_ffn: bool,
    trained_rows: bool,
) -> dict[str, int]:
    """The numbers of a probe, by the names of the fields of `Sizes`.

    Args:
        sizes: those of the full-size model.
        fixed_ffn: whether the feed-forward size is four times the hidden size.
        trained_rows: whether positions have a table of trained rows.
    """
    grouped = sizes.kv_heads < sizes.heads
    wide = attention.wide_probe or positions.wide_probe
    independent_heads = attention.head_dim == "independent"
    alone = 3 if wide and not independent_heads else positions.probed_heads
    kv_heads = probing.groups or (2 if grouped else alone)
    heads = kv_heads * 3 if grouped else kv_heads
    narrow = heads == positions.probed_heads > MOST_HEADS
    head_dim = WIDE_HEAD_DIM if wide else NARROW_HEAD_DIM if narrow else HEAD_DIM
    hidden_size = attention.probed_hidden_size if independent_heads else heads * head_dim
    sharpened = SHARPENED_FROM if attention.grows_with_position else POSITIONS
    return {
        "layers": probing.layers,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_size": hidden_size,
        "ffn_size": 4 * hidden_size if fixed_ffn else PROBED_SIZE,
        "vocab_size": VOCABULARY,
        "max_positions": probing.rows if trained_rows else sharpened,
    }
