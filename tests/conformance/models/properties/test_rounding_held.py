"""The tolerance in low precision, line by line: what is compared, with which budget, and who is asked twice.

Errors are made up, on outputs of ones: a logit of 1.2 is off by 0.2 of the root mean square.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.property import SuiteFault, Violation, measurements
from holotype_conformance.judge.sharing import shared
from holotype_conformance.models.adapters.reference import ReferenceCandidate, run_reference
from holotype_conformance.models.candidate import Floor, Inputs
from holotype_conformance.models.properties import rounding
from holotype_conformance.models.properties.rounding import RoundingCase, check_rounding
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

GPT2 = load("gpt2")
BFLOAT16 = rounding.bfloat16
CASE = RoundingCase(length=5, batch=2, tokens=3)
OWN = 0.1  # the reference's own error, made up


class Judging:
    """One check of made-up errors: `errors` by path, of the first batch and of the second."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, errors: dict[str, tuple[float, float]], **of: Any
    ) -> None:
        class Candidate(ReferenceCandidate):
            paths = tuple(errors)

            def build(self, spec: Spec, path: str = "") -> nn.Module:
                return super().build(spec, "fused")

            def floor(self, spec: Spec) -> Floor | None:
                coarse = of.get("coarse")
                return None if coarse is None else Floor(relative=coarse, reason="8 bits")

        self.subject = Subject(Candidate(), GPT2)
        self.errors = errors
        self.built: list[Setup] = []
        self.loaded: list[Weights] = []
        self.own: list[tuple[Any, ...]] = []
        self.exact: list[tuple[Any, ...]] = []
        self.ran: list[tuple[str, Inputs]] = []
        self.batches: list[RoundingCase] = []
        self.read: list[Inputs] = []
        self.spoilt: Any = lambda inputs, logits: logits

        def fresh_model(setup: Setup) -> nn.Module:
            self.built.append(setup)
            model = nn.Linear(1, 1)
            model.path = setup.path  # type: ignore[assignment]
            return model

        def own_error(*arguments: Any) -> float:
            self.own.append(arguments)
            return OWN

        def run_oracle(*arguments: Any) -> Tensor:
            self.exact.append(arguments)
            ids = arguments[3].token_ids
            return torch.ones(*ids.shape, 97, dtype=torch.float64)

        monkeypatch.setattr(self.subject, "fresh_model", fresh_model)
        monkeypatch.setattr(self.subject, "load", lambda _, weights: self.loaded.append(weights))
        monkeypatch.setattr(rounding, "own_error", own_error)
        monkeypatch.setattr(rounding, "run_oracle", run_oracle)
        inputs_of = rounding.rounding_inputs

        @shared
        def rounding_inputs(subject: Subject, case: RoundingCase) -> Inputs:
            self.batches.append(case)
            self.read.append(inputs_of(subject, case))
            return self.read[-1]

        monkeypatch.setattr(rounding, "rounding_inputs", rounding_inputs)

    def run(self, subject: Subject, model: nn.Module, inputs: Inputs) -> Tensor:
        path: str = model.path  # type: ignore[assignment]
        self.ran.append((path, inputs))
        error = self.errors[path][[each is inputs for each in self.read].index(True)]
        logits = torch.full((*inputs.token_ids.shape, 97), 1.0 + error, dtype=torch.float64)
        spoilt: Tensor = self.spoilt(inputs, logits)
        return spoilt

    def __call__(self, dtype: Any = "float32", case: RoundingCase = CASE, **how: Any) -> Any:
        weights = self.subject.weights(case.layers, case.weights, "steady")

        def check(subject: Subject, case: RoundingCase, path: str) -> None:
            check_rounding(subject, case, path, dtype, weights, run=self.run, **how)

        with measurements() as found:
            self.subject.check(replace(BFLOAT16, check=check), case)
        return [(round(error, 12), round(budget, 12)) for error, budget in found]


@pytest.mark.parametrize(
    ("dtype", "factor"), [("float32", 2.0), ("bfloat16", 1.6), ("float16", 2.0)]
)
def test_the_budget_is_a_multiple_of_the_references_own_error(
    monkeypatch: pytest.MonkeyPatch, dtype: str, factor: float
) -> None:
    budget = round(factor * OWN, 12)
    near = round(budget - 0.001, 12)
    judging = Judging(monkeypatch, {"a": (near, 9.0), "b": (-0.05, 9.0)})
    assert judging(dtype) == [(near, budget), (0.05, budget)]
    assert [path for path, _ in judging.ran] == ["a", "b"]
    far = Judging(monkeypatch, {"a": (0.0, 0.0), "b": (budget + 0.001, budget + 0.001)})
    with pytest.raises(Violation):
        far(dtype)
    exact = Judging(monkeypatch, {"a": (0.0, 0.0)})
    assert exact(dtype) == [(0.0, budget)]


def test_whoever_is_on_the_budget_is_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "ROUNDING_FACTOR", {"float32": 2.5})  # a quarter, which is exact
    judging = Judging(monkeypatch, {"a": (0.25, 9.0)})
    monkeypatch.setattr(rounding, "rms_error", lambda *_: 0.25)
    assert judging() == [(0.25, 0.25)]


