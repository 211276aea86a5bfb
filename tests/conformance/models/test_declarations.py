"""What a candidate declares is believed, printed, and no cover for anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from holotype_conformance.judge.declaring import MOST, DeclarationError
from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import (
    Candidate,
    Capability,
    Difference,
    Floor,
    Inputs,
    Outputs,
)
from holotype_conformance.models.declarations import CAPABILITIES, declarations
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2 = load("gpt2")
LLAMA = load("llama2-7b")


def judged(candidate: Candidate, slug: str, spec: Spec = GPT2) -> Result:
    return judge(Subject(candidate, spec), PROPERTIES[slug], Settings())


def verdicts(candidate: Candidate, slugs: Sequence[str], spec: Spec = GPT2) -> dict[str, str]:
    subject = Subject(candidate, spec)
    return {slug: judge(subject, PROPERTIES[slug], Settings()).outcome for slug in slugs}


class Fused(ReferenceCandidate):
    paths: tuple[str, ...] = ("fused",)


def declaring(**attributes: Any) -> Candidate:
    return type("Declaring", (Fused,), attributes)()


# What cannot be declared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"absent": {"gradient": "why"}}, "'gradient', which is not a capability: did you mean"),
        ({"absent": {"gradients": ""}}, "a reason; expected a sentence"),
        ({"absent": {"gradients": None}}, "has None for a reason"),
        ({"absent": ["gradients"]}, r"`absent` is \['gradients'\]; expected a mapping"),
        ({"absent": {7: "why"}}, "names 7, which is not a capability: expected attention-mask"),
        ({"holds": {"adapter": "why"}}, "which is not a form in which weights are held: did you mean"),
        ({"holds": "adapters"}, "expected a mapping"),
        ({"paths": ()}, "`paths` is empty, so that nothing could be run"),
        ({"paths": "fused"}, "`paths` is 'fused'; expected"),
        ({"paths": ("a", "a")}, "names one path twice"),
        ({"paths": ("a", 3)}, "`paths` has 3 in it"),
        ({"floor": lambda self, spec: 0.1}, "`floor` returned 0.1; expected a Floor"),
        ({"floor": lambda self, spec: 1 / 0}, "`floor` raised ZeroDivisionError"),
        ({"differences": lambda self, spec: {"a": "b"}}, "expected a sequence of Difference"),
        ({"absent": dict.fromkeys(("float64", "float32", "bfloat16", "float16"), "no")}, "every dtype"),
    ],
)  # fmt: skip
def test_a_declaration_that_cannot_be_is_refused(attributes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        declarations(declaring(**attributes), GPT2)


@pytest.mark.parametrize("limit", [0.31, float("inf"), float("nan"), -1e-3, True, "0.1"])
@pytest.mark.parametrize("field", ["relative", "itself", "cache", "gradients", "weights"])
def test_every_limit_of_a_floor_is_bounded(field: str, limit: Any) -> None:
    floor = Floor(reason="8 bits", **{field: limit})
    with pytest.raises(DeclarationError, match=f"a number from 0 to {MOST}"):
        declarations(declaring(floor=lambda self, spec: floor), GPT2)


def test_a_floor_has_a_reason_and_names_dtypes() -> None:
    with pytest.raises(DeclarationError, match="expected a sentence"):
        declarations(declaring(floor=lambda self, spec: Floor(relative=0.1, reason=" ")), GPT2)
    wrong: Any = Floor(relative={"float8": 0.1}, reason="8 bits")  # type: ignore[dict-item]
    with pytest.raises(DeclarationError, match="float8', which is not a dtype: did you mean"):
        declarations(declaring(floor=lambda self, spec: wrong), GPT2)


# What it cannot do ----------------------------------------------------------------------------------------------

NEEDED: Mapping[Capability, tuple[str, ...]] = {
    "gradients": ("agreement.gradients", "parameters.training-step", "objective.gradients"),
    "train-mode": ("modes.train-with-dropout", "modes.dropout-sites", "modes.train-without-dropout"),
    "parameters": ("parameters.count", "parameters.scaling", "parameters.training-step", "devices.placement"),
    "storage": ("storage.round-trip",),
    "float32": ("agreement.float32", "modes.dropout-sites"),
    "bfloat16": ("agreement.bfloat16", "agreement.long-rows", "cache.rounding"),
    "float16": ("agreement.float16-range",),
    "cache": ("cache.chunks", "cache.reuse", "cache.long-rows"),
    "weights": ("agreement.logits", "agreement.faint-logits"),
    "position-ids": ("positions.explicit",),
    "left-padding": ("padding.left-invariance", "cache.left-padding"),
    "count": ("parameters.count", "parameters.scaling"),
    "training-step": ("parameters.training-step",),
}  # fmt: skip


@pytest.mark.parametrize("capability", NEEDED)
def test_what_needs_an_absent_capability_is_skipped_with_its_reason(capability: Capability) -> None:
    reason = f"no {capability} in this engine"
    subject = Subject(declaring(absent={capability: reason}), GPT2)
    for slug in NEEDED[capability]:
        if slug.startswith("objective"):
            continue  # the reference has no loss of its own
        result = judge(subject, PROPERTIES[slug], Settings())
        assert result.outcome == "skipped", slug
        assert reason in (result.reason or ""), slug


def test_every_capability_is_needed_by_some_property() -> None:
    needed = {need for property_ in PROPERTIES.values() for need in property_.needs}
    read_elsewhere = {
        "token-types",
        "next-sentence",
        "float64",
    }  # by the cases that are drawn, and the comparisons
    assert set(CAPABILITIES) - needed <= read_elsewhere


class Shell(nn.Module):
    """A model whose weights lie in plain attributes, and which computes without gradients."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = [inner]  # a list hides it from torch


