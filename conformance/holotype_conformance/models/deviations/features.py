"""Features of a spec, as far as deviations ask; and a spec with one field set otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from holotype_spec import schema
from holotype_spec.schema import Spec

Node = TypeVar("Node", bound=msgspec.Struct)


def having(*kinds: type[schema.Strict]) -> Callable[[Spec], bool]:
    """Whether the architecture has a mechanism of one of these classes, at any depth."""
    return lambda spec: spec.has(*kinds)


def decodes(spec: Spec) -> bool:
    """The stack that writes the logits is causal, with a window or without."""
    return spec.architecture.structure != "encoder"


def encodes(spec: Spec) -> bool:
    """There is a bidirectional stack."""
    return spec.architecture.structure != "decoder"


def has_source(spec: Spec) -> bool:
    """There is cross-attention."""
    return spec.architecture.structure == "encoder-decoder"


has_window = having(schema.SlidingWindow)


def has_prefix(spec: Spec) -> bool:
    """A prefix, as long as a caller says, is seen by all."""
    return spec.has_prefix


def has_mixture(spec: Spec) -> bool:
    """A caller says which of several masks a batch has."""
    return spec.mixture_of_masks


def has_two_positions(spec: Spec) -> bool:
    """A token has a place in the text and one within its span."""
    return spec.two_positions


def scaled(spec: Spec) -> bool:
    """Scores are scaled by 1/√head_dim, and perhaps by more."""
    return spec.architecture.attention.scale.startswith("inverse-sqrt-head-dim")


def sharpened(spec: Spec) -> bool:
    """Scores grow with the logarithm of the position beyond the trained length."""
    return spec.architecture.attention.grows_with_position


def grouped(spec: Spec) -> bool:
    """Several query heads share a key-value head."""
    return spec.kv_heads < spec.heads


def ungrouped(spec: Spec) -> bool:
    return spec.kv_heads == spec.heads


has_rotary = having(schema.Rotary)
multi_head = having(schema.MultiHeadAttention)
has_learned = having(schema.LearnedPositions)
has_buckets = having(schema.RelativeBuckets)
has_experts = having(schema.Experts)
layer_norm = having(schema.LayerNorm)


def rotates(spec: Spec) -> bool:
    """Queries and keys turn by one position or by two."""
    return spec.architecture.positions.rotates


def has_any_scaling(spec: Spec) -> bool:
    """Rotary positions of which some or all pairs are slowed down, in long inputs at least."""
    return has_rotary(spec) and not spec.has(schema.NoScaling)


def has_bias(spec: Spec) -> bool:
    """Something is added to the scores for each distance."""
    return spec.has(schema.RelativeBuckets, schema.Alibi)


def segmented(spec: Spec) -> bool:
    """Attention compares segments."""
    return spec.architecture.positions.compares_segments


def permuted(spec: Spec) -> bool:
    """Tokens are predicted in an order that a caller gives."""
    return spec.permuted


def has_ids(spec: Spec) -> bool:
    """Positions have ids, which a caller may give."""
    return not spec.distances_only


def pre_norm(spec: Spec) -> bool:
    return spec.architecture.residual == "pre-norm"


def post_norm(spec: Spec) -> bool:
    return spec.architecture.residual == "post-norm"


def parallel(spec: Spec) -> bool:
    """Attention and feed-forward stand side by side, behind one norm."""
    return spec.architecture.residual == "parallel"


def deep_norm(spec: Spec) -> bool:
    return spec.architecture.residual == "deep-norm"


def one_after_the_other(spec: Spec) -> bool:
    """Attention and feed-forward each have a norm and a residual connection of their own."""
    return pre_norm(spec) or post_norm(spec) or deep_norm(spec)


def rotates_part(spec: Spec) -> bool:
    """Some dimensions of a head turn, and some do not."""
    return has_rotary(spec) and not rotates_all(spec)


def rotates_all(spec: Spec) -> bool:
    """All dimensions of a head turn by one position."""
    return getattr(spec.architecture.positions, "fraction", 0) == 1


def final_norm(spec: Spec) -> bool:
    return spec.architecture.normalization.final


def embedding_norm(spec: Spec) -> bool:
    return spec.architecture.normalization.embedding


def scales_embeddings(spec: Spec) -> bool:
    return spec.architecture.embeddings.scale != "none"


def places_positions(spec: Spec) -> bool:
    """Something is added to the token's embedding for its position."""
    return spec.has(schema.LearnedPositions, schema.Sinusoidal)


def projection_biased(spec: Spec) -> bool:
    """A matrix with a bias leads from the embeddings to the hidden size."""
    return bool(getattr(spec.architecture.embeddings.width, "bias", False))


def gated(spec: Spec) -> bool:
    """The feed-forward blocks, or those of the experts, are gated."""
    return spec.architecture.feed_forward.gated


by_softmax = having(schema.SoftmaxRouting)


def normalised_softmax(spec: Spec) -> bool:
    """The gates of the experts that a softmax chooses have the sum 1."""
    routing = getattr(spec.architecture.feed_forward, "routing", None)
    return by_softmax(spec) and routing == schema.SoftmaxRouting(
        normalised=True, factor=1.0, groups=1, active_groups=1
    )


def biased(part: str) -> Callable[[Spec], bool]:
    """Whether one projection of attention has a bias."""
    return lambda spec: part in spec.architecture.attention.biases


def biased_feed_forward(spec: Spec) -> bool:
    return spec.architecture.feed_forward.bias


def biased_head(spec: Spec) -> bool:
    return bool(getattr(spec.architecture.head, "bias", False))


def shares_layers(spec: Spec) -> bool:
    """One layer runs again and again."""
    return spec.architecture.layer_sharing == "all"


def tied(spec: Spec) -> bool:
    """The vocabulary matrix is the token table."""
    return spec.architecture.tied_embeddings and not detects(spec)


def masked_head(spec: Spec) -> bool:
    """The head is that of a masked language model."""
    return spec.architecture.head.masked


def detects(spec: Spec) -> bool:
    """The head says which tokens were replaced."""
    return spec.architecture.head.detects


def next_sentence(spec: Spec) -> bool:
    """A pooler and a matrix judge a pair of sentences."""
    return spec.architecture.head.pairs_sentences


def token_types(spec: Spec) -> bool:
    return spec.architecture.token_types > 1


def drops(spec: Spec) -> bool:
    """The published model was trained with dropout."""
    return bool(spec.architecture.dropout.sites)


def both(*conditions: Callable[[Spec], bool]) -> Callable[[Spec], bool]:
    """All of them."""
    return lambda spec: all(condition(spec) for condition in conditions)


def without(condition: Callable[[Spec], bool]) -> Callable[[Spec], bool]:
    """Not this one."""
    return lambda spec: not condition(spec)


def set_otherwise(spec: Spec, path: str, value: Any) -> Spec:
    """The spec with the field at ``architecture.PATH`` set to `value`."""
    return msgspec.structs.replace(
        spec, architecture=_replaced(spec.architecture, path.split("."), value)
    )


def _replaced(node: Node, path: list[str], value: Any) -> Node:
    first, *rest = path
    inner = _replaced(getattr(node, first), rest, value) if rest else value
    return msgspec.structs.replace(node, **{first: inner})
