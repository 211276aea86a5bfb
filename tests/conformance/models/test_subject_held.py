"""What a subject asks for, draws and allows: each line of it, on a candidate that notes what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from runpy import run_path
from typing import Any, ClassVar

import msgspec
import pytest
import torch

from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.property import ALL_DTYPES, SuiteFault, Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.models import subject as subjects
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.candidate import (
    Capability,
    Difference,
    Floor,
    Inputs,
    Labels,
)
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import random_weights
from holotype_spec import load
from holotype_spec.probes import probe
from holotype_spec.schema import Spec

GPT2 = load("gpt2")

noting = run_path(str(Path(__file__).with_name("noting.py")))
Narrow, Noting, Small, same, states = (
    noting[name] for name in ("Narrow", "Noting", "Small", "same", "states")
)


# Setups ---------------------------------------------------------------------------------------------------------


def test_a_setup_is_two_bold_layers_in_float64_unless_something_else_is_said() -> None:
    assert msgspec.structs.asdict(Setup()) == {
        "layers": 2,
        "path": "default",
        "weights": 0,
        "regime": "bold",
        "dtype": "float64",
        "long": False,
        "dropping": True,
    }
    assert Setup(path="slow", layers=3).on_any_path() == Setup(layers=3)
    with pytest.raises(TypeError):
        Setup(3)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("regime", "dtype", "drawn"),
    [
        ("bold", "float64", "bold"),
        ("bold", "float32", "steady"),
        ("bold", "bfloat16", "steady"),
        ("faint", "float64", "faint"),
        ("faint", "float16", "faint"),
        ("steady", "float64", "steady"),
    ],
)
def test_bold_weights_are_steady_where_a_dtype_rounds(regime: Any, dtype: Any, drawn: str) -> None:
    assert Setup(regime=regime, dtype=dtype).drawn == drawn


# Subjects -------------------------------------------------------------------------------------------------------


def test_the_dtypes_that_were_asked_for_come_in_the_order_of_all() -> None:
    assert Subject(Noting(), GPT2).asked == ALL_DTYPES
    asked: tuple[DType, ...] = ("float16", "float64")
    assert Subject(Noting(), GPT2, dtypes=asked).asked == ("float64", "float16")


class Different(Noting):
    def differences(self, spec: Spec) -> tuple[Difference, ...]:
        def change(spec: Spec) -> Spec:
            return msgspec.structs.replace(spec, max_positions=100)

        return (Difference(field="max_positions", reason="a hundred are enough", change=change),)


def test_a_subject_elsewhere_or_with_long_rows_is_the_same_in_all_else() -> None:
    subject = Subject(Different(), GPT2, seed=3, dtypes=("float32",))
    assert subject.on(torch.device("cpu")) is subject
    there = subject.on(torch.device("meta"))
    assert there is subject.on(torch.device("meta"))
    longer = subject.with_long_rows
    assert longer is subject.with_long_rows
    other = Noting()
    for each in (there, longer, subject.alike(), subject.alike(seed=4), there.alike(other)):
        assert each.candidate is (other if each.candidate is other else subject.candidate)
        assert each.asked == ("float32",)
        assert each.spec.max_positions == 100  # with another candidate, too
        assert each.long_rows == (each is longer)
    assert [each.seed for each in (there, longer, subject.alike(), subject.alike(seed=4))] == [
        *(3, 3, 3, 4)
    ]
    assert there.device == there.alike(other).device == torch.device("meta")
    assert longer.device == subject.alike().device == torch.device("cpu")
    assert longer.alike(other).long_rows
    assert there.alike(other).stated.max_positions == 100
    assert there.stated.max_positions == 1024
    parameter = next(there.fresh_model(Setup(path="fast")).parameters())
    assert parameter.device == torch.device("meta")


def test_what_is_asked_for_again_is_not_made_again() -> None:
    subject = Subject(Noting(), GPT2)
    setup = Setup(path="fast")
    assert subject.model(setup) is subject.model(setup)
    assert subject.model(setup) is not subject.fresh_model(setup)
    assert subject.weights(2, 0) is subject.weights(2, 0)
    assert subject.probe(2) is subject.probe(2)
    assert subject.reference(setup) is subject.reference(setup)
    assert subject.capabilities is subject.capabilities
    assert subject.limits is subject.limits


def test_what_a_candidate_can_do_is_asked_once_of_a_small_model_in_float32() -> None:
    candidate = Noting()
    candidate.found = {"cache": "it has none"}
    subject = Subject(candidate, GPT2, seed=6)
    assert not subject.has("cache")
    assert subject.has("loss")
    assert subject.has("storage")
    assert set(subject.capabilities.values()) == {None, "it has none"}
    (built,) = candidate.built
    assert built == (probe(GPT2), "fast", torch.float32)
    ((model, spec),) = candidate.asked
    assert isinstance(model, Small)
    assert spec == probe(GPT2)
    assert candidate.drawn == {"build": states(6), "capabilities": states(6)}


def test_whatever_a_candidate_raises_is_named_by_what_it_was_asked() -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("no")

    def said(method: str, call: Any) -> str:
        candidate = Noting()
        subject = Subject(candidate, GPT2)
        model = Small(probe(GPT2))
        assert subject.capabilities
        candidate.effective_weights = lambda model: None  # type: ignore[method-assign]
        setattr(candidate, method, broken)
        if method == "effective_weights":
            candidate.overrides = lambda method: True  # type: ignore[method-assign]
        with pytest.raises(Violation) as caught:
            call(subject, model)
        return caught.value.summary

    inputs = Inputs(token_ids=torch.tensor([[1, 2]]))
    calls = {
        "build": lambda subject, model: subject.fresh_model(Setup()),
        "cast": lambda subject, model: subject.fresh_model(Setup()),
        "load": lambda subject, model: subject.fresh_model(Setup()),
        "restore": lambda subject, model: subject.restored(Setup(), Path()),
        "forward": lambda subject, model: subject.call(model, inputs),
        "loss": lambda subject, model: subject.loss(model, inputs, LABELS),
        "effective_weights": lambda subject, model: subject.held(model, subject.weights(2, 0)),
    }
    for method, call in calls.items():
        assert said(method, call).startswith(f"{method} raised ValueError: no")
    cached = said("forward_cached", lambda subject, model: subject.call_cached(model, inputs, None))
    assert cached.startswith("forward with a cache raised ValueError: no")
    subject = Subject(Noting(), GPT2)
    asking = Noting()
    asking.capabilities = broken  # type: ignore[method-assign]
    with pytest.raises(Violation, match="capabilities raised ValueError: no"):
        assert Subject(asking, GPT2).capabilities
    model = Small(probe(GPT2))
    hooked = model.scale * 1.0
    hooked.register_hook(broken)
    with pytest.raises(Violation, match="the second pass raised ValueError: no"):
        subject.backward(model, hooked.sum(), "the second pass")


LABELS = Labels(tokens=torch.tensor([[1, 2, 3], [4, 5, 6]]))


# How near is near enough ----------------------------------------------------------------------------------------


def test_in_the_place_of_a_dtype_that_is_absent_stands_the_nearest_wider_one() -> None:
    class Single(Noting):
        absent: ClassVar[Mapping[Capability, str]] = {"float32": "why"}

    assert Subject(Single(), GPT2).stand_in("float32") == "float64"
    assert Subject(Single(), GPT2).widest == "float64"
    assert Subject(Narrow(), GPT2).widest == "bfloat16"
    assert Subject(Narrow(), GPT2).stand_in("float16") == "float16"
    assert Subject(Noting(), GPT2).widest == "float64"


def test_the_floor_is_measured_where_there_is_no_float64_and_is_no_less_than_what_is_stated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Any, ...]] = []

    def measured(*arguments: Any) -> float:
        asked.append(arguments)
        return 1e-4

    monkeypatch.setattr(subjects, "measured_floor", measured)
    narrow = Subject(Narrow(), GPT2)
    assert narrow.floor == 1e-4
    ((spec, dtype, logits),) = asked
    assert (spec, dtype) == (GPT2, "bfloat16")
    probe = Setup(layers=1, weights=2, regime="steady")
    inputs, weights = narrow.inputs(tokens=(3, 24), seed=2), narrow.weights_of(probe)
    for of, torch_dtype in (("bfloat16", torch.bfloat16), ("float64", torch.float64)):
        same = narrow.fresh_reference(msgspec.structs.replace(probe, dtype=of), weights=weights)
        found = logits(probe, of)
        assert found.dtype is torch_dtype
        assert torch.equal(found, run_reference(same, inputs).logits.detach())

    class Stating(Narrow):
        def floor(self, spec: Spec) -> Floor:
            assert spec is GPT2
            return Floor(relative={"bfloat16": 1e-2}, itself=5e-4, weights=0.1, reason="8 bits")

    stating = Subject(Stating(), GPT2)
    assert stating.floor == 5e-4
    assert stating.limits.weights == 0.1
    none = narrow.limits
    assert (none.relative, none.itself, none.cache, none.gradients) == (0.0, None, None, None)
    assert none.weights == 0.0


# A first run ----------------------------------------------------------------------------------------------------


def test_a_first_run_calls_one_small_model_once_and_loads_weights_into_another() -> None:
    candidate = Noting()
    Subject(candidate, GPT2).smoke()
    ((inputs, _, training),) = candidate.called
    assert inputs.token_ids.shape == (1, 3)
    assert not training
    assert candidate.built == 3 * [(probe(GPT2), "fast", torch.float32)]
    assert candidate.cast_to == [torch.float32]
    assert len(candidate.loaded) == 1


def test_a_first_run_in_another_dtype_takes_that_one() -> None:
    class Double(Noting):
        absent: ClassVar[Mapping[Capability, str]] = {"float32": "why"}

    candidate = Double()
    Subject(candidate, GPT2).smoke()
    assert {dtype for _, _, dtype in candidate.built} == {torch.float64}


def test_a_fault_of_ours_in_a_first_run_makes_it_unusable_and_a_failed_load_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[Exception] = [SuiteFault("no names")]

    def load_copied(*_: Any) -> None:
        raise raised[0]

    monkeypatch.setattr(Subject, "load_copied", load_copied)
    with pytest.raises(CandidateUnusable, match="no names"):
        Subject(Noting(), GPT2).smoke()
    raised[0] = Violation("no weights")
    Subject(Noting(), GPT2).smoke()


# Probes and weights ---------------------------------------------------------------------------------------------


def test_probes_are_short_unless_they_are_asked_to_be_long() -> None:
    subject = Subject(Noting(), GPT2)
    assert subject.probe(3) == probe(GPT2, layers=3, rows=41, window=5)
    assert subject.probe(2, True) == subject.probe(2, long=True) == probe(GPT2, rows=523)
    assert subject.with_long_rows.probe(2).max_positions == 523
    short = msgspec.structs.replace(GPT2, max_positions=100)
    assert Subject(Noting(), short).probe(2, True).max_positions == 100
    mistral = Subject(Noting(), load("mistral-7b"))
    assert mistral.probe(2) == probe(mistral.spec, window=5)
    assert mistral.probe(2, True) == probe(mistral.spec, window=5)
    assert mistral.with_long_rows.probe(2) == probe(mistral.spec, window=523)


def test_the_longest_input_is_as_long_as_the_spec_the_probe_and_the_suite_have_it() -> None:
    assert Subject(Noting(), GPT2).longest == 523
    assert Subject(Noting(), msgspec.structs.replace(GPT2, max_positions=100)).longest == 100
    assert Subject(Noting(), load("qwen-7b")).longest == 11  # beyond, its scores grow
    assert Subject(Noting(), load("mistral-7b")).longest == 523


def test_weights_are_drawn_by_the_seed_of_the_run_and_their_own_number() -> None:
    subject = Subject(Noting(), GPT2, seed=2)
    assert same(subject.weights(1, 3), random_weights(probe(GPT2, layers=1), seed=2003))
    steady = random_weights(probe(GPT2, layers=1), seed=2000, regime="faint")
    assert same(subject.weights(1, 0, "faint"), steady)
    assert subject.weights(1, 0, "bold", True).spec == probe(GPT2, layers=1, rows=523)
    setup = Setup(layers=1, weights=3, regime="faint")
    assert subject.weights_of(setup) is subject.weights(1, 3, "faint", False)
    assert subject.weights_of(Setup(layers=1, long=True)) is subject.weights(1, 0, "bold", True)


def test_weights_for_a_dtype_that_is_absent_are_those_of_its_stand_in() -> None:
    subject = Subject(Narrow(), GPT2)
    found = subject.weights_of(Setup(layers=1, weights=3, long=True))
    drawn = random_weights(probe(GPT2, layers=1, rows=523), seed=3, regime="steady")
    assert same(found, {name: each.bfloat16().double() for name, each in drawn.items()})
    mixtral = Subject(Narrow(), load("mixtral-8x7b"))  # whose experts rounding must not turn
    steady = random_weights(mixtral.probe(1), seed=0, regime="steady")
    router = next(name for name in steady if "router" in name)
    assert torch.equal(
        mixtral.weights_of(Setup(layers=1))[router], steady[router].bfloat16().double()
    )