class Engine(Fused):
    """The reference as an engine outside torch: no parameters, no gradients, no mask."""

    absent: Mapping[Capability, str] = {
        "gradients": "an engine for inference",
        "parameters": "its weights are arrays of its own",
    }
    shift = 0.0

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        return Shell(super().build(spec, path))

    def cast(self, model: Any, dtype: torch.dtype) -> nn.Module:
        model.inner[0].to(dtype)
        return model  # type: ignore[no-any-return]

    def load(self, model: Any, weights: Weights) -> None:
        super().load(model.inner[0], weights)

    def forward(self, model: Any, inputs: Inputs) -> Outputs:
        with torch.no_grad():
            logits = (
                super().forward(model.inner[0].eval(), Inputs(token_ids=inputs.token_ids)).logits
            )
        return Outputs(logits=logits + self.shift)

    forward_cached = Candidate.forward_cached


class UndeclaredEngine(Engine):
    absent: Mapping[Capability, str] = {}

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        shell = super().build(spec, path)
        shell.shell = nn.Parameter(torch.zeros(1))
        return shell


class ShiftedEngine(Engine):
    shift = 1e-6


class CountingEngine(Engine):
    wrong = 0

    def parameter_count(self, model: Any) -> int:
        return sum(each.numel() for each in model.inner[0].parameters()) + self.wrong


class MiscountingEngine(CountingEngine):
    wrong = 1


EVERYTHING = [slug for slug, property_ in PROPERTIES.items() if not property_.costly]


def test_an_engine_outside_torch_conforms_as_what_it_declares() -> None:
    found = verdicts(Engine(), EVERYTHING, LLAMA)
    assert {
        slug for slug, outcome in found.items() if outcome not in ("passed", "skipped")
    } == set()
    assert found["agreement.logits"] == found["causality.truncation"] == "passed"
    assert found["storage.round-trip"] == "skipped"  # it says no way to store what lies elsewhere


def test_an_engine_outside_torch_that_is_wrong_is_found() -> None:
    assert judged(ShiftedEngine(), "agreement.logits", LLAMA).outcome == "failed"


