"""Caches: what incremental decoding remembers, and what it forgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import (
    both,
    decodes,
    has_any_scaling,
    has_bias,
    has_buckets,
    has_ids,
    has_rotary,
    has_source,
    has_window,
    multi_head,
)
from holotype_conformance.models.deviations.patching import (
    MaskRule,
    allowed,
    override,
    parts,
    real_keys,
    redraw_masks,
)
from holotype_reference.attention import Positioning, Source
from holotype_reference.cache import Cache, KeysValues, LayerCache
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_reference.model import Model
from holotype_reference.positions.relative_bias import Biased, DistanceBias, RelativeBias
from holotype_reference.positions.rope_scaling import ScaledRotary
from holotype_spec import schema

# Positions ------------------------------------------------------------------------------------------------------


@patches(
    "cache.offset-forgotten",
    "positions start again at 0 in every chunk that is read through the cache",
    "Each new token is taken for the first one. Greedy text starts well and falls into"
    " repetition. Count from the length of the cache.",
    applies=both(decodes, has_ids),
    reports=("mosaicml/examples#244", "huggingface/candle#1517"),
)
def offset_forgotten(model: Model) -> None:
    override(
        model,
        positions=lambda self, inputs, cached: Model.positions(self, inputs, 0),
    )


@patches(
    "cache.offset-by-one",
    "positions behind a cache are one too high",
    "The offset is read after the cache was extended, or counts from 1. Between the chunks a"
    " position is skipped.",
    applies=both(decodes, has_ids),
    reports=("ml-explore/mlx-lm#1396",),
)
def offset_by_one(model: Model) -> None:
    def positions(self: Model, inputs: Call, cached: int) -> Tensor:
        return Model.positions(self, inputs, cached + 1 if cached else 0)

    override(model, positions=positions)


@patches(
    "cache.offset-of-retained",
    "positions behind a cache are counted from the keys that a window retains",
    "A cache that throws keys away is shorter than what was read. Nothing shows before the window is"
    " full. Count the tokens, not the keys.",
    applies=both(has_window, has_ids),
    reports=("rajveer43/VeloxQuant-MLX#389", "rajveer43/VeloxQuant-MLX#196"),
)
def offset_of_retained(model: Model) -> None:
    pattern = model.spec.architecture.attention.pattern
    assert isinstance(pattern, schema.SlidingWindow)
    window = pattern.window

    def positions(self: Model, inputs: Call, cached: int) -> Tensor:
        return Model.positions(self, inputs, min(cached, window))

    override(model, positions=positions)


@patches(
    "cache.positions-in-bfloat16",
    "positions behind a cache are counted in the dtype of the activations",
    "In float32 nothing shows. bfloat16 counts to 256, and from there on every other token, then every fourth, has the"
    " position of the one before. Count in whole numbers.",
    applies=both(decodes, has_rotary),
)
def positions_in_bfloat16(model: Model) -> None:
    def positions(self: Model, inputs: Call, cached: int) -> Tensor:
        counted = Model.positions(self, inputs, cached)
        return counted.to(self.embeddings.token.weight.dtype).long() if cached else counted

    override(model, positions=positions)


@patches(
    "cache.rotary-unscaled",
    "rotary frequencies are not scaled behind a cache",
    "The prompt is read with one table and generated tokens with another. Look at a fast path for"
    " single tokens that builds its own.",
    applies=both(decodes, has_any_scaling),
    reports=("Xilinx/mlir-air#1948", "unslothai/unsloth#6197"),
)
def rotary_unscaled(model: Model) -> None:
    def positions(self: Model, inputs: Call, cached: int) -> Tensor:
        for rotary in parts(self, ScaledRotary):
            override(rotary, scaled=_as_they_are if cached else ScaledRotary.scaled)
        return Model.positions(self, inputs, cached)

    override(model, positions=positions)


def _as_they_are(_: ScaledRotary, frequencies: Tensor) -> Tensor:
    return frequencies


@patches(
    "cache.relative-offset-forgotten",
    "the relative bias behind a cache is that of the first queries",
    "Distances are counted from 0 in every chunk. Compute the bias for all keys and take the last"
    " rows.",
    applies=both(decodes, has_buckets),
)
def relative_offset_forgotten(model: Model) -> None:
    def at(self: RelativeBias, x: Tensor, inputs: Call) -> Positioning:
        keys = torch.arange(inputs.cached + x.shape[1], device=x.device)
        first: Tensor = self(keys, keys)[:, :, : x.shape[1]]
        return Biased(added=first.to(x.dtype))

    for table in parts(model.writer, RelativeBias):
        override(table, at=at)


@patches(
    "cache.relative-bias-dropped",
    "no relative bias is added behind a cache",
    "Right in the first step, and without order in all others. Look at `None if cache else bias`.",
    applies=both(decodes, has_bias),
    reports=("NVIDIA/TensorRT-LLM#13870",),
)
def relative_bias_dropped(model: Model) -> None:
    def at(self: DistanceBias, x: Tensor, inputs: Call) -> Positioning:
        return Positioning() if inputs.cached else DistanceBias.at(self, x, inputs)

    for bias in parts(model.writer, DistanceBias):
        override(bias, at=at)


# Masks ----------------------------------------------------------------------------------------------------------


def _behind_cache(model: Model, rule: MaskRule) -> None:
    """Draw a mask by a rule only where a cache holds keys."""
    redraw_masks(model.writer, lambda mask: rule(mask) if mask.cached else mask.visible)


@patches(
    "cache.mask-top-left",
    "the causal mask of a chunk is aligned to the first key instead of the last",
    "A chunk behind a cache sees the first keys only. One token at a time, many kernels leave the"
    " mask out and all is well. `is_causal` of a kernel means the upper left corner: pass the"
    " mask.",
    applies=decodes,
    reports=("pytorch/pytorch#108108", "pytorch/executorch#21749", "onnx/onnx#8068"),
)
def mask_top_left(model: Model) -> None:
    _behind_cache(model, lambda mask: allowed(replace(mask, cached=0)) & real_keys(mask))


@patches(
    "cache.mask-dropped",
    "a chunk of several tokens behind a cache has no causal mask",
    "One token at a time all is well; a chunk sees its own future. Look for a branch that takes a"
    " cache for a single token.",
    applies=decodes,
)
def mask_dropped(model: Model) -> None:
    _behind_cache(model, real_keys)


@patches(
    "cache.not-read",
    "a chunk behind a cache sees its own tokens only",
    "The cache is filled and handed on, and not attended to. The loss over a whole text shows nothing.",
    applies=decodes,
    reports=("huggingface/transformers#42188",),
)
def not_read(model: Model) -> None:
    def rule(mask: Mask) -> Tensor:
        return mask.visible & (torch.arange(mask.keys, device=mask.device) >= mask.cached)

    _behind_cache(model, rule)


@patches(
    "cache.padding-forgotten",
    "the padding mask is ignored behind a cache",
    "Left-padded prompts are read rightly, and every generated token attends to the padding. Look"
    " at the branch for a single token.",
    applies=decodes,
    reports=("ml-explore/mlx-lm#1906",),
)
def padding_forgotten(model: Model) -> None:
    _behind_cache(model, allowed)


@patches(
    "cache.window-dropped",
    "there is no sliding window behind a cache",
    "The prompt is read with its window, generated tokens see everything. Nothing shows before"
    " the window is full.",
    applies=has_window,
    reports=("goombalab/hnet#20",),
)
def window_dropped(model: Model) -> None:
    _behind_cache(model, lambda mask: replace(mask, pattern=schema.Causal()).visible)


@patches(
    "cache.window-one-short",
    "behind a cache the sliding window is one key short",
    "A ring buffer drops its oldest key a step too early. Nothing shows before the window is full.",
    applies=has_window,
    reports=("huggingface/transformers#37574",),
)
def window_one_short(model: Model) -> None:
    def rule(mask: Mask) -> Tensor:
        assert isinstance(mask.pattern, schema.SlidingWindow)
        return replace(mask, pattern=schema.SlidingWindow(window=mask.pattern.window - 1)).visible

    _behind_cache(model, rule)


# Keys and values ------------------------------------------------------------------------------------------------


class Prepending(KeysValues):
    """New keys and values are put before the old ones."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is not None and self.values is not None:
            keys = torch.cat([keys, self.keys], dim=2)
            values = torch.cat([values, self.values], dim=2)
        self.keys, self.values = keys, values
        return keys, values


