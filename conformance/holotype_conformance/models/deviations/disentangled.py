"""DeBERTa's mistakes: contents that meet distances, and the head that learns absolute positions at last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import having, set_otherwise
from holotype_conformance.models.deviations.patching import override, override_all, parts
from holotype_reference.basics import Linear
from holotype_reference.mask_decoder import EnhancedMaskDecoder
from holotype_reference.model import Model
from holotype_reference.positions.disentangled import DisentangledAttention, RelativeRows
from holotype_reference.positions.distances import Distances
from holotype_reference.stack import Stack
from holotype_spec import schema
from holotype_spec.schema import Spec

_decodes_masks = having(schema.EnhancedMaskDecoder)
_disentangled = having(schema.Disentangled)

LayerCall = Callable[[Tensor], Tensor]

# Rows of distances ------------------------------------------------------------------------------------------------


def _each_index(model: Model, change: Callable[[Tensor, int], Tensor]) -> None:
    """Replace which row (queries, keys) each distance has, of a table of so many."""

    def distances(self: RelativeRows, queries: Tensor, keys: Tensor, like: Tensor) -> Distances:
        found = RelativeRows.distances(self, queries, keys, like)
        return replace(found, index=change(found.index, found.rows.shape[1]))

    override_all(model, RelativeRows, distances=distances)


def _opposite(index: Tensor, rows: int) -> Tensor:
    """The row of j - i where there is that of i - j."""
    return (rows - index).clamp(max=rows - 1)


@patches(
    "disentangled.distances-negated",
    "distances are counted from the query to the key, j - i instead of i - j",
    "What stands before a token is taken for what stands behind it. The first rows belong to keys far behind the"
    " query in the text, the last to keys far before it.",
    applies=_disentangled,
)
def distances_negated(model: Model) -> None:
    _each_index(model, _opposite)


@patches(
    "disentangled.one-off",
    "each distance has the row before its own",
    "The row of distance 0 is that in the middle, k of 2 k counted from 0.",
    applies=_disentangled,
)
def one_off(model: Model) -> None:
    _each_index(model, lambda index, _rows: (index - 1).clamp(min=0))


@patches(
    "disentangled.rows-normalised",
    "the rows of distances pass a norm before they are projected",
    "DeBERTa v2 normalises its table (norm_rel_ebd), v1 does not.",
    applies=_disentangled,
)
def rows_normalised(model: Model) -> None:
    eps = model.spec.architecture.normalization.eps

    def distances(self: RelativeRows, queries: Tensor, keys: Tensor, like: Tensor) -> Distances:
        found = RelativeRows.distances(self, queries, keys, like)
        return replace(found, rows=F.layer_norm(found.rows, found.rows.shape[-1:], eps=eps))

    override_all(model, RelativeRows, distances=distances)


# Terms ------------------------------------------------------------------------------------------------------------


@patches(
    "disentangled.p2c-opposite",
    "position-to-content has the row of the opposite distance, as in the paper's formula",
    "The release gathers by the negated distance and then transposes, which is the distance again: both terms have"
    " the same row. Ported without the transpose, or written from the paper, every score off the diagonal is wrong.",
    applies=_disentangled,
    reports=("nntrainer/nntrainer#3982", "microsoft/DeBERTa#162"),
)
def position_to_content_opposite(model: Model) -> None:
    def opposite(
        self: DisentangledAttention, key: Tensor, rows: Tensor, found: Distances
    ) -> Tensor:
        turned = replace(found, index=_opposite(found.index, rows.shape[1]))
        return DisentangledAttention.position_to_content(self, key, rows, turned)

    override_all(model, DisentangledAttention, position_to_content=opposite)


@patches(
    "disentangled.projections-swapped",
    "the projections of position keys and position queries are swapped",
    "Queries meet the rows as queries of positions, and keys as keys. Look at which of pos_proj and pos_q_proj is"
    " which.",
    applies=_disentangled,
)
def projections_swapped(model: Model) -> None:
    for attention in parts(model, DisentangledAttention):
        key, query = attention.position_key, attention.position_query
        if key is not None and query is not None:
            override(key, forward=lambda self, x, other=query: Linear.forward(other, x))
            override(query, forward=lambda self, x, other=key: Linear.forward(other, x))


def _without(model: Model, term: str) -> None:
    def nothing(self: DisentangledAttention, x: Tensor, rows: Tensor, found: Distances) -> Tensor:
        of_class: Tensor = getattr(DisentangledAttention, term)(self, x, rows, found)
        return of_class * 0

    override_all(model, DisentangledAttention, **{term: nothing})


@patches(
    "disentangled.c2p-dropped",
    "no score has the product of a query and a distance",
    "One of three terms is missing; the scale still counts it.",
    applies=_disentangled,
)
def content_to_position_dropped(model: Model) -> None:
    _without(model, "content_to_position")


@patches(
    "disentangled.p2c-dropped",
    "no score has the product of a key and a distance",
    "One of three terms is missing; the scale still counts it. A configuration spells the terms as one string or as"
    " a list, and a test for membership takes either.",
    applies=_disentangled,
)
def position_to_content_dropped(model: Model) -> None:
    _without(model, "position_to_content")


@patches(
    "disentangled.position-bias-dropped",
    "the bias of position queries is not added",
    "Position queries have a bias and position keys have none.",
    applies=_disentangled,
)
def position_bias_dropped(model: Model) -> None:
    for attention in parts(model, DisentangledAttention):
        if attention.position_query is not None:
            override(attention.position_query, forward=lambda self, x: x @ self.weight.T)


# The scale --------------------------------------------------------------------------------------------------------


def _counts_terms(spec: Spec) -> bool:
    return spec.architecture.attention.scale == "inverse-sqrt-three-head-dims"


@respecifies(
    "disentangled.scale-of-one-term",
    lambda spec: f"scores are scaled by 1/√{spec.head_dim} instead of 1/√(3 · {spec.head_dim})",
    "The sum of three products has three times the variance of one, and the scale says so. Fused attention scales"
    " by 1/√head_dim unless it is told otherwise.",
    applies=_counts_terms,
)
def scale_of_one_term(spec: Spec) -> Spec:
    return set_otherwise(spec, "attention.scale", "inverse-sqrt-head-dim")


@patches(
    "disentangled.positions-unscaled",
    "the scale applies to the product of query and key alone, and not to those with distances",
    "The two terms with distances are added to scores that are already scaled. All three are scaled alike.",
    applies=_disentangled,
)
def positions_unscaled(model: Model) -> None:
    for term in ("content_to_position", "position_to_content"):
        override_all(model, DisentangledAttention, **{term: _unscaled(term)})


def _unscaled(term: str) -> Callable[..., Tensor]:
    def unscaled(self: DisentangledAttention, x: Tensor, rows: Tensor, found: Distances) -> Tensor:
        scaled: Tensor = getattr(DisentangledAttention, term)(self, x, rows, found)
        return scaled / self.scale

    return unscaled


# The enhanced mask decoder ----------------------------------------------------------------------------------------


@patches(
    "head.mask-decoder-dropped",
    "the head reads the last layer, without the enhanced mask decoder",
    "An encoder with the head of a masked language model on top. Absolute positions are nowhere then, and what the"
    " published model fills in for a mask is lost.",
    applies=_decodes_masks,
    reports=("huggingface/transformers#22790", "microsoft/DeBERTa#99"),
)
def mask_decoder_dropped(model: Model) -> None:
    override(model.writer, through=Stack.through)


@respecifies(
    "head.mask-decoder-one-pass",
    lambda spec: f"the mask decoder runs once instead of {_passes(spec)} times",
    "The last layer runs over its own result again, as often as the spec says.",
    applies=lambda spec: _passes(spec) > 1,
)
def mask_decoder_one_pass(spec: Spec) -> Spec:
    return set_otherwise(spec, "head.passes", 1)


def _passes(spec: Spec) -> int:
    head = spec.architecture.head
    return head.passes if isinstance(head, schema.EnhancedMaskDecoder) else 0


@patches(
    "head.mask-decoder-without-positions",
    "the mask decoder adds no absolute positions",
    "The rows of positions are in the checkpoint beside the embeddings, which do not use them.",
    applies=_decodes_masks,
)
def mask_decoder_without_positions(model: Model) -> None:
    for head in parts(model, EnhancedMaskDecoder):
        override(head.position, forward=lambda self, positions: self.weight[positions] * 0)


@patches(
    "head.mask-decoder-moved-twice",
    "the mask decoder adds absolute positions in front of every pass",
    "They are added once, in front of the first pass.",
    applies=lambda spec: _passes(spec) > 1,
)
def mask_decoder_adds_positions_again(model: Model) -> None:
    def decode(self: EnhancedMaskDecoder, x: Tensor, layer: LayerCall, positions: Tensor) -> Tensor:
        states = x
        for _ in range(self.passes):
            states = layer(states + self.position(positions))
        return states

    override_all(model, EnhancedMaskDecoder, decode=decode)


@patches(
    "head.mask-decoder-keys-follow",
    "in the mask decoder keys and values come from the pass before, as queries do",
    "It is the last layer run again as it is. Only queries, and what the blocks are added to, come from the pass"
    " before: keys and values stay those of the layer below.",
    applies=_decodes_masks,
)
def mask_decoder_keys_follow(model: Model) -> None:
    def decode(self: EnhancedMaskDecoder, x: Tensor, layer: LayerCall, positions: Tensor) -> Tensor:
        states: Tensor = x + self.position(positions)
        for _ in range(self.passes):
            states = layer(states, memory=states)  # type: ignore[call-arg]
        return states

    override_all(model, EnhancedMaskDecoder, decode=decode)


@patches(
    "head.mask-decoder-on-top",
    "the mask decoder runs over the states of the last layer instead of those below it",
    "A list of hidden states begins with the embeddings or does not, and its last entry but one is meant.",
    applies=_decodes_masks,
)
def mask_decoder_on_top(model: Model) -> None:
    def decode(self: EnhancedMaskDecoder, x: Tensor, layer: LayerCall, positions: Tensor) -> Tensor:
        top = layer(x)
        states: Tensor = top + self.position(positions)
        for _ in range(self.passes):
            states = layer(states, memory=top)  # type: ignore[call-arg]
        return states

    override_all(model, EnhancedMaskDecoder, decode=decode)
