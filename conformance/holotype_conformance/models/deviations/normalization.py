"""Norms: their epsilon, their statistics, their gain, and where they stand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from holotype_conformance.models.deviations.deviation import Deviation, patches, respecifies
from holotype_conformance.models.deviations.features import (
    embedding_norm,
    final_norm,
    having,
    layer_norm,
    one_after_the_other,
    post_norm,
    pre_norm,
    set_otherwise,
)
from holotype_conformance.models.deviations.patching import (
    Norm,
    norms,
    override,
    override_all,
    parts,
    rounded_sum,
    wide,
)
from holotype_reference.attention import LayerInputs
from holotype_reference.basics import LayerNorm
from holotype_reference.cache import LayerCache
from holotype_reference.model import Model
from holotype_reference.stack import Layer
from holotype_spec import schema
from holotype_spec.schema import Spec

_rms_norm = having(schema.RMSNorm)


def _formula(
    norm: Norm, x: Tensor, *, axis: int = -1, inside: bool = True, centred: bool | None = None
) -> Tensor:
    """The norm written out: over another axis, with eps outside the root, with or without its centring."""
    y = wide(x)
    if isinstance(norm, LayerNorm) if centred is None else centred:
        y = y - y.mean(dim=axis, keepdim=True)
    square = y.square().mean(dim=axis, keepdim=True)
    y = y / ((square + norm.eps).sqrt() if inside else square.sqrt() + norm.eps)
    return _affine(norm, y.to(x.dtype))


def _affine(norm: Norm, y: Tensor) -> Tensor:
    y = y * norm.weight
    return y + norm.bias if isinstance(norm, LayerNorm) else y


def _in_every_norm(model: Model, forward: Callable[[Norm, Tensor], Tensor]) -> None:
    for norm in norms(model):
        override(norm, forward=forward)


# Epsilon --------------------------------------------------------------------------------------------------------


def _other_eps(text: str) -> Deviation:
    eps = float(text)
    return respecifies(
        f"norm.eps-{text}",
        lambda spec: f"the norms' eps is {text} instead of {spec.architecture.normalization.eps:g}",
        "Activations that are not small hide it; where they are of the size of √eps the results"
        " differ, and in low precision earlier. A default of a library or of another size of the"
        " same family is the usual cause.",
        applies=lambda spec: spec.architecture.normalization.eps != eps,
        reports=("keras-team/keras-hub#642", "nomic-ai/gpt4all#1946") if text == "1e-5" else (),
    )(lambda spec: set_otherwise(spec, "normalization.eps", eps))


for _text in ("1e-5", "1e-6", "1e-8", "1e-12"):
    _other_eps(_text)


@patches(
    "norm.eps-outside-root",
    "eps is added to the root instead of under it",
    "x / (std + eps) is not x / √(var + eps): for small activations they differ by orders of"
    " magnitude. Tutorials write the former.",
    reports=("harvardnlp/annotated-transformer#119", "codertimo/BERT-pytorch#30"),
)
def eps_outside_root(model: Model) -> None:
    _in_every_norm(model, lambda norm, x: _formula(norm, x, inside=False))


# Statistics -----------------------------------------------------------------------------------------------------


@patches(
    "norm.unbiased",
    lambda spec: f"the variance is divided by {spec.hidden_size - 1} instead of {spec.hidden_size}",
    "All outputs are too small by a factor near one. `std` and `var` divide by n - 1 unless they"
    " are told otherwise.",
    applies=layer_norm,
    reports=("hyunwoongko/transformer#7", "hkproj/pytorch-transformer#31"),
)
def unbiased(model: Model) -> None:
    def forward(norm: LayerNorm, x: Tensor) -> Tensor:
        y = wide(x)
        variance = y.var(dim=-1, keepdim=True, unbiased=True)
        y = (y - y.mean(dim=-1, keepdim=True)) / (variance + norm.eps).sqrt()
        return _affine(norm, y.to(x.dtype))

    override_all(model, LayerNorm, forward=forward)


@patches(
    "norm.mean-kept",
    "the layer norm does not subtract the mean, as an RMS norm does not",
    "Close while means are small, as in a fresh model. Look at which norm the layer was written"
    " for.",
    applies=layer_norm,
)
def mean_kept(model: Model) -> None:
    _in_every_norm(model, lambda norm, x: _formula(norm, x, centred=False))


@patches(
    "norm.mean-subtracted",
    "the RMS norm subtracts the mean, as a layer norm does",
    "Close while means are small, as in a fresh model. T5 calls its RMS norm a layer norm.",
    applies=_rms_norm,
)
def mean_subtracted(model: Model) -> None:
    _in_every_norm(model, lambda norm, x: _formula(norm, x, centred=True))


@patches(
    "norm.over-positions",
    "norms take their statistics over the positions of a sequence instead of its features",
    "Every output depends on the whole sequence, its future and its length. Look at `dim`, and at"
    " tensors that are (batch, features, length).",
)
def over_positions(model: Model) -> None:
    _in_every_norm(model, lambda norm, x: _formula(norm, x, axis=1))


@patches(
    "norm.over-batch",
    "norms take their statistics over the batch instead of the features",
    "Rows of a batch depend on each other. Look at `dim`, and at tensors that are (length, batch,"
    " features).",
)
def over_batch(model: Model) -> None:
    _in_every_norm(model, lambda norm, x: _formula(norm, x, axis=0))


@patches(
    "norm.without-upcast",
    "the norms compute in the model's own dtype, not in at least float32",
    "Sums of squares lose digits in half precision, in every layer, and overflow in float16."
    " Float32 models show nothing.",
)
def norm_without_upcast(model: Model) -> None:
    _in_every_norm(model, _narrow)


def _narrow(norm: Norm, x: Tensor) -> Tensor:
    if isinstance(norm, LayerNorm):
        x = x - _mean(x)
    return _affine(norm, x * torch.rsqrt(_mean(x * x) + norm.eps))


def _mean(x: Tensor) -> Tensor:
    return rounded_sum(x) / x.shape[-1]


# Gain and shift -------------------------------------------------------------------------------------------------


@patches(
    "norm.gain-dropped",
    "the norms' gain is not applied",
    "Gains start at one, so that a fresh model shows nothing and a trained one is wrong.",
)
def gain_dropped(model: Model) -> None:
    _in_every_norm(model, lambda norm, x: _with_gain(norm, x, norm.weight * 0 + 1))


@patches(
    "norm.gain-plus-one",
    "the norms multiply by 1 + gain instead of the gain",
    "Some families store gain - 1, this one stores the gain: everything is about twice too large."
    " Look at which of the two the code was written for.",
    reports=("vllm-project/vllm#29810",),
)
def gain_plus_one(model: Model) -> None:
    _in_every_norm(model, lambda norm, x: _with_gain(norm, x, norm.weight + 1))


def _with_gain(norm: Norm, x: Tensor, gain: Tensor) -> Tensor:
    if isinstance(norm, LayerNorm):
        return nn.functional.layer_norm(x, gain.shape, gain, norm.bias, norm.eps)
    y = wide(x)
    y = y * torch.rsqrt(y.square().mean(dim=-1, keepdim=True) + norm.eps)
    return y.to(x.dtype) * gain


@patches(
    "norm.shift-dropped",
    "the layer norms' bias is not added",
    "Biases start at zero, so that a fresh model shows nothing. Look at norms written without a"
    " bias, and at what the loader skips.",
    applies=layer_norm,
)
def shift_dropped(model: Model) -> None:
    override_all(model, LayerNorm, forward=lambda norm, x: LayerNorm.forward(norm, x) - norm.bias)


# Place ----------------------------------------------------------------------------------------------------------


@patches(
    "norm.final-dropped",
    "the final norm is not applied",
    "Logits have another size, their order is nearly right. Pre-norm stacks end in a norm of"
    " their own.",
    applies=final_norm,
    reports=("huggingface/transformers#17785",),
)
def final_dropped(model: Model) -> None:
    override(_final(model), forward=lambda norm, x: x)


@patches(
    "norm.final-twice",
    "the final norm is applied twice",
    "The gain acts squared. Two places each believe that the norm is theirs: the stack and the"
    " head.",
    applies=final_norm,
    reports=("AnswerDotAI/ModernBERT#50",),
)
def final_twice(model: Model) -> None:
    override(
        _final(model), forward=lambda norm, x: type(norm).forward(norm, type(norm).forward(norm, x))
    )


def _final(model: Model) -> nn.Module:
    norm = model.writer.final_norm
    assert norm is not None
    return norm


@patches(
    "norm.embedding-dropped",
    "the norm after the embeddings is not applied",
    "The first layer reads sums of three tables as they are.",
    applies=embedding_norm,
)
def embedding_dropped(model: Model) -> None:
    norm = model.embeddings.norm
    assert norm is not None
    override(norm, forward=lambda norm, x: x)


@patches(
    "norm.embedding-twice",
    "the norm after the embeddings is applied twice",
    "The gain acts squared. The embeddings and the first layer each believe that the norm is theirs.",
    applies=embedding_norm,
    reports=("AnswerDotAI/ModernBERT#50",),
)
def embedding_twice(model: Model) -> None:
    norm = model.embeddings.norm
    assert norm is not None
    override(norm, forward=lambda norm, x: type(norm).forward(norm, type(norm).forward(norm, x)))


@respecifies(
    "residual.pre-norm",
    "the norms stand before the blocks instead of after the residual sums",
    "Both orders have the same parameters, so that everything loads. Look at the order of norm,"
    " block and sum.",
    applies=post_norm,
)
def pre_norm_instead(spec: Spec) -> Spec:
    return set_otherwise(spec, "residual", "pre-norm")


@respecifies(
    "residual.post-norm",
    "the norms stand after the residual sums instead of before the blocks",
    "Both orders have the same parameters, so that everything loads. Look at the order of norm,"
    " block and sum.",
    applies=pre_norm,
)
def post_norm_instead(spec: Spec) -> Spec:
    return set_otherwise(spec, "residual", "post-norm")


@patches(
    "residual.from-normed",
    "the residual is taken after the norm: norm(x) + block(norm(x))",
    "The stream is normalised in every block and loses its size. Some families have a flag for"
    " it, and this one has it off.",
    applies=pre_norm,
)
def from_normed(model: Model) -> None:
    def add(
        layer: Layer, x: Tensor, block: Callable[[Tensor], Tensor], its_norm: nn.Module
    ) -> Tensor:
        normed: Tensor = its_norm(x)
        y: Tensor = normed + layer.dropout(block(normed))
        return y

    override_all(model, Layer, add=add)


@patches(
    "residual.doubled",
    "the residual is added twice",
    "Block and layer each add their input. Look at what the block returns.",
    reports=("llm-random/llm-random#345",),
    applies=one_after_the_other,
)
def doubled(model: Model) -> None:
    _change_addends(model, lambda x, y: 2 * x + y)


@patches(
    "residual.dropped",
    "there is no residual connection around the feed-forward blocks",
    "What a layer was given is lost behind its feed-forward block.",
    applies=one_after_the_other,
)
def residual_dropped(model: Model) -> None:
    for layer in parts(model, Layer):
        override(layer, add=_without_residual)


def _without_residual(
    layer: Layer, x: Tensor, block: Callable[[Tensor], Tensor], its_norm: nn.Module
) -> Tensor:
    y = Layer.add(layer, x, block, its_norm)
    if block is not layer.feed_forward:
        return y
    alone: Tensor = block(its_norm(x)) if layer.residual == "pre-norm" else its_norm(block(x))
    return alone


def _change_addends(model: Model, joined: Callable[[Tensor, Tensor], Tensor]) -> None:
    def add(
        layer: Layer, x: Tensor, block: Callable[[Tensor], Tensor], its_norm: nn.Module
    ) -> Tensor:
        if layer.residual == "pre-norm":
            return joined(x, layer.dropout(block(its_norm(x))))
        y: Tensor = its_norm(joined(layer.alpha * x, layer.dropout(block(x))))
        return y

    override_all(model, Layer, add=add)


@patches(
    "residual.parallel",
    "attention and feed-forward read the same input instead of one after the other",
    "The parallel block of other families: one configuration flag tells them apart.",
    applies=pre_norm,
    reports=("huggingface/transformers#18695", "deepspeedai/DeepSpeed#2446"),
)
def parallel(model: Model) -> None:
    override_all(model, Layer, add=_without_feed_forward, forward=_beside)


def _without_feed_forward(
    layer: Layer, x: Tensor, block: Callable[[Tensor], Tensor], its_norm: nn.Module
) -> Tensor:
    return x if block is layer.feed_forward else Layer.add(layer, x, block, its_norm)


def _beside(layer: Layer, x: Tensor, given: LayerInputs, cache: LayerCache | None) -> Tensor:
    beside: Tensor = layer.dropout(layer.feed_forward(layer.feed_forward_norm(x)))
    return Layer.forward(layer, x, given, cache) + beside