class KeysTwice(KeysValues):
    """The values that are kept are the keys."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        result = super().extend(keys, values)
        self.values = self.keys
        return result


class LastDropped(KeysValues):
    """The last key of each chunk is not kept, but its room is: it reads as zeros."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        result = super().extend(keys, values)
        assert self.keys is not None
        room = torch.arange(self.keys.shape[2], device=keys.device) < self.keys.shape[2] - 1
        self.keys = self.keys * room[:, None]
        return result


def keep_in(model: Model, kind: Callable[[], KeysValues]) -> None:
    """Keep keys and values of self-attention in a cache of another kind."""

    def new_cache(self: Model) -> Cache:
        rows = Model.new_cache(self).layers
        return Cache(layers=[LayerCache(self_attention=kind()) for _ in rows])

    override(model, new_cache=new_cache)


@patches(
    "cache.prepended",
    "new keys and values are joined before the old ones instead of behind them",
    "The mask then hides the wrong keys. With one query and no mask the order would not matter,"
    " which hides it in a test of single steps without padding.",
    applies=decodes,
)
def prepended(model: Model) -> None:
    keep_in(model, Prepending)


@patches(
    "cache.values-from-keys",
    "what the cache keeps as values are the keys",
    "The prompt is read rightly, every later step mixes keys where values belong. Two lines that"
    " were copied from each other.",
    applies=both(decodes, multi_head),
    reports=("huggingface/transformers#34232",),
)
def values_from_keys(model: Model) -> None:
    keep_in(model, KeysTwice)


