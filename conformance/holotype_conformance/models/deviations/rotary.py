"""Rotary positions: which pairs turn, which way, how fast, and in what."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import Deviation, patches, respecifies
from holotype_conformance.models.deviations.features import (
    both,
    has_any_scaling,
    has_learned,
    has_rotary,
    having,
    multi_head,
    rotates,
    rotates_all,
    rotates_part,
    set_otherwise,
)
from holotype_conformance.models.deviations.patching import override_all, place, prepare
from holotype_reference.model import Model
from holotype_reference.positions.rope_scaling import ScaledRotary
from holotype_reference.positions.rotary import Rotary, Turns
from holotype_spec import schema
from holotype_spec.schema import Spec

_slowed = having(schema.Llama3Scaling, schema.YarnScaling)

OTHER_PAIRING = {"half-split": "interleaved", "interleaved": "half-split"}


def _rotary(spec: Spec) -> schema.Rotary:
    positions = spec.architecture.positions
    assert isinstance(positions, schema.Rotary)
    return positions


def _paired_otherwise(spec: Spec) -> str:
    own = _rotary(spec).pairing
    return f"rotary pairs are {OTHER_PAIRING[own]} instead of {own}"


@respecifies(
    "rotary.pairing",
    _paired_otherwise,
    "Dimensions turn with other partners than in training. The release pairs (2i, 2i + 1), many"
    " ports pair (i, i + d/2), and each permutes its query and key matrices to fit: convert the"
    " matrices, or pair as the weights do.",
    applies=has_rotary,
    reports=(
        "NeuraLegion/shainet#111",
        "tenstorrent/tt-metal#26844",
        "huggingface/transformers#47403",
    ),
)
def pairing(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.pairing", OTHER_PAIRING[_rotary(spec).pairing])


@patches(
    "rotary.reversed",
    "rotary positions turn the other way, in queries and keys alike",
    "A distance of 3 acts as one of -3. The minus sign stands at the wrong half: (a cos - b sin,"
    " a sin + b cos).",
    applies=has_rotary,
)
def reversed_turns(model: Model) -> None:
    override_all(model, Rotary, turns=_backward)


def _backward(rotary: Rotary, *told: Any) -> Turns:
    turns = type(rotary).turns(rotary, *told)
    return Turns(cos=turns.cos, sin=-turns.sin)


@patches(
    "rotary.dropped",
    "neither queries nor keys are rotated",
    "Nothing tells the order of the tokens but the causal mask. Look at whether the rotated tensors"
    " are the ones that are used.",
    applies=rotates,
)
def rotary_dropped(model: Model) -> None:
    place(model, lambda query, key, turn: (query, key))


@patches(
    "rotary.queries-only",
    "only queries are rotated, keys are not",
    "Scores depend on the position of the query alone, and a shift of all positions changes the"
    " outputs.",
    applies=rotates,
)
def queries_only(model: Model) -> None:
    place(model, lambda query, key, turn: (turn(query), key))


@patches(
    "rotary.values-too",
    "values are rotated too, not only queries and keys",
    "What is read from a key depends on where it stands. Look at where a fused projection is cut:"
    " before the rotation or after it.",
    applies=both(rotates, multi_head),
)
def values_too(model: Model) -> None:
    prepare(model, lambda query, key, value, turn: (turn(query), turn(key), turn(value)))


def _other_theta(theta: float) -> Deviation:
    return respecifies(
        f"rotary.theta-{theta:.0f}",
        lambda spec: f"theta is {theta:,.0f} instead of {_rotary(spec).theta:,.0f}",
        "The slow pairs turn at another speed. Short inputs hardly show it and long ones drift."
        " Configurations keep theta under changing keys, and a reader with a default takes the"
        " default.",
        applies=lambda spec: has_rotary(spec) and _rotary(spec).theta != theta,
    )(lambda spec: set_otherwise(spec, "positions.theta", theta))


for _theta in (10_000.0, 500_000.0, 1_000_000.0):
    _other_theta(_theta)


@patches(
    "rotary.exponent-by-index",
    lambda spec: (
        f"pair i turns by theta^(-i/{spec.rotary_dim}) instead of theta^(-2i/{spec.rotary_dim})"
    ),
    "The exponent runs over half of its range, so that the slow pairs are too fast. Pair i begins"
    " at dimension 2i.",
    applies=has_rotary,
)
def exponent_by_index(model: Model) -> None:
    override_all(
        model, Rotary, frequencies=lambda self, like: Rotary.frequencies(self, like).sqrt()
    )


@patches(
    "rotary.exponent-off-by-one",
    lambda spec: (
        f"pair i turns by theta^(-(2i+1)/{spec.rotary_dim}) instead of theta^(-2i/{spec.rotary_dim})"
    ),
    "All pairs turn too slowly, by one constant factor. The exponent starts at 0.",
    applies=has_rotary,
    reports=("stanford-cs336/assignment1-basics#22",),
)
def exponent_off_by_one(model: Model) -> None:
    def slower(self: Rotary, like: Tensor) -> Tensor:
        slower: Tensor = Rotary.frequencies(self, like) * self.theta ** (-1 / self.rotary_dim)
        return slower

    override_all(model, Rotary, frequencies=slower)


@patches(
    "rotary.frequencies-reversed",
    "the frequencies are in the reverse order, the slowest pair first",
    "Each pair turns at the speed of its mirror image.",
    applies=has_rotary,
)
def frequencies_reversed(model: Model) -> None:
    override_all(
        model, Rotary, frequencies=lambda self, like: Rotary.frequencies(self, like).flip(0)
    )


@patches(
    "rotary.partial",
    lambda spec: f"{spec.head_dim // 2} of the {spec.head_dim} dimensions of each head are rotated",
    "Some families rotate a fraction of each head, this one rotates all. Look at the rotary"
    " fraction of the configuration.",
    applies=both(rotates_all, multi_head),
)
def partial(model: Model) -> None:
    def slow_half_still(self: Rotary, like: Tensor) -> Tensor:
        frequencies = Rotary.frequencies(self, like)
        turning = torch.arange(len(frequencies), device=like.device) < ceil(len(frequencies) / 2)
        slower: Tensor = frequencies * turning
        return slower

    override_all(model, Rotary, frequencies=slow_half_still)


@respecifies(
    "rotary.whole-head",
    lambda spec: (
        f"all {spec.head_dim} dimensions of each head are rotated, of which {spec.rotary_dim} should be"
    ),
    "The rotary fraction of the configuration is not read. Its default is the whole head.",
    applies=rotates_part,
)
def whole_head(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.fraction", 1.0)


@patches(
    "rotary.exponent-by-head-dim",
    lambda spec: (
        f"pair i turns by theta^(-2i/{spec.head_dim}) instead of theta^(-2i/{spec.rotary_dim}), as if the whole head"
        " turned"
    ),
    "Where a part of each head turns, the exponent runs over that part. The head's size in its place"
    " makes the slow pairs too fast.",
    applies=rotates_part,
    reports=("huggingface/transformers#48630", "huggingface/transformers#48652"),
)
def exponent_by_head_dim(model: Model) -> None:
    part = model.spec.rotary_dim / model.spec.head_dim
    override_all(
        model, Rotary, frequencies=lambda self, like: Rotary.frequencies(self, like) ** part
    )


@patches(
    "rotary.along-heads",
    "queries and keys are rotated by the number of their head instead of their position",
    "The angles are laid along the wrong axis, where heads stand before positions. It needs a"
    " broadcast, or as many heads as tokens, to go unseen.",
    applies=has_rotary,
    reports=("rasbt/LLMs-from-scratch#411",),
)
def along_heads(model: Model) -> None:
    def rotate(self: Rotary, x: Tensor, turns: Turns) -> Tensor:
        numbers = torch.arange(x.shape[1], device=x.device)
        across = type(self).turns(self, numbers[None], turns.cos.dtype)
        return Rotary.rotate(self, x.transpose(1, 2), across).transpose(1, 2)

    override_all(model, Rotary, rotate=rotate)


@patches(
    "rotary.without-upcast",
    "the rotary angles are computed in the model's own dtype, not in at least float32",
    "In bfloat16 whole numbers above 256 do not exist and angles are off by far more than a turn."
    " Float32 models show nothing. Keep positions, frequencies, sine and cosine in float32, and"
    " out of whatever casts the model.",
    applies=has_rotary,
    reports=("huggingface/transformers#29285", "EleutherAI/gpt-neox#1003"),
)
def rotary_without_upcast(model: Model) -> None:
    override_all(model, Rotary, turns=_narrow)


def _narrow(
    rotary: Rotary, positions: Tensor, dtype: torch.dtype, context: Tensor | None = None
) -> Turns:
    here = positions.to(dtype)
    frequencies = rotary.frequencies(here)
    if isinstance(rotary, ScaledRotary):
        frequencies = rotary.scaled(frequencies)
    angles = here[:, None, :, None] * frequencies
    if isinstance(rotary, ScaledRotary) and context is not None:
        angles = angles * rotary.slowed(context, here)[:, None]
    return Turns(cos=angles.cos(), sin=angles.sin())


@patches(
    "rotary.added",
    "queries and keys are also rotated, in a model whose positions are learned",
    "A layer written for another family rotates by default. Look at the flag, and give it no"
    " default.",
    applies=both(has_learned, lambda spec: spec.head_dim % 2 == 0),
    reports=("nntrainer/nntrainer#3982",),
)
def rotary_added(model: Model) -> None:
    model.writer.positions = Rotary(model.spec.head_dim, theta=10_000.0, pairing="half-split")


@respecifies(
    "rotary.scaling-left-out",
    "rotary frequencies are not scaled",
    "Short inputs look right and long ones drift, because the slow pairs turn too fast. Read the"
    " scaling of the configuration: rope_scaling, or what it is called in rope_parameters.",
    applies=has_any_scaling,
)
def scaling_left_out(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.scaling", schema.NoScaling())


@patches(
    "rotary.scaling-of-all-pairs",
    "the scaling slows down all rotary pairs instead of the slow ones alone",
    "The scalings of LLaMA 3.1 and YaRN leave pairs that turn often as they are; dividing every frequency, or"
    " every position, by the factor is another scaling, under which near tokens blur.",
    applies=_slowed,
)
def scaling_of_all_pairs(model: Model) -> None:
    def slower(self: ScaledRotary, frequencies: Tensor) -> Tensor:
        assert isinstance(self.scaling, schema.Llama3Scaling | schema.YarnScaling)
        return frequencies / self.scaling.factor

    override_all(model, ScaledRotary, scaled=slower)
