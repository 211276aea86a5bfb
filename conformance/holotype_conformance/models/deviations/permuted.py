"""XLNet's mistakes: contents that meet sinusoids of distances, and two streams through the same layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import having, permuted, segmented
from holotype_conformance.models.deviations.patching import override, override_all, parts
from holotype_reference.attention import LayerInputs, Positioning, SelfAttention
from holotype_reference.inputs import Call
from holotype_reference.model import Model
from holotype_reference.positions.distances import Distances
from holotype_reference.positions.transformer_xl import RelativeSinusoids, TransformerXLAttention
from holotype_reference.stack import Layer, Stack
from holotype_reference.two_streams import TwoStreamStack
from holotype_spec import schema

_transformer_xl = having(schema.TransformerXLPositions)

# Distances --------------------------------------------------------------------------------------------------------


def _each_distance(model: Model, change: Callable[[Distances], Distances]) -> None:
    def distances(
        self: RelativeSinusoids, queries: Tensor, keys: Tensor, like: Tensor
    ) -> Distances:
        return change(RelativeSinusoids.distances(self, queries, keys, like))

    override_all(model, RelativeSinusoids, distances=distances)


@patches(
    "transformer-xl.shift-one-off",
    "each query meets the sinusoid of a distance that is one too large",
    "Products with all distances are shifted into place by a reshape, one row further down for each query. A shift"
    " that drops the last row instead of the first, or starts a column late, is off by one.",
    applies=_transformer_xl,
    reports=("labmlai/annotated_deep_learning_paper_implementations#185",),
)
def shift_one_off(model: Model) -> None:
    def one_further(found: Distances) -> Distances:
        return replace(found, index=(found.index + 1).clamp(max=found.rows.shape[1] - 1))

    _each_distance(model, one_further)


@patches(
    "transformer-xl.distances-negated",
    "distances are counted from the query to the key, j - i instead of i - j",
    "What stands before a token is taken for what stands behind it. Distances of keys before the query are positive.",
    applies=_transformer_xl,
)
def distances_negated(model: Model) -> None:
    _each_distance(model, lambda found: replace(found, rows=found.rows.flip(1)))


@patches(
    "transformer-xl.sinusoids-interleaved",
    "sines and cosines of distances take turns, instead of all sines in front",
    "The Transformer's paper has them take turns, Transformer-XL's and XLNet's code has all sines in front of all"
    " cosines. The projection of distances was trained for one of them.",
    applies=_transformer_xl,
)
def sinusoids_interleaved(model: Model) -> None:
    def dealt(found: Distances) -> Distances:
        sines, cosines = found.rows.chunk(2, dim=-1)
        return replace(found, rows=torch.stack([sines, cosines], dim=-1).flatten(-2))

    _each_distance(model, dealt)


# Vectors in the query's place -------------------------------------------------------------------------------------


@patches(
    "transformer-xl.content-bias-dropped",
    "no content bias is added to the queries",
    "The vector u (r_w_bias) meets the contents of all keys. A port to fused attention adds the term of positions to"
    " the scores and forgets this one.",
    applies=_transformer_xl,
)
def content_bias_dropped(model: Model) -> None:
    override_all(model, TransformerXLAttention, attend=SelfAttention.attend)


@patches(
    "transformer-xl.biases-swapped",
    "the content bias and the position bias are swapped",
    "r_w_bias goes with the contents of keys, r_r_bias with their distances.",
    applies=_transformer_xl,
)
def biases_swapped(model: Model) -> None:
    def attend(self: TransformerXLAttention, query: Tensor, *given: Any) -> Tensor:
        moved = query + self.by_head(self.position_bias) - self.by_head(self.content_bias)
        return TransformerXLAttention.attend(self, moved, *given)

    def of_positions(self: TransformerXLAttention, query: Tensor, distances: Distances) -> Tensor:
        moved = query + self.by_head(self.content_bias) - self.by_head(self.position_bias)
        return TransformerXLAttention.of_positions(self, moved, distances)

    override_all(model, TransformerXLAttention, attend=attend, of_positions=of_positions)


@patches(
    "transformer-xl.positions-unscaled",
    "the scale applies to the product of query and key alone, and not to those with distances",
    "The sum of all terms is scaled. Fused attention scales the product, and a bias that it is given must be scaled"
    " already.",
    applies=_transformer_xl,
)
def positions_unscaled(model: Model) -> None:
    def of_positions(self: TransformerXLAttention, query: Tensor, distances: Distances) -> Tensor:
        return TransformerXLAttention.of_positions(self, query, distances) / self.scale

    override_all(model, TransformerXLAttention, of_positions=of_positions)


# Segments ---------------------------------------------------------------------------------------------------------


@patches(
    "transformer-xl.segments-ignored",
    "segments are accepted and not read",
    "Attention compares the segments of query and key. Without them two texts are one.",
    applies=segmented,
)
def segments_ignored(model: Model) -> None:
    def at(self: RelativeSinusoids, x: Tensor, inputs: Call) -> Positioning:
        return RelativeSinusoids.at(self, x, replace(inputs, token_types=None))

    override_all(model, RelativeSinusoids, at=at)


@patches(
    "transformer-xl.segments-swapped",
    "the rows for keys of the same segment and of another one are swapped",
    "Row 0 is for the same segment. A comparison with == where the code has != turns them round.",
    applies=segmented,
)
def segments_swapped(model: Model) -> None:
    def of_segments(self: TransformerXLAttention, query: Tensor, apart: Tensor) -> Tensor:
        return TransformerXLAttention.of_segments(self, query, 1 - apart)

    override_all(model, TransformerXLAttention, of_segments=of_segments)


@patches(
    "transformer-xl.segment-bias-dropped",
    "no segment bias is added to the queries",
    "Segments have a vector of their own in the query's place, r_s_bias, as contents and distances have.",
    applies=segmented,
)
def segment_bias_dropped(model: Model) -> None:
    def of_segments(self: TransformerXLAttention, query: Tensor, apart: Tensor) -> Tensor:
        assert self.segment_bias is not None
        moved = query - self.by_head(self.segment_bias)
        return TransformerXLAttention.of_segments(self, moved, apart)

    for attention in parts(model, TransformerXLAttention):
        override(attention, of_segments=of_segments)


# Two streams ------------------------------------------------------------------------------------------------------


@patches(
    "permutation.query-sees-itself",
    "the query stream sees the content of its own place",
    "The content stream's mask has the diagonal open, the query stream's has it closed. With one mask for both a"
    " token is predicted from itself: training goes well, and nothing is learned.",
    applies=permuted,
)
def query_sees_itself(model: Model) -> None:
    def masked(self: TwoStreamStack, *told: Any) -> tuple[LayerInputs, LayerInputs]:
        content, _ = TwoStreamStack.masked(self, *told)
        return content, content

    override(model.writer, masked=masked)


@patches(
    "permutation.content-hides-itself",
    "the content stream does not see its own place",
    "With the query stream's mask for both, no place in the content stream attends to its own token.",
    applies=permuted,
)
def content_hides_itself(model: Model) -> None:
    def masked(self: TwoStreamStack, *told: Any) -> tuple[LayerInputs, LayerInputs]:
        _, queries = TwoStreamStack.masked(self, *told)
        return queries, queries

    override(model.writer, masked=masked)


@patches(
    "permutation.query-starts-from-token",
    "the query stream starts from the embedding of its token instead of the trained vector",
    "The token that is to be predicted is in its own residual stream from the first layer on. Every place starts from"
    " the same vector (mask_emb).",
    applies=permuted,
)
def query_starts_from_token(model: Model) -> None:
    def started(self: TwoStreamStack, x: Tensor, _inputs: Call) -> Tensor:
        return x

    override(model.writer, started=started)


@patches(
    "permutation.keys-of-query-stream",
    "the query stream attends to itself instead of to the content stream",
    "Its places know no token then, and nothing is predicted from anything but the order.",
    applies=permuted,
)
def keys_of_query_stream(model: Model) -> None:
    def asked(
        self: TwoStreamStack, layer: Layer, queries: Tensor, given: LayerInputs, _content: Tensor
    ) -> Tensor:
        return TwoStreamStack.asked(self, layer, queries, given, queries)

    override(model.writer, asked=asked)


@patches(
    "permutation.order-ignored",
    "the order of prediction is accepted and not read",
    "Everything is seen, and each token is predicted from itself.",
    applies=permuted,
)
def order_ignored(model: Model) -> None:
    override(model.writer, through=Stack.through)
