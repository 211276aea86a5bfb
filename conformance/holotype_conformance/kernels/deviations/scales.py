"""The scale of the products, and the softmax over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import (
    RIGHT,
    codes,
    deviates,
    has_scale,
    hears,
)
from holotype_conformance.kernels.deviations.formula import Told, Weighed, scale_of, wide


def _default(call: Call) -> float:
    return float(call.q.shape[-1] ** -0.5)


def _scaled(change: Callable[[float], float]) -> Told:
    return lambda call: replace(call, scale=change(scale_of(call)))


deviates(
    "scale.missing",
    "the scale is missing",
    "Scores are √head_dim times too large, and the softmax is nearly one of its keys. Training"
    " from scratch is slow or diverges; trained weights give bad text. A fallback path whose"
    " default is 1 has it, and so has one whose caller was to scale q.",
    told=_scaled(lambda scale: 1.0),
    reports=("mlc-ai/mlc-llm#3426",),
)
deviates(
    "scale.twice",
    "the scale is applied twice",
    "Scores are √head_dim times too small, and all keys weigh much the same. Either q is scaled"
    " before the kernel and again inside, or both q and k are, each by the whole scale.",
    told=_scaled(lambda scale: scale**2),
)
deviates(
    "scale.inverse",
    "the scale is multiplied by where it is divided",
    "Scores are off by head_dim. One code calls 1/√head_dim the scale, another √head_dim, and one"
    " of the two was held for the other: look at whether products are multiplied by it or divided.",
    told=_scaled(lambda scale: 1.0 / scale),
    where=lambda call: scale_of(call) != 0.0,
    reports=("esceptico/perceiver-io#9",),
)
deviates(
    "scale.ignored",
    "the scale that was told is ignored",
    "Models with a scale of their own (T5 has 1, Gemma and Granite other numbers) run with"
    " 1/√head_dim. Nothing else shows it. Hand the argument on to every path, the one of the"
    " backward pass too.",
    told=lambda call: replace(call, scale=_default(call)),
    where=has_scale,
)
deviates(
    "scale.zero-ignored",
    "a scale of zero is taken for none",
    "A scale of zero makes all weights equal, and 0 is false: `scale or default` takes the"
    " default. No model has it, a test or a schedule that begins at zero does. Compare with None.",
    told=lambda call: replace(call, scale=scale_of(call) or _default(call)),
    where=has_scale,
)
deviates(
    "scale.on-top",
    "the scale that was told is applied on top of 1/√head_dim",
    "A caller says the whole factor and the kernel adds its own. With a scale of 1, as T5 has it,"
    " the scores are √head_dim times too small. Say in the interface which of the two is meant.",
    told=lambda call: replace(call, scale=scale_of(call) * _default(call)),
    where=has_scale,
)

# The softmax ----------------------------------------------------------------------------------------------------

deviates(
    "softmax.base-two",
    "the softmax has the base 2: exp2 without the factor log2(e)",
    "Kernels take exp2, which is faster, of scores that were multiplied by log2(e) with the"
    " scale. Without that factor attention is softer than it should be, by a temperature of 1.44.",
    told=_scaled(lambda scale: scale * math.log(2.0)),
)
deviates(
    "softmax.log2e-left",
    "exp is taken of scores that were multiplied by log2(e), as for exp2",
    "The factor log2(e) that makes exp2 right was kept where exp came back: attention is sharper"
    " than it should be, by a temperature of 0.69. Both belong to one constant beside the scale.",
    told=_scaled(lambda scale: scale * math.log2(math.e)),
)


def _with_one(scores: Tensor, call: Call) -> Tensor:
    if not scores.shape[-1]:
        return scores
    top = scores.amax(-1, keepdim=True).clamp_min(0.0)
    powers = (scores - top).exp()
    return powers / (powers.sum(-1, keepdim=True) + (-top).exp())


deviates(
    "softmax.one-added",
    "the sum of the softmax has 1 added to it",
    "This is another function, with which a head can attend to nothing, and its weights do not"
    " sum to one. In a code that is to be a softmax it is padding of the scores with one zero, or"
    " a guard against division by zero that was added to every row.",
    weighed=_with_one,
)


def _unshifted(scores: Tensor, call: Call) -> Tensor:
    powers = scores.exp()
    total = powers.sum(-1, keepdim=True)
    return powers / total.masked_fill(total == 0.0, 1.0)


deviates(
    "softmax.unshifted",
    "the softmax overflows, for it takes off no maximum",
    "exp of a score of 89 is infinity in float32, and infinity over infinity NaN. Models whose"
    " scores stay small run for months. Take off the largest score of the row first: nothing"
    " changes by it but the range.",
    weighed=_unshifted,
    named=False,
)


def _from(lowest: float) -> Weighed:
    def weighed(scores: Tensor, call: Call) -> Tensor:
        if not scores.shape[-1]:
            return scores
        powers = (scores - scores.amax(-1, keepdim=True).clamp_min(lowest)).exp()
        total = powers.sum(-1, keepdim=True)
        return powers / total.masked_fill(total == 0.0, torch.nan)

    return weighed


deviates(
    "softmax.maximum-from-hundred",
    "the running maximum starts at -100 and not at -inf",
    "Scores that are all below it underflow together, and the sum is zero. Where scores are small"
    " in size, which is mostly, nothing shows. Start at -inf, and take care of rows that see"
    " nothing apart.",
    weighed=_from(-100.0),
    named=False,
)


def _nan_rows(scores: Tensor, call: Call) -> Tensor:
    return scores.softmax(-1)


deviates(
    "softmax.nan-rows",
    "a query that sees no key gives NaN",
    "The softmax of -inf alone is 0 over 0. Such queries are padding, and their results are not"
    " read; but a NaN times a weight of zero is NaN, in the next layer's keys and in every"
    " gradient. Give zeros, or any number.",
    weighed=_nan_rows,
    named=False,
    reports=(
        "pytorch/pytorch#103749",
        "pytorch/pytorch#157727",
        "ml-explore/mlx#2395",
        "iree-org/iree#24175",
    ),
)


# Where numbers are large ----------------------------------------------------------------------------------------


@codes(
    "softmax.divided-last",
    "values are summed up with powers in the dtype of the inputs and divided behind it",
    "Powers up to 1 are summed over all keys before they are divided by their sum: with large"
    " values that overflows float16 although the mean of the values is representable. Accumulate"
    " in float32, or divide first.",
)
def divided_last(call: Call) -> Tensor:
    powers = replace(RIGHT, weighed=_powers)
    total = powers(replace(call, v=torch.ones_like(call.v)))
    return powers(call) / total.masked_fill(total == 0.0, 1.0)


def _powers(scores: Tensor, call: Call) -> Tensor:
    if not scores.shape[-1]:
        return scores
    top = scores.amax(-1, keepdim=True)
    return (scores - top.masked_fill(top.isneginf(), 0.0)).exp()


def _narrow(q: Tensor, keys: Tensor, call: Call) -> Tensor:
    return wide(q @ keys.mT) * scale_of(call)


deviates(
    "scale.after-products",
    "products are kept in the dtype of the inputs before they are scaled",
    "A product of two float16 vectors can pass 65504 where the scaled score does not: infinity,"
    " and NaN behind the softmax. Scale q first, or let the products be accumulated in float32, as"
    " tensor cores do.",
    scored=_narrow,
    named=False,
)


@hears(
    "values.clamped",
    "values beyond 2 are clamped",
    "A value that passes what a narrow format can say is saturated: results are not linear in the"
    " values, and outliers, which carry much, are cut. Scale each block by its largest number"
    " before rounding.",
    named=False,
)
def clamped(call: Call) -> Call:
    return replace(call, v=call.v.clamp(-2.0, 2.0))


def _by_place(scores: Tensor, call: Call) -> Tensor:
    keys = torch.arange(scores.shape[-1], device=scores.device)
    return RIGHT.weighed(scores + 0.1 * keys, call)


deviates(
    "scores.by-place",
    "a bias by the place of the key is added to the scores",
    "A position bias that is no part of attention, of ALiBi's kind, is on by default. Keys in"
    " another order give another result, which they must not where no mask tells them apart.",
    weighed=_by_place,
    named=False,
)


@codes(
    "result.nine-tenths",
    "results are nine tenths of what they should be",
    "Weights that do not sum to one: what dropout takes away was not scaled up again, or dropout"
    " is on where it was not asked for. A result must lie between the values that it is the mean"
    " of.",
)
def nine_tenths(call: Call) -> Tensor:
    return RIGHT(call) * 0.9


def _half_detached(scores: Tensor, call: Call) -> Tensor:
    weights = RIGHT.weighed(scores, call)
    return (weights + weights.detach()) / 2


deviates(
    "gradients.half",
    "half of the gradient by the scores is lost",
    "Results are right and models learn where to look half as fast. It happens where a part of"
    " the weights is computed under no_grad, as for a chunk that was recomputed. Compare"
    " gradients, not losses.",
    weighed=_half_detached,
    named=False,
)
