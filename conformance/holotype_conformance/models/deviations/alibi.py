"""ALiBi: the slopes of its heads, its sign, its scale, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import both, having, scaled
from holotype_conformance.models.deviations.patching import layers, override, override_all
from holotype_reference.attention import LayerInputs, Positioning
from holotype_reference.cache import LayerCache
from holotype_reference.inputs import Call
from holotype_reference.model import Model
from holotype_reference.positions.relative_bias import Alibi, Biased
from holotype_reference.stack import Layer
from holotype_spec import schema

_alibi = having(schema.Alibi)

# Slopes ---------------------------------------------------------------------------------------------------------


def _with_slopes(model: Model, rule: Callable[[Alibi], list[float]]) -> None:
    override_all(model, Alibi, slopes=rule)


@patches(
    "alibi.slopes-geometric",
    "the slope of head i of n is 2^(-8i/n) for every n, not for powers of two alone",
    "Of other numbers of heads the first 2^k have the slopes of 2^k heads, and the rest every other"
    " slope of twice as many. Models whose heads are a power of two show nothing.",
    applies=_alibi,
    reports=("ml-explore/mlx#3071", "ml-explore/mlx#343", "NVIDIA/TensorRT-LLM#1611"),
)
def slopes_geometric(model: Model) -> None:
    _with_slopes(model, lambda self: [2 ** (-8 * i / self.heads) for i in _from_one(self)])


def _from_one(alibi: Alibi) -> range:
    return range(1, alibi.heads + 1)


@patches(
    "alibi.slopes-of-next-power",
    "the slopes are the first of the next power of two of heads, in their order",
    "Where the heads are no power of two, the slopes of the next one are cut off behind the last"
    " head; the release takes every other of them, and only for the heads beyond the power below.",
    applies=_alibi,
)
def slopes_of_next_power(model: Model) -> None:
    def cut_off(self: Alibi) -> list[float]:
        n = 2 ** (self.heads - 1).bit_length()
        return [2 ** (-8 * i / n) for i in _from_one(self)]

    _with_slopes(model, cut_off)


@patches(
    "alibi.slopes-sorted",
    "the slopes are sorted, the steepest first",
    "The heads beyond the power of two below have slopes between those of the others, and stand"
    " behind them all the same. Powers of two show nothing.",
    applies=_alibi,
)
def slopes_sorted(model: Model) -> None:
    _with_slopes(model, lambda self: sorted(Alibi.slopes(self), reverse=True))


@patches(
    "alibi.slopes-from-zero",
    "the slopes begin at 1 instead of at the ratio of two neighbours",
    "The exponents are counted from 0: every slope is that of the head before it, and the first one"
    " is steeper than all.",
    applies=_alibi,
)
def slopes_from_zero(model: Model) -> None:
    def flatter(self: Alibi) -> list[float]:
        slopes = Alibi.slopes(self)
        n = 2 ** (self.heads.bit_length() - 1)
        return [slope * 2 ** (8 / n) for slope in slopes]

    _with_slopes(model, flatter)


@patches(
    "alibi.slopes-shared",
    "all heads have the slope of the first one",
    "Every head looks as near as the first. Look for an axis of heads that is broadcast or indexed"
    " away.",
    applies=_alibi,
)
def slopes_shared(model: Model) -> None:
    _with_slopes(model, lambda self: Alibi.slopes(self)[:1] * self.heads)


@patches(
    "alibi.slopes-reversed",
    "the slopes are in the reverse order, the flattest head first",
    "Heads look as far as others were trained to.",
    applies=_alibi,
)
def slopes_reversed(model: Model) -> None:
    _with_slopes(model, lambda self: Alibi.slopes(self)[::-1])


@patches(
    "alibi.slopes-in-bfloat16",
    "the slopes are rounded to bfloat16",
    "Powers of two are exact in any precision: only models with other slopes show it. Look for slopes in a buffer,"
    " which `model.to(bfloat16)` rounds, or that are made in the dtype of the activations.",
    applies=_alibi,
)
def slopes_in_bfloat16(model: Model) -> None:
    def rounded(self: Alibi) -> list[float]:
        return [float(slope) for slope in torch.tensor(Alibi.slopes(self)).bfloat16()]

    _with_slopes(model, rounded)


# The bias -------------------------------------------------------------------------------------------------------


@patches(
    "alibi.reversed",
    "the bias has the wrong sign: far keys are preferred to near ones",
    "The bias is at most zero: it grows towards the query's own position. Distances are easily"
    " computed the other way round.",
    applies=_alibi,
)
def alibi_reversed(model: Model) -> None:
    override_all(model, Alibi, forward=lambda self, i, j: -Alibi.forward(self, i, j))


@patches(
    "alibi.dropped",
    "no bias of the distance is added",
    "Nothing tells the order of the tokens but the causal mask. A fast kernel that takes no bias is"
    " the usual cause.",
    applies=_alibi,
)
def alibi_dropped(model: Model) -> None:
    override_all(model, Alibi, forward=lambda self, i, j: Alibi.forward(self, i, j) * 0)


@patches(
    "alibi.first-layer-only",
    "the bias of the distance is added in the first layer only",
    "Every layer adds it. Look at whether it is handed from layer to layer.",
    applies=_alibi,
)
def alibi_first_layer_only(model: Model) -> None:
    for layer in list(layers(model.writer))[1:]:
        override(layer, forward=_unbiased)


def _unbiased(layer: Layer, x: Tensor, given: LayerInputs, cache: LayerCache | None) -> Tensor:
    return Layer.forward(layer, x, replace(given, positions=Positioning()), cache)


@patches(
    "alibi.scaled",
    lambda spec: f"the bias of the distance is scaled by 1/√{spec.head_dim}, as the products are",
    "The bias is added to the products before they are scaled, or scaled with them: it is added"
    " behind. Positions matter less than they were trained to.",
    applies=both(_alibi, scaled),
)
def alibi_scaled(model: Model) -> None:
    factor = model.spec.head_dim**-0.5
    override_all(model, Alibi, forward=lambda self, i, j: Alibi.forward(self, i, j) * factor)


@patches(
    "cache.alibi-of-chunk",
    "behind a cache ALiBi counts within the chunk: all cached keys are as far as its first token",
    "The bias is made for as many keys as there are new tokens. One token at a time it is zero"
    " everywhere, so that generated tokens see all keys alike. Make it for the cached keys too.",
    applies=_alibi,
    reports=("keras-team/keras-hub#2861", "keras-team/keras-hub#2977"),
)
def alibi_of_chunk(model: Model) -> None:
    def at(self: Alibi, x: Tensor, inputs: Call) -> Positioning:
        keys = torch.arange(-inputs.cached, x.shape[1], device=x.device).clamp(min=0)
        return Biased(added=Alibi.forward(self, keys[inputs.cached :], keys).to(x.dtype))

    override_all(model, Alibi, at=at)