def test_an_engine_may_count_for_itself() -> None:
    for slug in ("parameters.count", "parameters.scaling"):
        assert judged(CountingEngine(), slug, LLAMA).reason is None
        assert judged(MiscountingEngine(), slug, LLAMA).outcome == "failed"


@pytest.mark.parametrize(
    ("slug", "capability"),
    [
        ("agreement.gradients", "gradients"),
        ("parameters.training-step", "gradients"),
        ("parameters.count", "parameters"),
        ("parameters.scaling", "parameters"),
    ],
)
def test_a_failure_that_a_declaration_explains_names_it(slug: str, capability: str) -> None:
    result = judged(UndeclaredEngine(), slug, LLAMA)
    assert result.outcome == "failed"
    assert f'absent = {{"{capability}": "why"}}' in (result.reason or "")


def test_a_module_without_parameters_is_told_what_to_declare() -> None:
    class Bare(Engine):
        absent: Mapping[Capability, str] = {}

    with pytest.raises(CandidateUnusable, match=re.escape('absent = {"parameters": "why"}')):
        Subject(Bare(), LLAMA).smoke()


# dtypes ---------------------------------------------------------------------------------------------------------


class Float32Only(Fused):
    absent: Mapping[Capability, str] = {"float64": "its kernels have float32 and less"}
    scale = 1.0

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        assert torch.get_default_dtype() is not torch.float64
        return super().build(spec, path)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        outputs = super().forward(model, inputs)
        assert outputs.logits.dtype is not torch.float64
        return Outputs(logits=outputs.logits * self.scale, next_sentence=outputs.next_sentence)


class WrongInFloat32(Float32Only):
    scale = 1.001


WIDEST = (
    "interface.outputs",
    "agreement.logits",
    "agreement.gradients",
    "cache.chunks",
    "batch.size",
)


@pytest.mark.parametrize("spec", ["gpt2", "llama2-7b", "mixtral-8x7b"])
def test_a_candidate_without_float64_is_compared_in_float32(spec: str) -> None:
    found = verdicts(Float32Only(), WIDEST, load(spec))
    assert set(found.values()) == {"passed"}, found


def test_a_candidate_without_float64_that_is_wrong_is_found() -> None:
    assert judged(WrongInFloat32(), "agreement.logits").outcome == "failed"


# Known differences ----------------------------------------------------------------------------------------------


def exact_gelu(spec: Spec) -> Spec:
    feed_forward = msgspec.structs.replace(spec.architecture.feed_forward, activation="gelu")
    architecture = msgspec.structs.replace(spec.architecture, feed_forward=feed_forward)
    return msgspec.structs.replace(spec, architecture=architecture)


class Exact(Fused):
    """GPT-2 with the exact GELU, whatever the spec says."""

    gain = 1.0

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        return super().build(exact_gelu(spec), path)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return Outputs(logits=super().forward(model, inputs).logits * self.gain)


class Stated(Exact):
    def differences(self, spec: Spec) -> Sequence[Difference]:
        field = "architecture.feed_forward.activation"
        return [Difference(field=field, reason="the class has the exact GELU", change=exact_gelu)]


class StatedAndWrong(Stated):
    gain = 1.0 + 1e-7


def test_a_stated_difference_is_judged_by_the_reference_without_it() -> None:
    assert judged(Exact(), "agreement.logits").outcome == "failed"
    assert judged(Stated(), "agreement.logits").reason is None
    assert judged(StatedAndWrong(), "agreement.logits").outcome == "failed"
    (declared,) = declarations(Stated(), GPT2)
    assert (declared.kind, declared.name) == ("difference", "architecture.feed_forward.activation")


def test_a_difference_that_cannot_be_made_is_refused() -> None:
    def broken(spec: Spec) -> Spec:
        raise KeyError("no such field")

    stated = [Difference(field="architecture.nothing", reason="why", change=broken)]
    with pytest.raises(DeclarationError, match="cannot be made in gpt2"):
        Subject(declaring(differences=lambda self, spec: stated), GPT2)
