"""Visible prefixes, the masks of a mixture, two positions a token, and the scaled residual of deep-norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import (
    deep_norm,
    has_mixture,
    has_prefix,
    has_two_positions,
    having,
    set_otherwise,
)
from holotype_conformance.models.deviations.patching import (
    ahead,
    override,
    override_all,
    parts,
    real_keys,
    redraw_masks,
)
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask, Prefix
from holotype_reference.model import Model, Output
from holotype_reference.positions.rotary import Rotary, Turns
from holotype_reference.positions.two_dimensional import TwoDimensionalRotary
from holotype_reference.stack import Layer
from holotype_spec import schema
from holotype_spec.schema import Spec

_rotates_two_positions = having(schema.TwoDimensionalRotary)

# Prefixes -------------------------------------------------------------------------------------------------------


def _prefixed(model: Model, rule: Callable[[Mask], Prefix]) -> None:
    """Another prefix than the one that was said, wherever there is one."""
    redraw_masks(
        model.writer,
        lambda mask: replace(mask, prefix=rule(mask)).visible if mask.prefix else mask.visible,
    )


def _lengthened(mask: Mask, more: int) -> Prefix:
    def longer(prefix: int) -> int:
        return min(max(prefix + more, 0), mask.keys) if prefix else 0

    told = mask.prefix
    return longer(told) if isinstance(told, int) else tuple(map(longer, told))


@patches(
    "prefix.causal",
    "the visible prefix is causal: none of its tokens sees a later one",
    "The model reads its prompt from left to right, as a GPT does, and not from both sides, as it was"
    " trained to. It still answers, and worse. Look for a causal flag of the kernel, a helper that makes the"
    " mask of every decoder, and a prefix that is accepted and not handed on.",
    applies=has_prefix,
)
def prefix_causal(model: Model) -> None:
    _prefixed(model, lambda mask: 0)


@patches(
    "prefix.untold",
    "no prefix is known, neither to the mask nor to the positions: all is read from left to right and counts on",
    "A plain causal decoder under these weights. Whoever calls it can give no prefix, or it is not handed on: a"
    " candidate is told it as `prefix_lengths`, or reads `inputs.prefix` in a `forward` of its own.",
    applies=has_two_positions,
)
def untold(model: Model) -> None:
    def forward(
        self: Model, token_ids: Tensor, *, prefix: Prefix | None = None, **told: Any
    ) -> Output:
        return Model.forward(self, token_ids, **told)

    override(model, forward=forward)


@patches(
    "prefix.one-longer",
    "the visible prefix reaches one token further than it is said to",
    "The first token behind the prefix, the start of what is to be written, is seen by the text before"
    " it. In training it and its successor leak. Look at whether the prefix counts the start token.",
    applies=has_prefix,
)
def one_longer(model: Model) -> None:
    _prefixed(model, lambda mask: _lengthened(mask, 1))


@patches(
    "prefix.one-shorter",
    "the last token of the visible prefix is not part of it",
    "The tokens before it do not see it. It is often the very mask that is to be filled in. Look at <"
    " against <=, and at a length that was made an index.",
    applies=has_prefix,
)
def one_shorter(model: Model) -> None:
    _prefixed(model, lambda mask: _lengthened(mask, -1))


@patches(
    "prefix.sees-all",
    "a token of the visible prefix sees everything, and nothing but that is added to the causal mask",
    "The rows of the prefix are opened instead of its columns: the text sees what is to be written, and"
    " training leaks. Look at the axis: a prefix is keys that all queries see.",
    applies=has_prefix,
)
def sees_all(model: Model) -> None:
    redraw_masks(model.writer, _rows_opened)


def _rows_opened(mask: Mask) -> Tensor:
    if mask.prefix == 0:
        return mask.visible
    prefixes = (mask.prefix,) if isinstance(mask.prefix, int) else mask.prefix
    place = torch.arange(mask.queries, device=mask.device)[:, None] + mask.cached
    within = place < torch.tensor(prefixes, device=mask.device)[:, None, None, None]
    return replace(mask, prefix=0).visible | (within & real_keys(mask))


@patches(
    "prefix.of-first-row",
    "the visible prefix of the first row is used for every row",
    "Right for a batch of one, and for prompts of one length. Look for a mask that is built once and broadcast over"
    " the batch.",
    applies=has_prefix,
)
def of_first_row(model: Model) -> None:
    _prefixed(model, lambda mask: mask.prefix if isinstance(mask.prefix, int) else mask.prefix[0])


@patches(
    "prefix.padding-not-counted",
    "the visible prefix is counted from the first place, though padding stands there",
    "Under left padding the prefix ends too early by as much as was padded. Without padding nothing"
    " shows. Add the padding of each row to the length of its prompt.",
    applies=has_prefix,
)
def padding_not_counted(model: Model) -> None:
    _prefixed(model, _without_padding)


def _without_padding(mask: Mask) -> Prefix:
    if mask.padding is None:
        return mask.prefix
    before = (mask.padding.cumsum(-1) == 0).sum(-1).tolist()
    told = (mask.prefix,) * len(before) if isinstance(mask.prefix, int) else mask.prefix
    return tuple(max(prefix - pads, 0) for prefix, pads in zip(told, before, strict=True))


# The masks of a mixture -----------------------------------------------------------------------------------------


@patches(
    "mixture.bidirectional",
    "everything is seen, whichever mask of the mixture was asked for",
    "A class for BERT loads the weights, is given no mask of its own and shows all to all: right for"
    " understanding a text, and useless for writing one. Hand it the whole mask, a row for each query.",
    applies=has_mixture,
)
def always_bidirectional(model: Model) -> None:
    redraw_masks(model.writer, real_keys)


@patches(
    "mixture.directions-exchanged",
    "left to right and right to left are exchanged",
    "Each token sees itself and what follows when it should see what came before, and the other way"
    " round. Look at tril against triu, and at which axis holds the queries.",
    applies=has_mixture,
)
def directions_exchanged(model: Model) -> None:
    redraw_masks(model.writer, _turned_round)


def _turned_round(mask: Mask) -> Tensor:
    before, after = mask.reach
    segmented = mask.prefix if isinstance(mask.prefix, int) else any(mask.prefix)
    if (before is None and after is None) or segmented:
        return mask.visible
    seen = ahead(mask) >= 0 if after == 0 else ahead(mask) <= 0
    return seen & real_keys(mask)


# Two positions --------------------------------------------------------------------------------------------------

Places = Callable[[Model, Tensor, bool, int], Tensor]


def _placed(model: Model, rule: Places) -> None:
    """Change the positions (batch or 1, 2, length); the rule is told whether they were given, and what is cached."""

    def positions(self: Model, inputs: Call, cached: int) -> Tensor:
        found = Model.positions(self, inputs, cached)
        return rule(self, found, inputs.position_ids is not None, cached)

    override(model, positions=positions)


@patches(
    "two-positions.second-dropped",
    "the place within a span is 0 for every token",
    "All tokens of a span stand at the place of its mask, and nothing tells their order but the causal"
    " mask. Position ids that are not given are a usual cause: counting gives but one a token.",
    applies=has_two_positions,
)
def second_dropped(model: Model) -> None:
    def rule(_: Model, found: Tensor, told: bool, cached: int) -> Tensor:
        return torch.stack([found[:, 0], 0 * found[:, 1]], dim=1)

    _placed(model, rule)


@patches(
    "two-positions.exchanged",
    "the place in the text and the place within the span are exchanged",
    "Tables, or halves of a head, of one size take each other's positions without a complaint. Look at the order of"
    " the pair.",
    applies=has_two_positions,
)
def exchanged(model: Model) -> None:
    _placed(model, lambda self, found, told, cached: found.flip(1))


@patches(
    "two-positions.span-counts-on",
    "what stands behind the prefix has places of its own in the text, instead of that of the mask which it fills in",
    "The model takes what it writes for a continuation of the text behind the mask. Prompts that are read"
    " alone show nothing. Positions that are given are right.",
    applies=has_two_positions,
)
def span_counts_on(model: Model) -> None:
    def rule(self: Model, found: Tensor, told: bool, cached: int) -> Tensor:
        count = torch.arange(cached, cached + found.shape[-1], device=found.device)
        first = found[:, 0] if told else count.expand_as(found[:, 0])
        return torch.stack([first, found[:, 1]], dim=1)

    _placed(model, rule)


@patches(
    "two-positions.span-from-zero",
    "the tokens of a span are counted from 0 instead of 1",
    "The first token of a span gets the 0 of the text. Positions that are given are right. The start token has"
    " place 1 within its span.",
    applies=has_two_positions,
)
def span_from_zero(model: Model) -> None:
    def rule(self: Model, found: Tensor, told: bool, cached: int) -> Tensor:
        second = found[:, 1] if told else (found[:, 1] - 1).clamp(min=0)
        return torch.stack([found[:, 0], second], dim=1)

    _placed(model, rule)


@patches(
    "two-positions.whole-head",
    "the whole head turns by the first position, and the second one turns nothing",
    "The rotation of other families, which have one position a token. Its frequencies are those of a whole head too."
    " Look for an implementation that was copied from one of them.",
    applies=_rotates_two_positions,
)
def whole_head(model: Model) -> None:
    def turns(self: TwoDimensionalRotary, at: Tensor, dtype: torch.dtype) -> Turns:
        return Rotary.turns(self, at[:, 0], dtype)

    override_all(
        model,
        TwoDimensionalRotary,
        frequencies=Rotary.frequencies,
        turns=turns,
    )
    _pair(model, "(two pair)")


@patches(
    "two-positions.frequencies",
    lambda spec: (
        f"pair i of each half turns by theta^(-2i / {spec.head_dim}) instead of theta^(-2i / {spec.head_dim // 2})"
    ),
    "Each half of a head is a rotation of its own, with all frequencies from the fastest to the slowest. With those of"
    " a whole head it has the faster half of them twice.",
    applies=_rotates_two_positions,
)
def frequencies_of_whole_head(model: Model) -> None:
    def frequencies(self: TwoDimensionalRotary, like: Tensor) -> Tensor:
        whole = Rotary.frequencies(self, like)
        return whole[: len(whole) // 2]

    override_all(model, TwoDimensionalRotary, frequencies=frequencies)


@patches(
    "two-positions.interleaved",
    "neighbouring dimensions of a head are a pair, instead of those a quarter of the head apart",
    "Dimensions turn with other partners than in training. Permute the query and key matrices, or pair as the weights"
    " do.",
    applies=_rotates_two_positions,
)
def interleaved(model: Model) -> None:
    _pair(model, "(pair two)")


def _pair(model: Model, layout: str) -> None:
    """The dimensions of a whole head that turn together."""
    for rotary in parts(model, TwoDimensionalRotary):
        rotary.layout, rotary.pairs, rotary.axes = layout, "pair", {"two": 2}


# Deep-norm ------------------------------------------------------------------------------------------------------


def _factor(spec: Spec) -> str:
    return f"√{2 * spec.layers}"


@respecifies(
    "deep-norm.unscaled",
    lambda spec: f"the residual is added as it is instead of multiplied by {_factor(spec)}",
    "Deep-norm without its factor is post-norm: the parameters are the same, and everything loads. Each"
    " block then counts for far more than in training.",
    applies=deep_norm,
)
def unscaled_residual(spec: Spec) -> Spec:
    return set_otherwise(spec, "residual", "post-norm")


@patches(
    "deep-norm.fourth-root",
    lambda spec: (
        f"the residual is multiplied by the fourth root of {2 * spec.layers} instead of {_factor(spec)}"
    ),
    "The fourth root of twice the layers is the factor of the DeepNet paper for decoders. This family took the square"
    " root, as its own paper says.",
    applies=deep_norm,
)
def fourth_root(model: Model) -> None:
    for layer in model.modules():
        if isinstance(layer, Layer):
            layer.alpha = layer.alpha**0.5


@patches(
    "deep-norm.block-scaled",
    lambda spec: f"what a block adds is multiplied by {_factor(spec)}, instead of the residual",
    "The factor makes the stream larger, so that each block changes little of it. On the block it does the opposite.",
    applies=deep_norm,
)
def block_scaled(model: Model) -> None:
    def add(
        layer: Layer, x: Tensor, block: Callable[[Tensor], Tensor], its_norm: nn.Module
    ) -> Tensor:
        y: Tensor = its_norm(x + layer.alpha * layer.dropout(block(x)))
        return y

    override_all(model, Layer, add=add)