def test_only_who_is_over_the_budget_twice_is_told_and_only_suspects_are_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judging = Judging(monkeypatch, {"a": (0.1, 9.0), "b": (0.3, 0.15), "c": (0.1, 9.0)})
    assert judging() == [(0.1, 0.2), (0.15, 0.2), (0.1, 0.2)]
    assert [path for path, _ in judging.ran] == ["a", "b", "b", "c"]
    assert [batch.tokens for batch in judging.batches] == [3, 103]
    first, second = judging.ran[1][1], judging.ran[2][1]
    assert not torch.equal(first.token_ids, second.token_ids)
    wrong = Judging(monkeypatch, {"a": (0.1, 9.0), "b": (0.3, 0.25), "c": (0.4, 0.35)})
    with pytest.raises(Violation) as caught:
        wrong()
    assert caught.value.summary == (
        "in float32 the logits are off by 2.5e-01 (relative root mean square against the float64"
        " oracle); the reference's are by 1.0e-01, and 2.0e-01 is allowed"
    )
    facts = caught.value.facts
    assert (facts["path"], facts["reference_error"], facts["budget"]) == ("b", OWN, 0.2)
    assert facts["error"] == pytest.approx(0.25)


def test_what_a_candidate_states_is_added_to_the_budget_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coarse: Any = {"float32": 0.2, "float16": 0.1}
    judging = Judging(monkeypatch, {"a": (0.449, 9.0)}, coarse=coarse)
    assert judging(stated=0.05) == [(0.449, 0.45)]
    wrong = Judging(monkeypatch, {"a": (0.451, 0.451)}, coarse=coarse)
    with pytest.raises(
        Violation, match=r"4\.5e-01 is allowed, 0\.25 of it because the candidate states"
    ):
        wrong(stated=0.05)
    assert Judging(monkeypatch, {"a": (0.29, 9.0)}, coarse=coarse)("float16") == [(0.29, 0.3)]
    with pytest.raises(Violation):
        Judging(monkeypatch, {"a": (0.29, 0.29)}, coarse=coarse)("bfloat16")


def test_models_are_made_for_the_case_and_hold_the_weights_as_the_dtype_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judging = Judging(monkeypatch, {"a": (0.0, 0.0), "b": (0.0, 0.0)})
    case = msgspec.structs.replace(CASE, layers=3)
    judging("bfloat16", case)
    assert judging.built == [
        Setup(layers=3, dtype="bfloat16", path="a"),
        Setup(layers=3, dtype="bfloat16", path="b"),
    ]
    weights = judging.subject.weights(3, 0, "steady")
    for loaded in judging.loaded:
        assert all(torch.equal(loaded[name], each.bfloat16()) for name, each in weights.items())
    ((_, setup, held, inputs, exact, rows),) = judging.own  # once for both paths
    assert setup == Setup(layers=3, dtype="bfloat16")
    assert held is judging.loaded[0]
    assert inputs is judging.ran[0][1]
    assert exact.shape == (2, 5, 97)
    assert rows.all()
    ((subject, batch, given, read),) = judging.exact
    assert (subject, batch, given, read) == (judging.subject, case, held, inputs)


def test_weights_of_its_own_are_measured_for_each_path(monkeypatch: pytest.MonkeyPatch) -> None:
    judging = Judging(monkeypatch, {"a": (0.0, 0.0), "b": (0.0, 0.0)})
    own = [{"a": 1}, {"b": 2}]
    asked: list[Any] = []

    def held(model: nn.Module, given: Weights) -> Any:
        asked.append((model.path, given))
        return own[len(asked) - 1]

    monkeypatch.setattr(judging.subject, "held", held)
    judging()
    assert [path for path, _ in asked] == ["a", "b"]
    assert [given is judging.loaded[0] for _, given in asked] == [True, True]
    assert [arguments[2] for arguments in judging.exact] == own
    assert [arguments[2] for arguments in judging.own] == own


