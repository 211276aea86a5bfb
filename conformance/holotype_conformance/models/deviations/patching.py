"""Patches of a model: one method of one instance is replaced, and nothing that other models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from holotype_reference.attention import (
    Attention,
    LayerInputs,
    Positioning,
    SelfAttention,
    Source,
    WeightedSum,
    share,
)
from holotype_reference.basics import LayerNorm, RMSNorm, compute_dtype
from holotype_reference.cache import KeysValues
from holotype_reference.cross_attention import CrossAttention
from holotype_reference.experts import Blocks
from holotype_reference.feed_forward import FeedForward
from holotype_reference.masks import Mask
from holotype_reference.stack import Layer, Stack

Part = TypeVar("Part", bound=nn.Module)
Norm = LayerNorm | RMSNorm
MaskRule = Callable[[Mask], Tensor]
Softmax = Callable[[Tensor, Mask], Tensor]
Turn = Callable[[Tensor], Tensor]
Placed = Callable[[Tensor, Tensor, Turn], tuple[Tensor, Tensor]]
Prepare = Callable[[Tensor, Tensor, Tensor, Turn], tuple[Tensor, Tensor, Tensor]]


def override(module: nn.Module, **methods: Callable[..., Any]) -> None:
    """Replace methods of this instance by functions that take it first.

    Inside such a function ``Class.method(instance, …)`` is the original.
    """
    for name, function in methods.items():
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no method {name!r} to replace")
        setattr(module, name, MethodType(function, module))


def parts(model: nn.Module, kind: type[Part]) -> Iterator[Part]:
    """Every submodule of a kind."""
    return (module for module in model.modules() if isinstance(module, kind))


def override_all(model: nn.Module, kind: type[nn.Module], **methods: Callable[..., Any]) -> None:
    """`override` in every submodule of a kind."""
    for module in parts(model, kind):
        override(module, **methods)


def override_feed_forward(model: nn.Module, forward: Callable[[Any, Tensor], Tensor]) -> None:
    """Replace what the feed-forward blocks of all layers do, experts or not; `said` is the original."""
    for layer in parts(model, Layer):
        override(layer.feed_forward, forward=forward)
        if layer.dense_after is not None:
            override(layer.dense_after, forward=forward)


def said(block: nn.Module, x: Tensor) -> Tensor:
    """The output of a feed-forward block by itself: (batch, length, hidden_size) -> the same"""
    y: Tensor = type(block).forward(block, x)
    return y


def override_activation(model: nn.Module, activate: Callable[[Any, Tensor], Tensor]) -> None:
    """Replace the activation in all of them; ``type(self).activate`` is the original."""
    override_all(model, FeedForward, activate=activate)
    override_all(model, Blocks, activate=activate)


def norms(model: nn.Module) -> Iterator[Norm]:
    """Every norm of the model."""
    return (module for module in model.modules() if isinstance(module, LayerNorm | RMSNorm))


def layers(stack: Stack) -> Iterator[Layer]:
    return parts(stack, Layer)


# Attention ------------------------------------------------------------------------------------------------------


def weigh(model: nn.Module, weighted_sum: WeightedSum) -> None:
    """Replace in every attention block the weighted sum; the new one gets as many key-value heads as query heads."""

    def replaced(query: Tensor, key: Tensor, value: Tensor, **given: Any) -> Tensor:
        heads = query.shape[1]
        return weighted_sum(query, share(key, heads), share(value, heads), **given)

    for attention in parts(model, Attention):
        attention.weighted_sum = replaced


def rescale(model: nn.Module, factor: float) -> None:
    """Multiply the scale of every attention block."""
    for attention in parts(model, Attention):
        attention.scale *= factor


def share_by(model: nn.Module, rule: Callable[[Attention, Tensor], Tensor]) -> None:
    """Replace how key-value heads (batch, kv_heads, keys, head_dim) become as many as there are query heads."""

    def attend(
        self: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
    ) -> Tensor:
        return type(self).attend(self, query, rule(self, key), rule(self, value), mask, bias)

    override_all(model, Attention, attend=attend)


def softmax_by(softmax: Softmax) -> WeightedSum:
    """The weighted sum written out, with another function from scores (batch, heads, queries, keys) to weights."""

    def weighted_sum(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Mask,
        bias: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        scores = scale * einsum(
            query, key, "batch heads i width, batch heads j width -> batch heads i j"
        )
        scores = scores if bias is None else scores + bias
        weights = F.dropout(softmax(scores, mask).to(query.dtype), dropout)
        return einsum(weights, value, "batch heads i j, batch heads j width -> batch heads i width")

    return weighted_sum


def wide(x: Tensor) -> Tensor:
    """In at least float32."""
    return x.to(compute_dtype(x.dtype))


@dataclass(frozen=True, kw_only=True)
class Placing(Positioning):
    """The effects of positions, but for what is done to queries and keys before they meet."""

    inner: Positioning
    placed: Placed

    def rotate(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return self.placed(query, key, turning(self.inner))

    def scale(self, query: Tensor) -> Tensor:
        return self.inner.scale(query)

    def bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        return self.inner.bias(query, key)


def turning(positions: Positioning) -> Turn:
    """The rotation of queries, and of keys, to their positions."""
    return lambda x: positions.rotate(x, x)[0]


def place(model: nn.Module, placed: Placed) -> None:
    """Replace in every self-attention what is done to queries and keys, or what turns of them, before they meet."""

    def replaced(self: Any, x: Tensor, given: LayerInputs) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = type(self).placed(
            self, x, replace(given, positions=Placing(inner=given.positions, placed=placed))
        )
        return found

    for module in parts(model, Attention):
        if not isinstance(module, CrossAttention):
            override(module, placed=replaced)


def prepare(model: nn.Module, prepared: Prepare) -> None:
    """Replace in every self-attention what is done to queries, keys and values before they meet."""

    def placed(self: SelfAttention, x: Tensor, given: LayerInputs) -> tuple[Tensor, Tensor, Tensor]:
        heads = SelfAttention.placed(self, x, replace(given, positions=Positioning()))
        query, key, value = prepared(*heads, turning(given.positions))
        return given.positions.scale(query), key, value

    override_all(model, SelfAttention, placed=placed)


def rounded_sum(x: Tensor) -> Tensor:
    """The sum over the last axis, which is kept, with every partial sum rounded to the dtype of `x`.

    So a kernel adds that has no wider accumulator.
    """
    total = torch.zeros_like(x[..., :1])
    for column in range(x.shape[-1]):
        total = total + x[..., column : column + 1]
    return total


# Masks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Redrawn(Mask):
    """A mask whose matrix is drawn by a rule instead of by its pattern and its padding."""

    rule: MaskRule

    @cached_property
    def visible(self) -> Tensor:
        return self.rule(Mask(**{field.name: getattr(self, field.name) for field in fields(Mask)}))


def redraw(mask: Mask, rule: MaskRule) -> Redrawn:
    """The mask, drawn by a rule that is told what it should be."""
    return Redrawn(**{field.name: getattr(mask, field.name) for field in fields(Mask)}, rule=rule)


def redraw_masks(stack: Stack, rule: MaskRule) -> None:
    """Draw the masks of a stack's self-attention by a rule."""
    override(stack, mask=lambda self, *given: redraw(Stack.mask(self, *given), rule))


