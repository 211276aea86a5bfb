"""The size at which a model is measured: that of the spec, scaled down until a pass takes a tenth of a second.

Two layers and at most eight query heads; what the family fixes stays fixed. The width of a head, the heads that share
keys, the ratio of the feed-forward to the hidden size, the mechanisms and their constants are those of the spec. The
vocabulary has 4096 tokens, so that the output matrix costs no more than the layers do, as in the whole model.
"""

from __future__ import annotations

import msgspec

from holotype_spec.schema import (
    Architecture,
    Experts,
    Spec,
)

LAYERS, HEADS, VOCABULARY, POSITIONS = 2, 8, 4096, 2048


def scaled(spec: Spec) -> Spec:
    """`spec` at the size at which it is measured."""
    group = spec.heads // spec.kv_heads
    kv_heads = max(min(spec.heads, HEADS) // group, 1)
    heads = kv_heads * group
    width = heads * spec.head_dim
    independent = spec.architecture.attention.head_dim == "independent"
    hidden_size = width if not independent else _share(spec.hidden_size, heads, spec.heads)
    return msgspec.structs.replace(
        spec,
        layers=min(spec.layers, LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        hidden_size=hidden_size,
        ffn_size=_share(spec.ffn_size, hidden_size, spec.hidden_size),
        vocab_size=min(spec.vocab_size, VOCABULARY),
        max_positions=min(spec.max_positions, POSITIONS)
        if spec.learned_positions
        else spec.max_positions,
        architecture=_narrower(spec, hidden_size),
    )


def _narrower(spec: Spec, hidden_size: int) -> Architecture:
    """Experts keep their ratio to the hidden size too, and stand in the second layer at the latest."""
    blocks = spec.architecture.feed_forward
    if not isinstance(blocks, Experts):
        return spec.architecture
    size = _share(blocks.expert_size, hidden_size, spec.hidden_size)
    first = min(blocks.first_layer, 1)
    blocks = msgspec.structs.replace(blocks, expert_size=size, first_layer=first)
    return msgspec.structs.replace(spec.architecture, feed_forward=blocks)


def _share(size: int, part: int, whole: int) -> int:
    """`size` in the proportion of `part` to `whole`, in eights."""
    return max(size * part // whole // 8 * 8, 8)


def longest(spec: Spec) -> int:
    """The most tokens that a pass may have."""
    return scaled(spec).max_positions
