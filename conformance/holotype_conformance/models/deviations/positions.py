"""Positions: learned, with ids, and relative."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import (
    both,
    has_buckets,
    has_ids,
    has_learned,
    has_source,
    set_otherwise,
)
from holotype_conformance.models.deviations.patching import layers, override, override_all, parts
from holotype_reference.attention import Attention, LayerInputs, Positioning
from holotype_reference.cache import LayerCache
from holotype_reference.cross_attention import CrossAttention
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_reference.model import Model
from holotype_reference.positions.learned import LearnedPositions
from holotype_reference.positions.relative_bias import RelativeBias
from holotype_reference.stack import Layer, Stack
from holotype_spec import schema
from holotype_spec.schema import Spec

# Learned --------------------------------------------------------------------------------------------------------


def _offset(spec: Spec) -> int:
    return spec.position_rows - spec.max_positions if spec.has(schema.LearnedPositions) else 0


@patches(
    "learned.offset-by-one",
    lambda spec: f"position p reads row p + {_offset(spec) + 1} of the position table",
    "Every position is read as the next one. How many rows a table keeps in front of the first"
    " position differs between families. Look at the offset, and at counts that start at 1.",
    applies=has_learned,
)
def learned_offset_by_one(model: Model) -> None:
    def next_row(self: LearnedPositions, positions: Tensor) -> Tensor:
        last = self.num_embeddings - 1 - self.offset
        return LearnedPositions.forward(self, (positions + 1).clamp(max=last))

    override_all(model, LearnedPositions, forward=next_row)


@patches(
    "learned.offset-dropped",
    lambda spec: f"position p reads row p of the position table instead of row p + {_offset(spec)}",
    "The table keeps rows in front of the first position that no position reads. The table is"
    " larger than it seems to need to be, and nothing fails.",
    applies=lambda spec: _offset(spec) > 0,
    reports=("huggingface/transformers#20761", "huggingface/transformers#19240"),
)
def learned_offset_dropped(model: Model) -> None:
    def first_row(self: LearnedPositions, positions: Tensor) -> Tensor:
        return LearnedPositions.forward(self, positions - self.offset)

    override_all(model, LearnedPositions, forward=first_row)


@patches(
    "learned.offset-twice",
    lambda spec: (
        f"position p reads row p + {2 * _offset(spec)} of the position table instead of row p + {_offset(spec)}"
    ),
    "The table and its caller each add the offset. The last positions fall off the table, the"
    " others are wrong in silence.",
    applies=lambda spec: _offset(spec) > 0,
)
def learned_offset_twice(model: Model) -> None:
    def further(self: LearnedPositions, positions: Tensor) -> Tensor:
        last = self.num_embeddings - 1 - self.offset
        return LearnedPositions.forward(self, (positions + self.offset).clamp(max=last))

    override_all(model, LearnedPositions, forward=further)


@patches(
    "learned.dropped",
    "the position embeddings are not added",
    "An encoder is a bag of words then, and a decoder knows the order by its mask alone.",
    applies=has_learned,
)
def learned_dropped(model: Model) -> None:
    override_all(
        model, LearnedPositions, forward=lambda self, p: LearnedPositions.forward(self, p) * 0
    )


@patches(
    "learned.from-the-end",
    "positions are counted from the end of the input",
    "What a position is called depends on how much follows. A batch of one length shows nothing"
    " but a prefix that changes.",
    applies=has_learned,
)
def from_the_end(model: Model) -> None:
    def counted_back(self: Model, inputs: Call, cached: int) -> Tensor:
        positions = Model.positions(self, inputs, cached)
        return positions if inputs.position_ids is not None else positions.flip(-1)

    override(model, positions=counted_back)


# Ids ------------------------------------------------------------------------------------------------------------


@patches(
    "positions.ids-ignored",
    "position ids are accepted and not read",
    "Left-padded batches and packed documents get the positions of their slots. Look for an"
    " argument that is not handed on.",
    applies=has_ids,
    reports=("huggingface/transformers#22161",),
)
def ids_ignored(model: Model) -> None:
    override(
        model,
        positions=lambda self, inputs, cached: Model.positions(
            self, replace(inputs, position_ids=None), cached
        ),
    )


@patches(
    "positions.ids-from-one",
    "position ids are taken to count from 1",
    "Whoever gives ids that begin at 0 gets two tokens at the first position. Without ids all is"
    " well.",
    applies=has_ids,
)
def ids_from_one(model: Model) -> None:
    def shifted(self: Model, inputs: Call, cached: int) -> Tensor:
        told = inputs.position_ids
        told = None if told is None else (told - 1).clamp(min=0)
        return Model.positions(self, replace(inputs, position_ids=told), cached)

    override(model, positions=shifted)


@patches(
    "positions.ids-of-first-row",
    "the position ids of the first row are used for every row",
    "Right for a batch of one and for rows that are padded alike.",
    applies=has_ids,
)
def ids_of_first_row(model: Model) -> None:
    def first(self: Model, inputs: Call, cached: int) -> Tensor:
        told = None if inputs.position_ids is None else inputs.position_ids[:1]
        return Model.positions(self, replace(inputs, position_ids=told), cached)

    override(model, positions=first)


# Relative -------------------------------------------------------------------------------------------------------


def _buckets(spec: Spec) -> schema.RelativeBuckets:
    positions = spec.architecture.positions
    assert isinstance(positions, schema.RelativeBuckets)
    return positions


@patches(
    "relative.reversed",
    "relative positions have the wrong sign: query minus key instead of key minus query",
    "The encoder takes what is ahead for what is behind; in the decoder all earlier keys fall"
    " into one bucket.",
    applies=has_buckets,
)
def relative_reversed(model: Model) -> None:
    override_all(model, RelativeBias, bucket=lambda self, gap: RelativeBias.bucket(self, -gap))


@patches(
    "relative.decoder-bidirectional",
    "the decoder keeps half of its distance buckets for later keys, as the encoder does",
    "The decoder's distances are half as fine, and its other buckets are never read. Short inputs"
    " hide it: both agree at small distances.",
    applies=both(has_buckets, has_source),
)
def decoder_bidirectional(model: Model) -> None:
    for table in parts(model.decoder, RelativeBias):
        table.bidirectional = True


@patches(
    "relative.encoder-one-way",
    "the encoder's distance buckets all look back, as the decoder's do",
    "All later keys fall into one bucket, and the encoder does not know how far ahead they are.",
    applies=both(has_buckets, has_source),
)
def encoder_one_way(model: Model) -> None:
    for table in parts(model.encoder, RelativeBias):
        table.bidirectional = False


@patches(
    "relative.first-layer-only",
    "the relative bias is added in the first layer only",
    "The table belongs to the first layer in the published weights, and all layers of the stack"
    " use it. Look at whether the bias is handed from layer to layer.",
    applies=has_buckets,
)
def relative_first_layer_only(model: Model) -> None:
    for stack in parts(model, Stack):
        for layer in list(layers(stack))[1:]:
            override(layer, forward=_unbiased)


def _unbiased(layer: Layer, x: Tensor, given: LayerInputs, cache: LayerCache | None) -> Tensor:
    return Layer.forward(layer, x, replace(given, positions=Positioning()), cache)


def _wider(spec: Spec) -> str:
    own = _buckets(spec).max_distance
    return f"the last distance bucket begins at {2 * own} instead of {own}"


@respecifies(
    "relative.max-distance-doubled",
    _wider,
    "The wide buckets are wider than in training. Distances with a bucket of their own agree, so"
    " short inputs hide it.",
    applies=has_buckets,
)
def max_distance_doubled(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.max_distance", 2 * _buckets(spec).max_distance)


@patches(
    "relative.linear-buckets",
    "each distance has a bucket of its own, and all too far ones share the last",
    "The far half of the buckets widens logarithmically in the published model. Short inputs hide"
    " it.",
    applies=has_buckets,
)
def linear_buckets(model: Model) -> None:
    override_all(model, RelativeBias, count_starts=lambda self, gap, n: gap.clamp(max=n - 1))


@patches(
    "relative.dropped",
    "no relative bias is added",
    "Nothing tells the order of the tokens but the causal mask.",
    applies=has_buckets,
)
def relative_dropped(model: Model) -> None:
    override_all(
        model, RelativeBias, forward=lambda self, i, j: RelativeBias.forward(self, i, j) * 0
    )


@patches(
    "relative.added-to-cross",
    "the relative bias is added in cross-attention too",
    "A place in the source has no distance to a place in the output. Early ports did it, and"
    " their numbers were close.",
    applies=both(has_buckets, has_source),
    reports=("huggingface/transformers#8518", "guillaume-be/rust-bert#171"),
)
def added_to_cross(model: Model) -> None:
    table = model.decoder.relative_bias
    assert isinstance(table, RelativeBias)

    def attend(
        self: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: None
    ) -> Tensor:
        queries, keys = (torch.arange(x.shape[2], device=x.device) for x in (query, key))
        return Attention.attend(self, query, key, value, mask, table(queries, keys))

    override_all(model, CrossAttention, attend=attend)
