"""Sinusoidal positions: where sines and cosines stand, how fast they turn, and where they begin."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import einsum, rearrange
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import both, having, set_otherwise
from holotype_conformance.models.deviations.patching import override_all
from holotype_reference.model import Model
from holotype_reference.positions.sinusoidal import Sinusoidal
from holotype_spec import schema
from holotype_spec.schema import Spec

_sinusoidal = having(schema.Sinusoidal)

OTHER_LAYOUT = {"interleaved": "halves", "halves": "interleaved"}


def _sinusoids(spec: Spec) -> schema.Sinusoidal:
    positions = spec.architecture.positions
    assert isinstance(positions, schema.Sinusoidal)
    return positions


LAID_OUT = {
    "interleaved": "sines and cosines alternate instead of all sines standing first",
    "halves": "all sines stand first instead of alternating with the cosines",
}


@respecifies(
    "sinusoids.layout",
    lambda spec: LAID_OUT[OTHER_LAYOUT[_sinusoids(spec).layout]],
    "The paper has sine and cosine of a pair next to each other, its release all sines first. A"
    " model that is trained from scratch learns either; one with published weights does not.",
    applies=_sinusoidal,
)
def layout(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.layout", OTHER_LAYOUT[_sinusoids(spec).layout])


@patches(
    "sinusoids.swapped",
    "sines and cosines are swapped",
    "Even numbers are sines in the paper: the first position is 0 1 0 1 …, not 1 0 1 0 …",
    applies=_sinusoidal,
)
def swapped(model: Model) -> None:
    def forward(self: Sinusoidal, positions: Tensor) -> Tensor:
        x = Sinusoidal.forward(self, positions)
        if self.layout == "halves":
            return x.roll(self.size // 2, -1)
        return rearrange([x[..., 1::2], x[..., ::2]], "two batch n pair -> batch n (pair two)")

    override_all(model, Sinusoidal, forward=forward)


def _with_rates(model: Model, rates: Callable[[Sinusoidal, Tensor], Tensor]) -> None:
    """Turn each number (not each pair) by a rate of its own; the even places of a pair are sines."""

    def forward(self: Sinusoidal, positions: Tensor) -> Tensor:
        place = torch.arange(self.size, dtype=torch.float64, device=positions.device)
        if self.layout == "halves":
            place = torch.cat([place[::2], place[1::2]])
        wide = (positions + self.offset).to(torch.float64)
        angles = einsum(wide, rates(self, place), "batch length, place -> batch length place")
        return torch.where(place % 2 == 0, angles.sin(), angles.cos())

    override_all(model, Sinusoidal, forward=forward)


@patches(
    "sinusoids.exponent-by-dimension",
    lambda spec: (
        f"number k turns by {_sinusoids(spec).theta:.0f}^(-2k/{spec.hidden_size}), sine and cosine of a pair by"
        " rates of their own"
    ),
    "The paper's i counts pairs and runs to half of the size; taken for the dimension it makes the"
    " range of wavelengths the square of what it is, and pairs fall apart.",
    applies=_sinusoidal,
    reports=("Kyubyong/transformer#38", "shenweichen/DeepCTR#379"),
)
def exponent_by_dimension(model: Model) -> None:
    _with_rates(model, lambda self, place: self.theta ** (-2 * place / self.size))


@patches(
    "sinusoids.rates-unpaired",
    lambda spec: (
        f"number k turns by {_sinusoids(spec).theta:.0f}^(-k/{spec.hidden_size}), sine and cosine of a pair by rates"
        " of their own"
    ),
    "Sine and cosine of a pair share their rate, that of the even number. The first pairs hardly"
    " show it.",
    applies=_sinusoidal,
)
def rates_unpaired(model: Model) -> None:
    _with_rates(model, lambda self, place: self.theta ** (-place / self.size))


@patches(
    "sinusoids.last-rate-exact",
    lambda spec: (
        f"pair i turns by theta^(-i/{spec.hidden_size // 2 - 1}), so that the last one has 1/theta exactly"
    ),
    "Tensor2Tensor and the toolkits after it divide by the pairs less one, the paper by the pairs."
    " Neighbouring positions agree to three digits.",
    applies=_sinusoidal,
)
def last_rate_exact(model: Model) -> None:
    def rates(self: Sinusoidal, place: Tensor) -> Tensor:
        faster: Tensor = self.theta ** -((place // 2) / (self.size // 2 - 1))
        return faster

    _with_rates(model, rates)


@respecifies(
    "sinusoids.theta-1000",
    lambda spec: (
        f"the wavelengths go up to 2π · 1,000 instead of 2π · {_sinusoids(spec).theta:,.0f}"
    ),
    "Another base than the paper's. Near positions agree in their first numbers.",
    applies=_sinusoidal,
)
def theta(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.theta", 1000.0)


@respecifies(
    "sinusoids.offset-by-one",
    lambda spec: (
        f"the first position has the angles of {_sinusoids(spec).offset + 1} instead of {_sinusoids(spec).offset}"
    ),
    "Positions are counted from 1. Distances stay, and the embeddings of all tokens are others.",
    applies=_sinusoidal,
)
def offset_by_one(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.offset", _sinusoids(spec).offset + 1)


@respecifies(
    "sinusoids.offset-behind-padding",
    "the first position has the angles of 2, as where positions begin behind the padding token's row",
    "fairseq counts positions from the padding token's id on, which is 1 there: models that came"
    " from it have an offset of 2, others have none.",
    applies=both(_sinusoidal, lambda spec: _sinusoids(spec).offset != 2),
)
def offset_behind_padding(spec: Spec) -> Spec:
    return set_otherwise(spec, "positions.offset", 2)


@patches(
    "sinusoids.dropped",
    "the sinusoids are not added",
    "An encoder is a bag of words then, and a decoder knows the order by its mask alone.",
    applies=_sinusoidal,
)
def sinusoids_dropped(model: Model) -> None:
    override_all(model, Sinusoidal, forward=lambda self, p: Sinusoidal.forward(self, p) * 0)
