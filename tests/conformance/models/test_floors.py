"""What a candidate states of its precision: sound quantised models conform within it, broken ones do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Candidate, Floor, Inputs, Outputs
from holotype_conformance.models.effective import completed, demand_near
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.report.declared import warnings
from holotype_reference.weights import Weights, random_weights
from holotype_spec import load
from holotype_spec.probes import probe
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2, LLAMA = load("gpt2"), load("llama2-7b")
GROUP = 16


def judged(candidate: Candidate, slug: str, spec: Spec = LLAMA) -> Result:
    return judge(Subject(candidate, spec), PROPERTIES[slug], Settings(explained=False))


def coarse(matrix: Tensor, *, last_group_scaled: bool = True) -> Tensor:
    """8 bits in groups along a row. Wrong, the last group, which is shorter, is read with the scale before it."""
    result, scale = torch.empty_like(matrix), torch.ones(1)
    for start in range(0, matrix.shape[1], GROUP):
        part = matrix[:, start : start + GROUP]
        if last_group_scaled or part.shape[1] == GROUP or start == 0:
            scale = part.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
        result[:, start : start + GROUP] = (part / scale).round().clamp(-127, 127) * scale
    return result


class Quantised(ReferenceCandidate):
    """The reference whose matrices have 8 bits."""

    paths: tuple[str, ...] = ("fused",)
    sound = True
    gelu = False

    def floor(self, spec: Spec) -> Floor | None:
        return Floor(relative=0.05, reason="its matrices have 8 bits")

    def load(self, model: nn.Module, weights: Weights) -> None:
        super().load(model, weights)
        with torch.no_grad():
            for name, module in model.named_modules():
                if isinstance(module, nn.Linear) and "head" not in name:
                    module.weight.copy_(coarse(module.weight, last_group_scaled=self.sound))


class Broken(Quantised):
    sound = False


AGAINST_REFERENCE = (
    "agreement.logits",
    "agreement.faint-logits",
    "agreement.gradients",
    "agreement.float32",
    "agreement.bfloat16",
    "parameters.training-step",
)


@pytest.mark.parametrize("slug", AGAINST_REFERENCE)
def test_a_sound_8_bit_model_conforms_within_what_it_states(slug: str) -> None:
    assert judged(Quantised(), slug).reason is None


@pytest.mark.parametrize("slug", ["agreement.logits", "agreement.float32", "agreement.bfloat16"])
def test_a_broken_8_bit_model_does_not(slug: str) -> None:
    result = judged(Broken(), slug)
    assert result.outcome == "failed"
    assert "the candidate states" in (result.reason or "")


def test_a_floor_of_one_dtype_lets_nothing_pass_in_another() -> None:
    class InBfloat16(Quantised):
        def floor(self, spec: Spec) -> Floor | None:
            return Floor(relative={"bfloat16": 0.05}, reason="its kernel for bfloat16 has 8 bits")

    assert judged(InBfloat16(), "agreement.bfloat16").reason is None
    assert judged(InBfloat16(), "agreement.float32").outcome == "failed"


class CoarseBackward(ReferenceCandidate):
    """The backward pass alone is off."""

    paths: tuple[str, ...] = ("fused",)

    def __init__(self, factor: float, floor: Floor | None) -> None:
        self.factor, self.stated = factor, floor

    def floor(self, spec: Spec) -> Floor | None:
        return self.stated

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        model = super().build(spec, path)
        for parameter in model.parameters():
            parameter.register_hook(lambda gradient: gradient * self.factor)
        return model


@pytest.mark.parametrize(
    ("factor", "floor", "outcome"),
    [
        (1.001, Floor(gradients=0.02, reason="8 bits on the way back"), "passed"),
        (1.2, Floor(gradients=0.02, reason="8 bits on the way back"), "failed"),
        (1.001, Floor(cache=0.02, reason="its cache has 8 bits"), "failed"),
    ],
)
def test_gradients_are_held_to_what_is_stated_of_them(
    factor: float, floor: Floor, outcome: str
) -> None:
    result = judged(CoarseBackward(factor, floor), "agreement.gradients")
    assert result.outcome == outcome, result.reason


# Held to what it computes with ----------------------------------------------------------------------------------


class HandingOut(Quantised):
    """Hands out the weights that it computes with; nothing but their own error is stated."""

    def floor(self, spec: Spec) -> Floor | None:
        return Floor(weights=0.03, reason="8 bits in groups of 16")

    def effective_weights(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        return dict(model.named_parameters())


class HandingOutBroken(HandingOut):
    sound = False


class HandingOutWrong(HandingOut):
    """Its weights are as they should be; its outputs are off by far less than 8 bits are."""

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return Outputs(logits=super().forward(model, inputs).logits * (1 + 1e-7))


class HandingOutWhatItWasGiven(HandingOut):
    def load(self, model: nn.Module, weights: Weights) -> None:
        super().load(model, weights)
        self.given = dict(weights)

    def effective_weights(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        return self.given


@pytest.mark.parametrize("slug", AGAINST_REFERENCE)
def test_with_its_own_weights_a_quantised_model_is_right_to_rounding(slug: str) -> None:
    result = judged(HandingOut(), slug)
    assert result.reason is None
    if slug == "agreement.logits":
        assert result.error is not None
        assert result.error < 1e-10 or result.budget == 0.03


def test_with_its_own_weights_a_mistake_far_below_8_bits_is_found() -> None:
    assert judged(HandingOutWrong(), "agreement.logits").outcome == "failed"


def test_weights_that_are_coarser_than_stated_are_found() -> None:
    result = judged(HandingOutBroken(), "agreement.logits")
    assert result.outcome == "failed"
    assert "are not those that it was given" in (result.reason or "")


def test_weights_that_it_does_not_compute_with_are_found() -> None:
    assert judged(HandingOutWhatItWasGiven(), "agreement.logits").outcome == "failed"


def test_effective_weights_have_our_names_or_the_published_ones() -> None:
    given = random_weights(probe(GPT2, layers=1), seed=0)
    name = "decoder.layers.0.feed_forward.up.weight"
    if name not in given:
        name = next(each for each in given if given[each].ndim == 2 and "layers" in each)
    ours = completed(given, {name: given[name] + 1})
    assert torch.equal(ours[name], given[name] + 1)
    published = given.published()
    theirs, other = next(
        (each, value) for each, value in published.items() if each.endswith("c_fc.weight")
    )
    changed = completed(given, {theirs: other + 1})
    assert sum(not torch.equal(changed[each], given[each]) for each in given) == 1
    tied = completed(given, {"lm_head.weight": published["lm_head.weight"] + 1})
    assert sum(not torch.equal(tied[each], given[each]) for each in given) == 1


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([1], "returned list; expected a mapping"),
        (
            {"lm_head.weigt": torch.zeros(1)},
            "neither one of our names nor a published one: did you",
        ),
        ({"lm_head.weight": 3}, "as int; expected a tensor"),
        ({"lm_head.weight": torch.zeros(2, 2)}, "other weights than the spec has"),
    ],
)
def test_effective_weights_that_are_none_are_refused(found: Any, said: str) -> None:
    given = random_weights(probe(GPT2, layers=1), seed=0)
    with pytest.raises(Violation, match=said):
        completed(given, found)


def test_a_nan_in_effective_weights_is_not_near() -> None:
    given = random_weights(probe(GPT2, layers=1), seed=0)
    name = next(iter(given))
    broken = Weights(given.spec, {**given, name: given[name] * torch.nan})
    with pytest.raises(Violation, match="are not those that it was given"):
        demand_near(given, broken, stated=0.1, dtype=torch.float64)


# Between two runs of one model ----------------------------------------------------------------------------------


class CoarseCache(ReferenceCandidate):
    """Keys and values are rounded where a step leaves them in the cache."""

    paths: tuple[str, ...] = ("fused",)
    factor = 1.0

    def floor(self, spec: Spec) -> Floor | None:
        return Floor(cache=0.02, reason="its cache has 8 bits")

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        outputs = super().forward_cached(model, inputs, cache)
        noise = 0.004 * outputs.logits.square().mean().sqrt() * self.factor
        return Outputs(logits=outputs.logits + noise, cache=outputs.cache)


class BrokenCache(CoarseCache):
    factor = 20.0


class UndeclaredCache(CoarseCache):
    def floor(self, spec: Spec) -> Floor | None:
        return Floor(relative=0.05, reason="its matrices have 8 bits")


@pytest.mark.parametrize("slug", ["cache.chunks", "cache.reuse", "cache.rounding"])
def test_a_coarse_cache_conforms_within_what_is_stated_of_it(slug: str) -> None:
    assert judged(CoarseCache(), slug).reason is None
    assert judged(BrokenCache(), slug).outcome == "failed"


def test_coarse_weights_are_no_excuse_for_two_runs_that_differ() -> None:
    assert judged(UndeclaredCache(), "cache.chunks").outcome == "failed"


def test_a_floor_is_said_beside_the_verdict_with_its_reason() -> None:
    from holotype_conformance.judge.records import Request
    from holotype_conformance.judge.verdict import reported
    from holotype_conformance.models.declarations import declarations

    result = judged(Quantised(), "agreement.faint-logits")
    report = reported(
        Request(target="x", specs=("llama2-7b",)),
        (result,),
        spec="llama2-7b",
        parameters=1,
        unusable=None,
        suite=1,
        holotype="0",
        candidate="x",
        environment=None,
        declared=declarations(Quantised(), LLAMA),
    )
    assert "within the limits of precision that it states" in report.conclusion
    (said,) = warnings(report)
    assert "may be off by 0.05" in said
    assert "its matrices have 8 bits" in said
