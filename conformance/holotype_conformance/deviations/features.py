"""What a spec has, as far as deviations ask; and a spec with one field set otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from holotype_reference.positions.two_dimensional import has_two_positions as has_two_positions
from holotype_spec import schema
from holotype_spec.schema import Spec

Node = TypeVar("Node", bound=msgspec.Struct)


def decodes(spec: Spec) -> bool:
    """The stack that writes the logits is causal, with a window or without."""
    return spec.architecture.structure != "encoder"


def encodes(spec: Spec) -> bool:
    """There is a bidirectional stack."""
    return spec.architecture.structure != "decoder"


def has_source(spec: Spec) -> bool:
    """There is cross-attention."""
    return spec.architecture.structure == "encoder-decoder"


def has_window(spec: Spec) -> bool:
    return isinstance(spec.architecture.attention.pattern, schema.SlidingWindow)


def has_prefix(spec: Spec) -> bool:
    """A prefix, as long as a caller says, is seen by all."""
    prefixed = schema.PrefixCausal | schema.MixtureOfMasks
    return isinstance(spec.architecture.attention.pattern, prefixed)


def has_mixture(spec: Spec) -> bool:
    """A caller says which of several masks a batch has."""
    return isinstance(spec.architecture.attention.pattern, schema.MixtureOfMasks)


def scaled(spec: Spec) -> bool:
    """Scores are scaled by 1/√head_dim, and perhaps by more."""
    return spec.architecture.attention.scale.startswith("inverse-sqrt-head-dim")


def sharpened(spec: Spec) -> bool:
    """Scores grow with the logarithm of the position beyond the trained length."""
    return spec.architecture.attention.scale == "inverse-sqrt-head-dim-log-length"


def grouped(spec: Spec) -> bool:
    """Several query heads share a key-value head."""
    return spec.kv_heads < spec.heads


def ungrouped(spec: Spec) -> bool:
    return spec.kv_heads == spec.heads


def has_rotary(spec: Spec) -> bool:
    return isinstance(spec.architecture.positions, schema.Rotary)


def rotates_two_positions(spec: Spec) -> bool:
    return isinstance(spec.architecture.positions, schema.TwoDimensionalRotary)


def rotates(spec: Spec) -> bool:
    """Queries and keys turn by one position or by two."""
    return has_rotary(spec) or rotates_two_positions(spec)


def has_any_scaling(spec: Spec) -> bool:
    """Rotary positions of which some or all pairs are slowed down, in long inputs at least."""
    positions = spec.architecture.positions
    return isinstance(positions, schema.Rotary) and not isinstance(
        positions.scaling, schema.NoScaling
    )


def multi_head(spec: Spec) -> bool:
    """Keys and values are made from the residual stream, and cached."""
    return isinstance(spec.architecture.attention, schema.MultiHeadAttention)


def latent(spec: Spec) -> bool:
    """Keys and values are made from a latent vector."""
    return isinstance(spec.architecture.attention, schema.LatentAttention)


def has_yarn(spec: Spec) -> bool:
    """Rotary positions scaled as YaRN does."""
    positions = spec.architecture.positions
    return isinstance(positions, schema.Rotary) and isinstance(
        positions.scaling, schema.YarnScaling
    )


def has_growing_theta(spec: Spec) -> bool:
    """Rotary positions whose theta grows with the input."""
    positions = spec.architecture.positions
    return isinstance(positions, schema.Rotary) and isinstance(
        positions.scaling, schema.DynamicScaling
    )


def has_scaling(spec: Spec) -> bool:
    """Rotary positions whose slow pairs are slowed down."""
    positions = spec.architecture.positions
    return isinstance(positions, schema.Rotary) and isinstance(
        positions.scaling, schema.Llama3Scaling | schema.YarnScaling
    )


def has_learned(spec: Spec) -> bool:
    return isinstance(spec.architecture.positions, schema.LearnedPositions)


def has_buckets(spec: Spec) -> bool:
    return isinstance(spec.architecture.positions, schema.RelativeBuckets)


def has_alibi(spec: Spec) -> bool:
    return isinstance(spec.architecture.positions, schema.Alibi)


def has_bias(spec: Spec) -> bool:
    """Something is added to the scores for each distance."""
    return has_buckets(spec) or has_alibi(spec)


def has_sinusoids(spec: Spec) -> bool:
    return isinstance(spec.architecture.positions, schema.Sinusoidal)


def disentangled(spec: Spec) -> bool:
    """Contents meet trained rows for distances."""
    return isinstance(spec.architecture.positions, schema.Disentangled)


def transformer_xl(spec: Spec) -> bool:
    """Queries meet sinusoids of distances."""
    return isinstance(spec.architecture.positions, schema.TransformerXLPositions)


def segmented(spec: Spec) -> bool:
    """Attention compares segments."""
    positions = spec.architecture.positions
    return isinstance(positions, schema.TransformerXLPositions) and positions.relative_segments


def permuted(spec: Spec) -> bool:
    """Tokens are predicted in an order that a caller gives."""
    return spec.permuted


def decodes_masks(spec: Spec) -> bool:
    """The head runs the last layer again, over states that know where they stand."""
    return isinstance(spec.architecture.head, schema.EnhancedMaskDecoder)


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
    """All dimensions of a head turn."""
    positions = spec.architecture.positions
    return isinstance(positions, schema.Rotary) and positions.fraction == 1


def layer_norm(spec: Spec) -> bool:
    return isinstance(spec.architecture.normalization, schema.LayerNorm)


def rms_norm(spec: Spec) -> bool:
    return isinstance(spec.architecture.normalization, schema.RMSNorm)


def final_norm(spec: Spec) -> bool:
    return spec.architecture.normalization.final


def embedding_norm(spec: Spec) -> bool:
    return spec.architecture.normalization.embedding


def scales_embeddings(spec: Spec) -> bool:
    return spec.architecture.embeddings.scale != "none"


def places_positions(spec: Spec) -> bool:
    """Something is added to the token's embedding for its position."""
    return has_learned(spec) or has_sinusoids(spec)


def projection_biased(spec: Spec) -> bool:
    """A matrix with a bias leads from the embeddings to the hidden size."""
    width = spec.architecture.embeddings.width
    return isinstance(width, schema.FactorisedEmbedding) and width.bias


def gated(spec: Spec) -> bool:
    """The feed-forward blocks, or those of the experts, are gated."""
    blocks = spec.architecture.feed_forward
    if isinstance(blocks, schema.Experts):
        return blocks.expert == "gated"
    return isinstance(blocks, schema.GatedFeedForward)


def has_experts(spec: Spec) -> bool:
    return isinstance(spec.architecture.feed_forward, schema.Experts)


def by_softmax(spec: Spec) -> bool:
    """Experts are chosen by a softmax."""
    blocks = spec.architecture.feed_forward
    return isinstance(blocks, schema.Experts) and isinstance(blocks.routing, schema.SoftmaxRouting)


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
    kinds = schema.MaskedLanguageModelHead | schema.EnhancedMaskDecoder
    return isinstance(spec.architecture.head, kinds)


def detects(spec: Spec) -> bool:
    """The head tells which tokens were replaced."""
    return isinstance(spec.architecture.head, schema.ReplacedTokenHead)


def next_sentence(spec: Spec) -> bool:
    head = spec.architecture.head
    return isinstance(head, schema.MaskedLanguageModelHead) and head.sentence_pair != "none"


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