def redraw_source_masks(stack: Stack, rule: MaskRule) -> None:
    """Draw the masks of a stack's cross-attention by a rule."""

    def forward(
        self: CrossAttention, x: Tensor, source: Source, cache: KeysValues | None
    ) -> Tensor:
        redrawn = replace(source, mask=redraw(source.mask, rule))
        return CrossAttention.forward(self, x, redrawn, cache)

    override_all(stack, CrossAttention, forward=forward)


def ahead(mask: Mask) -> Tensor:
    """(1, 1, queries, keys): how far key j is ahead of query i, negative for one behind it."""
    i = rearrange(_count(mask, mask.queries) + mask.cached, "i -> 1 1 i 1")
    return rearrange(_count(mask, mask.keys), "j -> 1 1 1 j") - i


def _count(mask: Mask, end: int) -> Tensor:
    return torch.arange(end, device=mask.device)


def allowed(mask: Mask) -> Tensor:
    """(batch or 1, 1, queries, keys): what all but the padding allows."""
    return mask.allowed()


def real_keys(mask: Mask) -> Tensor:
    """(batch or 1, 1, 1, keys): which keys are real."""
    if mask.padding is None:
        return _count(mask, mask.keys)[None, None, None] >= 0
    return rearrange(mask.padding, "batch keys -> batch 1 1 keys")
