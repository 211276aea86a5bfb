"""Parallel blocks: attention and feed-forward side by side, what each reads, and what the stream takes up."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import parallel
from holotype_conformance.models.deviations.patching import override_all
from holotype_reference.model import Model
from holotype_reference.stack import Layer

Attend = Callable[[Tensor], Tensor]


def _attended(layer: Layer, read: Tensor, attend: Attend) -> Tensor:
    dropped: Tensor = layer.dropout(attend(read))
    return dropped


def _fed(layer: Layer, read: Tensor) -> Tensor:
    dropped: Tensor = layer.feed_forward_dropout(layer.feed_forward(read))
    return dropped


@patches(
    "parallel.sequential",
    "the feed-forward block reads the stream behind attention, through the same norm",
    "The usual order of blocks, with the one norm used twice. A flag of the configuration that is"
    " read by no one is the usual cause.",
    applies=parallel,
    reports=("huggingface/transformers#18695", "deepspeedai/DeepSpeed#2446"),
)
def sequential(model: Model) -> None:
    def beside(layer: Layer, x: Tensor, attend: Attend) -> Tensor:
        x = x + _attended(layer, layer.norm(x), attend)
        return x + _fed(layer, layer.norm(x))

    override_all(model, Layer, beside=beside)


@patches(
    "parallel.chained",
    "the feed-forward block reads what attention gives instead of what attention reads",
    "One block hangs behind the other, and the stream takes up both.",
    applies=parallel,
)
def chained(model: Model) -> None:
    def beside(layer: Layer, x: Tensor, attend: Attend) -> Tensor:
        given = _attended(layer, layer.norm(x), attend)
        return x + given + _fed(layer, given)

    override_all(model, Layer, beside=beside)


@patches(
    "parallel.feed-forward-unnormed",
    "the feed-forward block reads the stream as it is, without the norm",
    "The one norm of a layer stands before both blocks.",
    applies=parallel,
)
def feed_forward_unnormed(model: Model) -> None:
    def beside(layer: Layer, x: Tensor, attend: Attend) -> Tensor:
        return x + _attended(layer, layer.norm(x), attend) + _fed(layer, x)

    override_all(model, Layer, beside=beside)


@patches(
    "parallel.attention-unnormed",
    "attention reads the stream as it is, without the norm",
    "The one norm of a layer stands before both blocks.",
    applies=parallel,
)
def attention_unnormed(model: Model) -> None:
    def beside(layer: Layer, x: Tensor, attend: Attend) -> Tensor:
        return x + _attended(layer, x, attend) + _fed(layer, layer.norm(x))

    override_all(model, Layer, beside=beside)


@patches(
    "parallel.normed-twice",
    "the feed-forward block reads what went through the norm twice",
    "Layer and block each believe that the norm is theirs. A gain of one hides it.",
    applies=parallel,
)
def normed_twice(model: Model) -> None:
    def beside(layer: Layer, x: Tensor, attend: Attend) -> Tensor:
        read = layer.norm(x)
        return x + _attended(layer, read, attend) + _fed(layer, layer.norm(read))

    override_all(model, Layer, beside=beside)


@patches(
    "parallel.from-normed",
    "the residual is taken behind the norm: norm(x) + both blocks of norm(x)",
    "The stream is normalised in every layer and loses its size.",
    applies=parallel,
)
def from_normed(model: Model) -> None:
    def beside(layer: Layer, x: Tensor, attend: Attend) -> Tensor:
        read: Tensor = layer.norm(x)
        return read + _attended(layer, read, attend) + _fed(layer, read)

    override_all(model, Layer, beside=beside)


@patches(
    "parallel.residual-twice",
    "each of the two blocks adds the residual: 2x + both blocks",
    "A block that returns its input with its result is right alone and one too many beside another.",
    applies=parallel,
    reports=("llm-random/llm-random#345",),
)
def residual_twice(model: Model) -> None:
    override_all(model, Layer, beside=lambda layer, x, attend: x + Layer.beside(layer, x, attend))


@patches(
    "parallel.residual-dropped",
    "the stream does not take up its own value, only both blocks of it",
    "What a layer was given is lost behind it.",
    applies=parallel,
)
def residual_dropped(model: Model) -> None:
    override_all(model, Layer, beside=lambda layer, x, attend: Layer.beside(layer, x, attend) - x)
