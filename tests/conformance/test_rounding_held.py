"""The tolerance in low precision, line by line: what is compared, with which budget, and who is asked twice.

Errors are made up, on outputs of ones: a logit of 1.2 is off by 0.2 of the root mean square.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.adapters.reference import ReferenceCandidate, run_reference
from holotype_conformance.candidate import Floor, Inputs
from holotype_conformance.drawing import draw
from holotype_conformance.properties import rounding
from holotype_conformance.properties.rounding import RoundingCase, check_rounding
from holotype_conformance.property import SuiteFault, Violation, measurements
from holotype_conformance.subject import Setup, Subject
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

GPT2 = load("gpt2")
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

        def rounding_inputs(subject: Subject, case: RoundingCase) -> Inputs:
            self.batches.append(case)
            return inputs_of(subject, case)

        monkeypatch.setattr(rounding, "rounding_inputs", rounding_inputs)

    def run(self, subject: Subject, model: nn.Module, inputs: Inputs) -> Tensor:
        path: str = model.path  # type: ignore[assignment]
        self.ran.append((path, inputs))
        error = self.errors[path][len(self.batches) - 1]
        logits = torch.full((*inputs.token_ids.shape, 97), 1.0 + error, dtype=torch.float64)
        spoilt: Tensor = self.spoilt(inputs, logits)
        return spoilt

    def __call__(self, dtype: Any = "float32", case: RoundingCase = CASE, **how: Any) -> Any:
        weights = self.subject.weights(case.layers, case.weights, "steady")
        with measurements() as found:
            check_rounding(self.subject, case, dtype, weights, run=self.run, **how)
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
    assert judging(dtype) == [(near, budget)]
    assert [path for path, _ in judging.ran] == ["a", "b"]
    far = Judging(monkeypatch, {"a": (0.0, 0.0), "b": (budget + 0.001, budget + 0.001)})
    with pytest.raises(Violation):
        far(dtype)
    exact = Judging(monkeypatch, {"a": (0.0, 0.0)})
    assert exact(dtype) == [(0.0, budget)]


def test_only_who_is_over_the_budget_twice_is_told_and_only_suspects_are_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judging = Judging(monkeypatch, {"a": (0.1, 9.0), "b": (0.3, 0.15), "c": (0.1, 9.0)})
    assert judging() == [(0.15, 0.2)]
    assert [path for path, _ in judging.ran] == ["a", "b", "c", "b"]
    assert [batch.tokens for batch in judging.batches] == [3, 103]
    first, second = judging.ran[1][1], judging.ran[3][1]
    assert not torch.equal(first.token_ids, second.token_ids)
    wrong = Judging(monkeypatch, {"a": (0.1, 9.0), "b": (0.3, 0.25), "c": (0.4, 0.35)})
    with measurements() as found, pytest.raises(Violation) as caught:
        check_rounding(
            wrong.subject, CASE, "float32", wrong.subject.weights(2, 0, "steady"), run=wrong.run
        )
    assert [(round(error, 12), budget) for error, budget in found] == [(0.25, 0.2)]
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


# Cases and inputs -----------------------------------------------------------------------------------------------


def drawn(strategy: Any) -> list[RoundingCase]:
    found: list[RoundingCase] = []
    draw(strategy, found.append, seed=0, examples=60)
    return found


def values(cases: list[RoundingCase], field: str) -> set[Any]:
    return {getattr(case, field) for case in cases}


def bounds(monkeypatch: pytest.MonkeyPatch, make: Any) -> dict[str, Any]:
    """The bounds between which each field of a case is drawn."""
    with monkeypatch.context() as patch:
        patch.setattr(rounding.st, "integers", lambda least, most: (least, most))
        patch.setattr(rounding.st, "builds", lambda kind, **fields: fields)
        found: dict[str, Any] = make()
    return {name: field for name, field in found.items() if isinstance(field, tuple)}


NEAR = {"length": (12, 24), "batch": (3, 5), "weights": (0, 2), "tokens": (0, 99)}


def test_cases_are_batches_of_a_few_rows_that_are_padded_in_every_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = Subject(ReferenceCandidate(), GPT2)
    assert bounds(monkeypatch, lambda: rounding.rounding_cases(subject)) == NEAR
    cases = drawn(rounding.rounding_cases(subject))
    assert values(cases, "layers") == {2, 3}
    assert values(cases, "padding") == {"none", "ones", "left", "right"}
    assert values(cases, "far") | values(cases, "alike") == {False}


def told(can: bool, name: str = "llama-2-7b", longest: int = 523) -> Any:
    """A subject that can be told positions, or not."""

    class Told(ReferenceCandidate):
        def capabilities(self, model: nn.Module, spec: Spec) -> Any:
            found = super().capabilities(model, spec)
            return found if can else found | {"position-ids": "it counts"}

    spec = load(name)
    return Subject(Told(), msgspec.structs.replace(spec, max_positions=longest))


def test_far_positions_are_told_or_reached_where_they_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = drawn(rounding.far_cases(told(True)))
    assert values(cases, "far") == {True, False}
    assert values(cases, "batch") == {3, 4, 5}
    reached = drawn(rounding.far_cases(told(False)))
    assert values(reached, "far") == {False}
    long = [case for case in reached if case.length == 523]
    assert long
    assert values(long, "batch") == {1}
    assert values(long, "layers") == {2}
    assert values(long, "padding") == {"none"}
    with monkeypatch.context() as patch:
        patch.setattr(rounding, "rounding_cases", lambda subject: {})
        patch.setattr(rounding.st, "one_of", lambda near, far: far)
        long_alone = bounds(monkeypatch, lambda: rounding.long_rounding_cases(told(False)))
    assert long_alone == {"tokens": (0, 99)}
    near = [case for case in reached if case.length != 523]
    assert 12 <= min(values(near, "length")) <= max(values(near, "length")) <= 24
    short = drawn(rounding.far_cases(told(False, longest=522)))
    assert max(values(short, "length")) <= 24
    assert values(drawn(rounding.far_cases(told(True, "gpt2"))), "far") == {False}
    assert max(values(drawn(rounding.far_cases(told(False, "gpt2"))), "length")) == 24


def test_far_positions_lie_far_from_zero_and_from_each_other() -> None:
    subject = told(True)
    plain = rounding.rounding_inputs(subject, CASE)
    assert plain.position_ids is None
    far = rounding.rounding_inputs(subject, msgspec.structs.replace(CASE, far=True))
    assert torch.equal(far.token_ids, plain.token_ids)
    assert far.position_ids is not None
    assert far.position_ids.tolist() == [[17, 100, 183, 266, 349]] * 2


def test_alike_is_one_token_throughout_a_row_and_its_source() -> None:
    inputs = Inputs(
        token_ids=torch.tensor([[3, 4, 5], [6, 7, 8]]), source_ids=torch.tensor([[9, 1], [2, 4]])
    )
    found = rounding.alike(inputs)
    assert found.token_ids.tolist() == [[3, 3, 3], [6, 6, 6]]
    assert found.source_ids is not None
    assert found.source_ids.tolist() == [[9, 9, 9], [2, 2, 2]]
    found.token_ids[0, 0] = 1  # of its own memory
    assert found.token_ids.tolist()[0] == [1, 3, 3]
    assert rounding.alike(Inputs(token_ids=inputs.token_ids)).source_ids is None
    subject = Subject(ReferenceCandidate(), GPT2)
    same = rounding.rounding_inputs(subject, msgspec.structs.replace(CASE, alike=True, far=True))
    assert (same.token_ids == same.token_ids[:, :1]).all()
    assert same.position_ids is None


# Loud weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw"),
    [("gpt2", False), ("bert-base-uncased", False), ("openai-gpt", True), ("llama-2-7b", False)],
)
def test_which_specs_attend_to_embeddings_as_they_are(name: str, raw: bool) -> None:
    assert rounding.reads_embeddings_raw(load(name)) == raw
    reason = rounding.float16_range.applies(load(name))
    said = "the first attention reads the embeddings as they are, and its scores would overflow"
    assert reason == (said if raw else None)


@pytest.mark.parametrize(
    ("name", "scaled"), [("gpt2", False), ("t5-small", False), ("transformer-base", True)]
)
def test_embeddings_alone_are_loud_and_as_loud_where_a_model_scales_them(
    name: str, scaled: bool
) -> None:
    subject = Subject(ReferenceCandidate(), load(name))
    case = RoundingCase(length=5, layers=1, weights=1)
    found = rounding.loud_weights(subject, case)
    quiet = subject.weights(1, 1, "steady")
    factor = 500.0 / (quiet.spec.hidden_size**0.5 if scaled else 1.0)
    loud = {name for name in quiet if not torch.equal(found[name], quiet[name])}
    assert loud == {name for name in quiet if name.startswith("embeddings.") and "norm" not in name}
    for name in loud:
        assert torch.equal(found[name], factor * quiet[name])
    assert list(found) == list(quiet)
    assert found.spec == quiet.spec


# The three claims -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("property_", "dtype", "cases", "examples"),
    [
        (rounding.float32, "float32", rounding.rounding_cases, 5),
        (rounding.bfloat16, "bfloat16", rounding.far_cases, 5),
        (rounding.float16_range, "float16", rounding.rounding_cases, 3),
    ],
)
def test_each_claim_holds_its_dtype_to_the_formula(
    monkeypatch: pytest.MonkeyPatch, property_: Any, dtype: str, cases: Any, examples: int
) -> None:
    assert property_.needs == ("weights", dtype)
    assert property_.dtypes == (dtype,)
    assert (property_.level, property_.binds) == ("must", "all")
    assert property_.reference
    assert property_.apart
    assert not property_.costly
    assert property_.cases is cases
    assert property_.examples == examples
    assert property_.case_type is RoundingCase
    assert property_.catches
    checked: list[Any] = []
    monkeypatch.setattr(rounding, "check_rounding", lambda *given: checked.append(given))
    subject = Subject(ReferenceCandidate(), GPT2)
    case = RoundingCase(length=5, layers=1, weights=2)
    property_.check(subject, case)
    ((given, of, asked, weights),) = checked
    assert (given, of, asked) == (subject, case, dtype)
    expected = subject.weights(1, 2, "steady")
    if dtype == "float16":
        expected = rounding.loud_weights(subject, case)
    assert all(torch.equal(weights[name], each) for name, each in expected.items())


def test_a_whole_pass_is_the_candidates_logits() -> None:
    subject = Subject(ReferenceCandidate(), GPT2)
    inputs = subject.inputs(tokens=(1, 3))
    model = subject.model(Setup(path="fused"))
    found = rounding.run_at_once(subject, model, inputs)
    assert torch.equal(found, subject.forward(model, inputs).logits)