@patches(
    "cache.last-key-lost",
    "the key of the last token of each chunk is not kept",
    "Written to a slot and overwritten, or sliced off. Each chunk's last token is unknown to the"
    " next ones.",
    applies=decodes,
)
def last_key_lost(model: Model) -> None:
    keep_in(model, LastDropped)


@patches(
    "cache.shared-between-calls",
    "all caches are one: a new one empties the one before",
    "Two generations in turn disturb each other. Look for a cache in an attribute of the module"
    " or in a default argument.",
    applies=decodes,
)
def shared_between_calls(model: Model) -> None:
    one = Model.new_cache(model)

    def new_cache(self: Model) -> Cache:
        fresh = Model.new_cache(self)
        one.layers, one.source_ids, one.source_padding = fresh.layers, None, None
        return one

    override(model, new_cache=new_cache)


@patches(
    "cache.kept",
    "the cache outlives its generation: a new one goes on where the last one stopped",
    "The first call is right, and later ones read what was said before. Look for a cache that is"
    " not reset.",
    applies=decodes,
)
def kept(model: Model) -> None:
    last: list[Cache] = []

    def new_cache(self: Model) -> Cache:
        if not last:
            last.append(Model.new_cache(self))
        return last[0]

    override(model, new_cache=new_cache)


# The source -----------------------------------------------------------------------------------------------------


@patches(
    "cache.cross-of-first-layer",
    "all layers read the first layer's cached keys and values of the source",
    "Every layer projects the source by itself. Without a cache all is well. Look at the index of"
    " the layer.",
    applies=has_source,
)
def cross_of_first_layer(model: Model) -> None:
    def new_cache(self: Model) -> Cache:
        cache = Model.new_cache(self)
        shared = cache.layers[0].cross_attention
        for layer in cache.layers:
            layer.cross_attention = shared
        return cache

    override(model, new_cache=new_cache)


@patches(
    "cache.source-padding-forgotten",
    "the padding of the source is ignored behind a cache",
    "The first step masks the source, generated tokens read its padding. Keep the source's mask"
    " with its keys.",
    applies=has_source,
    reports=("huggingface/transformers#36293",),
)
def source_padding_forgotten(model: Model) -> None:
    def source(self: Model, inputs: Call) -> Source | None:
        held = inputs.cache is not None and inputs.cache.source_ids is not None
        found = Model.source(self, inputs)
        if not held or found is None:
            return found
        return replace(found, mask=replace(found.mask, padding=None))

    override(model, source=source)
