"""Masks: which keys a query sees."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import (
    decodes,
    encodes,
    has_source,
    has_window,
    set_otherwise,
)
from holotype_conformance.models.deviations.patching import (
    ahead,
    allowed,
    layers,
    override,
    parts,
    real_keys,
    redraw,
    redraw_masks,
    redraw_source_masks,
    softmax_by,
    weigh,
    wide,
)
from holotype_reference.attention import LayerInputs
from holotype_reference.cache import LayerCache
from holotype_reference.masks import Mask
from holotype_reference.model import Model
from holotype_reference.stack import Layer, Stack
from holotype_spec import schema
from holotype_spec.schema import Spec

SOURCE_READ = 8  # tokens of a source, of which a short one has as many

# The pattern ----------------------------------------------------------------------------------------------------


@patches(
    "mask.one-ahead",
    "each position also sees the next one: the diagonal of the causal mask is off by one",
    "The model reads the token that it is to predict. Training loss falls far below what is"
    " possible, and generation, where there is no next token, is bad. Look at the `diagonal` of"
    " tril or triu and at < against <=.",
    applies=decodes,
)
def one_ahead(model: Model) -> None:
    redraw_masks(model.writer, _up_to_next)


def _up_to_next(mask: Mask) -> Tensor:
    near = ahead(mask) == 1
    return (allowed(mask) | near) & real_keys(mask)


@patches(
    "mask.hides-self",
    "no position sees itself: the diagonal of the causal mask is masked too",
    "Each position attends to its predecessors only, and the first one to nothing. Loss is a"
    " little worse, which nothing else explains. Look at the `diagonal` of tril or triu and at <"
    " against <=.",
    applies=decodes,
)
def hides_self(model: Model) -> None:
    redraw_masks(model.writer, lambda mask: mask.visible & (ahead(mask) != 0))


@patches(
    "mask.dropped",
    "the decoder's attention is bidirectional: there is no causal mask",
    "Every position sees the whole input, its future included. Training loss goes to zero and"
    " generation is bad. Kernels that are given no mask apply none; look at what is passed as"
    " `attn_mask` and `is_causal`.",
    applies=decodes,
    reports=("lablup/mlxcel#999", "osaurus-ai/vmlx-swift#185"),
)
def dropped(model: Model) -> None:
    redraw_masks(model.writer, real_keys)


@patches(
    "mask.first-layer-only",
    "the causal mask reaches the first layer only",
    "The first layer is causal, all others see the future. A test with one layer passes. Look at"
    " what is handed from layer to layer, and at a mask that is consumed or rebound in the loop.",
    applies=decodes,
)
def first_layer_only(model: Model) -> None:
    for layer in list(layers(model.writer))[1:]:
        override(layer, forward=_without_pattern)


def _without_pattern(
    layer: Layer, x: Tensor, given: LayerInputs, cache: LayerCache | None
) -> Tensor:
    return Layer.forward(layer, x, replace(given, mask=redraw(given.mask, real_keys)), cache)


@patches(
    "mask.encoder-causal",
    "the encoder is causal: no position sees a later one",
    "The encoder is blind to the right. It still trains, and is worse. A kernel's `is_causal`"
    " flag, or a helper that adds the causal mask for every model, is the usual cause.",
    applies=encodes,
    reports=("huggingface/transformers#42820", "huggingface/transformers#46077"),
)
def encoder_causal(model: Model) -> None:
    redraw_masks(model.encoder, _backward)


def _backward(mask: Mask) -> Tensor:
    return mask.visible & (ahead(mask) <= 0)


@patches(
    "mask.encoder-causal-without-mask",
    "the encoder is causal whenever no attention mask is given",
    "With a padding mask all is well; without one a kernel is told `is_causal`. A batch without"
    " padding then gives other results than the same batch with a mask of ones. Look at the branch"
    " on `attention_mask is None`.",
    applies=encodes,
)
def encoder_causal_without_mask(model: Model) -> None:
    redraw_masks(
        model.encoder, lambda mask: _backward(mask) if mask.padding is None else mask.visible
    )


@patches(
    "mask.dropped-without-padding",
    "there is no causal mask whenever no attention mask is given",
    "The causal mask is left to a kernel that is not told, or to a mask that only padding makes. A"
    " batch with a mask of ones is right. Look at the branch on `attention_mask is None`.",
    applies=decodes,
    reports=("huggingface/transformers#48770",),
)
def dropped_without_padding(model: Model) -> None:
    redraw_masks(
        model.decoder, lambda mask: real_keys(mask) if mask.padding is None else mask.visible
    )


# The window -----------------------------------------------------------------------------------------------------


def _window(spec: Spec) -> int:
    pattern = spec.architecture.attention.pattern
    assert isinstance(pattern, schema.SlidingWindow)
    return pattern.window


def _with_pattern(spec: Spec, pattern: schema.Pattern) -> Spec:
    return set_otherwise(spec, "attention.pattern", pattern)


@respecifies(
    "window.one-wider",
    lambda spec: f"the sliding window is {_window(spec) + 1} instead of {_window(spec)}",
    "Each position sees one key too many. Nothing shows on inputs shorter than the window. The"
    " window counts the position itself: the oldest key is i - window + 1. Look at <= against <.",
    applies=has_window,
    reports=(
        "huggingface/transformers#26792",
        "huggingface/transformers#39408",
        "huggingface/transformers#29623",
        "vllm-project/vllm#3385",
    ),
)
def one_wider(spec: Spec) -> Spec:
    return _with_pattern(spec, schema.SlidingWindow(window=_window(spec) + 1))


@respecifies(
    "window.one-narrower",
    lambda spec: f"the sliding window is {_window(spec) - 1} instead of {_window(spec)}",
    "Each position sees one key too few. Nothing shows on inputs shorter than the window. Kernels"
    " that take a (left, right) pair count the keys before the position: they want window - 1;"
    " look at what is subtracted twice.",
    applies=has_window,
)
def one_narrower(spec: Spec) -> Spec:
    return _with_pattern(spec, schema.SlidingWindow(window=_window(spec) - 1))


@respecifies(
    "window.dropped",
    lambda spec: f"there is no sliding window instead of one of {_window(spec)}",
    "All earlier keys are seen. Nothing shows on inputs shorter than the window; beyond it the"
    " model does what it was not trained for. Some kernels take no window and are told none: look"
    " at every path.",
    applies=has_window,
    reports=("unslothai/unsloth#8253",),
)
def window_dropped(spec: Spec) -> Spec:
    return _with_pattern(spec, schema.Causal())


# Padding --------------------------------------------------------------------------------------------------------


@patches(
    "mask.padding-ignored",
    "the padding mask is ignored",
    "Padding is attended to as if it were text: a row's result depends on what it is batched"
    " with. Look for a mask that is accepted and not handed on, or that a kernel's fast path"
    " leaves out.",
    reports=("pytorch/pytorch#97111", "yg211/bert_nli#3"),
)
def padding_ignored(model: Model) -> None:
    for stack in parts(model, Stack):
        redraw_masks(stack, allowed)


@patches(
    "mask.padding-first-layer-only",
    "the padding mask reaches the first layer only",
    "Later layers attend to padding. With one layer nothing shows. Look at what is handed from"
    " layer to layer.",
)
def padding_first_layer_only(model: Model) -> None:
    for stack in parts(model, Stack):
        for layer in list(layers(stack))[1:]:
            override(layer, forward=_without_padding)


def _without_padding(
    layer: Layer, x: Tensor, given: LayerInputs, cache: LayerCache | None
) -> Tensor:
    return Layer.forward(layer, x, replace(given, mask=redraw(given.mask, allowed)), cache)


@patches(
    "mask.padding-along-queries",
    "the padding mask is broadcast along the queries instead of the keys",
    "Padded queries see nothing, and real ones see the padding: the outputs at padding, which"
    " nobody reads, are all that is masked. Look at the axis that is added to the mask: it is"
    " (batch, 1, 1, keys).",
    reports=("hyunwoongko/transformer#40",),
)
def padding_along_queries(model: Model) -> None:
    for stack in parts(model, Stack):
        redraw_masks(stack, _real_queries)


def _real_queries(mask: Mask) -> Tensor:
    if mask.padding is None:
        return mask.visible
    queries = mask.padding[:, -mask.queries :]
    return allowed(mask) & rearrange(queries, "batch queries -> batch 1 queries 1")


@patches(
    "mask.padding-replaces-causal",
    "a padding mask replaces the causal mask instead of joining it",
    "Without a mask the model is causal; given one, even of ones, it sees the future. Look for"
    " `mask if mask is not None else causal`.",
    applies=decodes,
    reports=("unslothai/unsloth-zoo#963",),
)
def padding_replaces_causal(model: Model) -> None:
    redraw_masks(
        model.writer, lambda mask: mask.visible if mask.padding is None else real_keys(mask)
    )


@patches(
    "mask.padding-of-first-row",
    "the padding mask of the first row is used for every row",
    "Right for a batch of one, and for rows of one length. Look for an index 0 or a broadcast"
    " over the batch.",
)
def padding_of_first_row(model: Model) -> None:
    for stack in parts(model, Stack):
        redraw_masks(stack, lambda mask: allowed(mask) & real_keys(mask)[:1])


@patches(
    "mask.padding-added",
    "the padding mask is added to the scores as zeros and ones",
    "Real keys gain one, padding keeps its score and is attended to almost as before. A mask that"
    " is added must be 0 and -inf, or the lowest finite number.",
    reports=("NVlabs/WarpConvNet#26", "mlverse/torch#1208"),
)
def padding_added(model: Model) -> None:
    weigh(model, softmax_by(_added))


def _added(scores: Tensor, mask: Mask) -> Tensor:
    scores = wide(scores) + real_keys(mask).to(scores.dtype)
    return scores.masked_fill(~allowed(mask), torch.finfo(scores.dtype).min).softmax(dim=-1)


@patches(
    "mask.nan-rows",
    "a query that sees no key gets NaN: its scores are all -inf",
    "A softmax over -inf alone is 0/0. Under left padding the first queries see nothing, their"
    " NaN enters the keys of the next layer, and 0 · NaN poisons every row and every gradient."
    " Mask with the lowest finite number, or set such rows to zero and keep them out of the"
    " softmax.",
    reports=("pytorch/pytorch#103749", "ml-explore/mlx#2395"),
)
def nan_rows(model: Model) -> None:
    weigh(model, softmax_by(_unsafe))


def _unsafe(scores: Tensor, mask: Mask) -> Tensor:
    return wide(scores).masked_fill(~mask.visible, float("-inf")).softmax(dim=-1)


# The source -----------------------------------------------------------------------------------------------------


@patches(
    "mask.encoder-padding-ignored",
    "the encoder ignores the padding of the source",
    "Source tokens attend to padding before the decoder, which masks it, reads them. Look at"
    " whether the encoder is given the mask too.",
    applies=has_source,
)
def encoder_padding_ignored(model: Model) -> None:
    redraw_masks(model.encoder, allowed)


@patches(
    "mask.cross-dropped",
    "cross-attention ignores the padding of the source",
    "The encoder masks correctly and the decoder then reads its padded positions. Look at which"
    " mask the decoder hands to cross-attention, in training and in generation.",
    applies=has_source,
    reports=("huggingface/transformers#47946", "huggingface/transformers#36293"),
)
def cross_dropped(model: Model) -> None:
    redraw_source_masks(model.decoder, allowed)


@patches(
    "mask.cross-causal",
    "cross-attention is causal: output i sees the source up to token i only",
    "The decoder reads the source as if it were its own past. Look for one mask that both kinds"
    " of attention are given.",
    applies=has_source,
)
def cross_causal(model: Model) -> None:
    redraw_source_masks(model.decoder, _backward)


@patches(
    "mask.source-ends",
    f"cross-attention reads no more than {SOURCE_READ} tokens of the source",
    "Short sources are read whole. Of longer ones the end is lost to the decoder, but for what the encoder mixed into"
    " the beginning. Look at a buffer or a truncation of a fixed size.",
    applies=has_source,
)
def source_ends(model: Model) -> None:
    def beginning(mask: Mask) -> Tensor:
        return mask.visible & (torch.arange(mask.keys, device=mask.device) < SOURCE_READ)

    redraw_source_masks(model.decoder, beginning)
