"""What the checks in low precision are run on: which cases, inputs and weights, and what the three claims are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from holotype_conformance.judge.drawing import draw
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.properties import rounding
from holotype_conformance.models.properties.rounding import RoundingCase
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_spec import load
from holotype_spec.schema import Spec

GPT2 = load("gpt2")
CASE = RoundingCase(length=5, batch=2, tokens=3)


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
    assert rounding.RoundingCase(length=5).layers == 2  # what a case without a word has
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


def test_a_case_is_written_by_its_names_and_stays_what_it_is() -> None:
    assert not CASE.far
    assert not CASE.alike
    with pytest.raises(TypeError):
        RoundingCase(True, length=5)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        CASE.far = True  # type: ignore[misc]


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
    ("name", "scaled"),
    [("gpt2", False), ("t5-small", False), ("deberta-base", False), ("transformer-base", True)],
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
    property_.check(subject, case, "eager")
    ((given, of, path, asked, weights),) = checked
    assert (given, of, path, asked) == (subject, case, "eager", dtype)
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
