"""YaRN: which pairs slow down, and what is multiplied to make up for it."""

from __future__ import annotations

from math import ceil, floor
from typing import Any

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import having
from holotype_conformance.models.deviations.patching import override_all, rescale
from holotype_reference.model import Model
from holotype_reference.positions.rope_scaling import ScaledRotary, yarn_factor
from holotype_reference.positions.rotary import Turns
from holotype_spec import schema
from holotype_spec.schema import Spec

_yarn = having(schema.YarnScaling)


def _scaling(spec: Spec) -> schema.YarnScaling:
    positions = spec.architecture.positions
    assert isinstance(positions, schema.Rotary)
    assert isinstance(positions.scaling, schema.YarnScaling)
    return positions.scaling


def _factor(spec: Spec) -> float:
    """The number by whose square all scores are multiplied."""
    return yarn_factor(_scaling(spec), _scaling(spec).mscale_all_dim)


def _multiplied(model: Model, factor: float) -> None:
    """Multiply all scores by a further factor."""
    rescale(model, factor)


@patches(
    "yarn.scores-not-raised",
    lambda spec: f"scores are not multiplied by YaRN's {_factor(spec) ** 2:.4f}",
    "Attention is flatter than in training, at every length. A port that reads the frequencies of a"
    " scaling and not its `mscale_all_dim` looks right and writes worse.",
    applies=_yarn,
)
def scores_not_raised(model: Model) -> None:
    _multiplied(model, _factor(model.spec) ** -2)


@patches(
    "yarn.scores-raised-once",
    lambda spec: f"scores are multiplied by YaRN's {_factor(spec):.4f}, not by its square",
    "The factor stands for queries and for keys: their product has it twice.",
    applies=_yarn,
)
def scores_raised_once(model: Model) -> None:
    _multiplied(model, 1 / _factor(model.spec))


@patches(
    "yarn.raised-by-rotation",
    lambda spec: (
        f"cosines and sines are multiplied by YaRN's {_factor(spec):.4f}, and scores are not by its square"
    ),
    "Other models take YaRN's factor that way, and where whole heads turn it is the same. Here a part"
    " of each head does not turn, and misses the factor.",
    applies=_yarn,
)
def raised_by_rotation(model: Model) -> None:
    def turns(self: ScaledRotary, *told: Any) -> Turns:
        found = ScaledRotary.turns(self, *told)
        return Turns(cos=found.cos * factor, sin=found.sin * factor)

    factor = _factor(model.spec)
    _multiplied(model, factor**-2)
    override_all(model, ScaledRotary, turns=turns)


@patches(
    "yarn.bounds-inwards",
    "the first slow pair and the last fast one are rounded towards each other instead of outwards",
    "Floor and ceiling are swapped: fewer pairs stand between fast and slow. Only these turn at"
    " another speed.",
    applies=_yarn,
)
def bounds_inwards(model: Model) -> None:
    def bounds(self: ScaledRotary, scaling: schema.YarnScaling) -> tuple[int, int]:
        low, high = (self.turning(n, scaling) for n in (scaling.beta_fast, scaling.beta_slow))
        return max(ceil(low), 0), min(floor(high), self.rotary_dim - 1)

    override_all(model, ScaledRotary, bounds=bounds)


@patches(
    "yarn.bounds-unrounded",
    "the first slow pair and the last fast one are not rounded to whole pairs",
    "A later choice of some models (`truncate` false). This one was trained with rounded bounds.",
    applies=_yarn,
)
def bounds_unrounded(model: Model) -> None:
    def bounds(self: ScaledRotary, scaling: schema.YarnScaling) -> tuple[float, float]:
        low, high = (self.turning(n, scaling) for n in (scaling.beta_fast, scaling.beta_slow))
        return max(low, 0.0), min(high, self.rotary_dim - 1)

    override_all(model, ScaledRotary, bounds=bounds)


@patches(
    "yarn.ramp-reversed",
    "the fast pairs are slowed down and the slow ones are left",
    "Near tokens blur, and far ones stand where no training has been. Interpolation is for the pairs"
    " that do not turn once. The two bounds in the wrong order do it, too.",
    applies=_yarn,
)
def ramp_reversed(model: Model) -> None:
    override_all(
        model, ScaledRotary, ramp=lambda self, scaling: 1 - ScaledRotary.ramp(self, scaling)
    )