def test_each_path_is_judged_by_the_references_error_with_its_own_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Path a may be off by 0.2 and path b by 0.8; whichever comes last, neither lends the other its budget."""
    own = {"a": 0.1, "b": 0.4}

    def judged(errors: dict[str, float]) -> Any:
        judging = Judging(monkeypatch, {path: (error, error) for path, error in errors.items()})
        monkeypatch.setattr(judging.subject, "held", lambda model, _: {"path": model.path})
        monkeypatch.setattr(rounding, "own_error", lambda *of: own[of[2]["path"]])
        return judging()

    assert judged({"a": 0.15, "b": 0.7}) == [(0.15, 0.2), (0.7, 0.8)]
    assert judged({"b": 0.7, "a": 0.15}) == [(0.7, 0.8), (0.15, 0.2)]
    for errors in ({"a": 0.3, "b": 0.3}, {"b": 0.3, "a": 0.3}):
        with pytest.raises(Violation) as caught:
            judged(errors)
        assert (caught.value.facts["path"], caught.value.facts["budget"]) == ("a", 0.2)


def test_only_real_positions_from_the_start_on_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judging = Judging(monkeypatch, {"a": (0.1, 9.0)})
    seen: list[Tensor] = []

    def spoil(inputs: Inputs, logits: Tensor) -> Tensor:
        assert inputs.attention_mask is not None
        logits[inputs.attention_mask == 0] = 1e9
        logits[:, :2] = -1e9
        seen.append(inputs.attention_mask)
        return logits

    judging.spoilt = spoil
    padded = msgspec.structs.replace(CASE, padding="right")
    assert judging(case=padded, start=2) == [(0.1, 0.2)]
    rows = judging.own[0][5]
    expected = seen[0].bool()
    expected[:, :2] = False
    assert torch.equal(rows, expected)
    assert expected[:, 2].all()
    everywhere = Judging(monkeypatch, {"a": (0.1, 0.1)})
    everywhere.spoilt = lambda inputs, logits: logits.index_fill(1, torch.tensor([0]), 9.0)
    with pytest.raises(Violation):
        everywhere()


# Errors of our own ----------------------------------------------------------------------------------------------


def test_the_references_own_error_is_that_of_its_worse_plain_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = Subject(ReferenceCandidate(), GPT2)
    inputs = subject.inputs(tokens=(2, 5))
    weights = rounding.rounded_to("bfloat16", subject.weights(2, 0, "steady"))
    asked: list[Any] = []
    off = {"fused": 0.25, "eager": 0.5}

    def fresh_reference(setup: Setup, *, path: str, weights: Weights) -> Any:
        asked.append((setup, path, weights))
        return path

    def run(path: str, inputs: Inputs) -> Any:
        assert not torch.is_grad_enabled()
        logits = torch.full((2, 5, 97), 1.0 + off[path], dtype=torch.float64)
        logits[1, 3:] = 99.0
        return SimpleNamespace(logits=logits)

    monkeypatch.setattr(subject, "fresh_reference", fresh_reference)
    monkeypatch.setattr(rounding, "run_reference", run)
    exact = torch.ones(2, 5, 97, dtype=torch.float64)
    setup = Setup(dtype="bfloat16")
    rows = torch.ones(2, 5, dtype=torch.bool)
    rows[1, 3:] = False
    found = rounding.own_error(subject, setup, weights, inputs, exact, rows)
    assert found == 0.5
    assert [(each, path) for each, path, _ in asked] == [(setup, "fused"), (setup, "eager")]
    assert all(given is weights for _, _, given in asked)
    mask = rows.long()
    masked = Inputs(token_ids=inputs.token_ids, attention_mask=mask)
    assert rounding.own_error(subject, setup, weights, masked, exact) == 0.5
    assert rounding.own_error(subject, setup, weights, inputs, exact) > 10
    off["fused"] = 0.75
    assert rounding.own_error(subject, setup, weights, masked, exact) == 0.75
    for broken in off:
        monkeypatch.setitem(off, broken, float("nan"))
        with pytest.raises(SuiteFault, match=r"the reference's own error in bfloat16 is \[.*nan"):
            rounding.own_error(subject, setup, weights, masked, exact)
        monkeypatch.setitem(off, broken, 0.5)


@pytest.mark.parametrize("name", ["gpt2", "t5-small"])
def test_the_oracle_reads_every_input_and_the_weights_as_they_are_held(name: str) -> None:
    subject = Subject(ReferenceCandidate(), load(name))
    case = RoundingCase(length=5, batch=2, layers=1, padding="right", weights=1)
    inputs = rounding.rounding_inputs(subject, case)
    weights = rounding.rounded_to("bfloat16", subject.weights(1, 1, "steady"))
    found = rounding.run_oracle(subject, case, weights, inputs)
    reference = subject.fresh_reference(Setup(layers=1), weights=weights)
    with torch.no_grad():
        expected = run_reference(reference, inputs).logits
    rows = rounding.real_rows(inputs)
    assert found.dtype is torch.float64
    assert not rows.all()
    torch.testing.assert_close(found[rows], expected[rows], rtol=0, atol=1e-11)


class Far:
    """A tensor on another device: it has numbers only once it is brought here."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def double(self) -> Far:
        return Far(self.tensor.double())

    def cpu(self) -> Tensor:
        return self.tensor


def test_the_oracle_is_brought_what_lies_elsewhere_and_its_answer_goes_there() -> None:
    subject = Subject(ReferenceCandidate(), GPT2)
    case = RoundingCase(length=5, layers=1)
    inputs = rounding.rounding_inputs(subject, case)
    weights = subject.weights(1, 0, "steady").items()
    expected = rounding.run_oracle(subject, case, subject.weights(1, 0, "steady"), inputs)
    there: Any = SimpleNamespace(tensors=lambda: {"token_ids": Far(inputs.token_ids)})
    held: Any = {name: Far(each) for name, each in weights}
    assert torch.equal(rounding.run_oracle(subject, case, held, there), expected)
    subject.device = torch.device("meta")
    assert rounding.run_oracle(subject, case, held, there).device == torch.device("meta")
