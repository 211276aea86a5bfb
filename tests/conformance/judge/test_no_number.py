"""Errors that are no number: no comparison with a NaN is true, so that one must never be what a check passes by."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import holotype_conformance
from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import SuiteFault, Violation
from holotype_conformance.kernels.properties.algebra import _beyond
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Labels
from holotype_conformance.models.properties import all_properties, rounding, variants
from holotype_conformance.models.properties.agreement import Slope, demand_slopes
from holotype_conformance.models.properties.losses import expected_loss
from holotype_conformance.models.properties.modes import _distance
from holotype_conformance.models.properties.training import farthest_apart
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_spec import load

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2 = load("gpt2")
NAN = float("nan")


def spoil(gradient: Tensor) -> Tensor:
    return gradient * NAN


class NanGradient(ReferenceCandidate):
    """The reference, whose gradient by one bias is NaN where `spoilt` says so."""

    paths = ("fused",)
    bias = "embeddings.position.weight"

    def build(self, spec: Any, path: str = "fused") -> nn.Module:
        model = super().build(spec, path)
        dict(model.named_parameters())[self.bias].register_hook(
            lambda gradient: spoil(gradient) if model.training else gradient
        )
        return model


class Learning(ReferenceCandidate):
    """The reference with a loss, by which one gradient is NaN."""

    paths = ("fused",)

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        found = expected_loss(GPT2, self.forward(model, inputs), labels)
        if found.requires_grad:
            bias = dict(model.named_parameters())["embeddings.position.weight"]
            found = found + (bias * 0.0).sum().sqrt()  # the slope of a root at 0 is infinite
        return found


@pytest.mark.parametrize(
    ("candidate", "slug"),
    [(NanGradient(), "modes.train-without-dropout"), (Learning(), "objective.gradients")],
)
def test_a_gradient_that_is_no_number_is_found(candidate: Any, slug: str) -> None:
    result = judge(Subject(candidate, GPT2), PROPERTIES[slug], Settings())
    assert result.outcome == "failed"
    assert "embeddings.position.weight" in (result.reason or "")


@pytest.mark.parametrize("order", [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b")])
def test_the_gradient_that_is_no_number_is_the_farthest(order: tuple[str, ...]) -> None:
    actual = {"a": torch.ones(2), "b": torch.full((2,), NAN), "c": 2 * torch.ones(2)}
    expected = {name: torch.ones(2) for name in order}
    assert farthest_apart({name: actual[name] for name in order}, expected)[1] == "b"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_slope_that_is_no_number_is_the_farthest(place: int) -> None:
    found = [Slope(f"tensor {i}", 1.0, 1.0, 0.0) for i in range(3)]
    found[place] = Slope(f"tensor {place}", NAN, 1.0, NAN)
    with pytest.raises(Violation, match=f"tensor {place}"):
        demand_slopes(Subject(ReferenceCandidate(), GPT2), found)


def test_weights_handed_out_that_are_no_numbers_are_not_those_that_were_given() -> None:
    class Handing(ReferenceCandidate):
        def effective_weights(self, model: nn.Module) -> Mapping[str, Tensor]:
            weights: Weights = subject.weights_of(Setup())
            name = list(weights)[1]
            return {name: torch.full_like(weights[name], NAN)}

    subject = Subject(Handing(), GPT2)
    with pytest.raises(Violation, match="not those that it was given"):
        subject.held_weights(Setup())


def test_logits_in_low_precision_that_are_no_numbers_are_not_near() -> None:
    subject = Subject(ReferenceCandidate(), GPT2)
    case = rounding.RoundingCase(length=5)

    def run(*_: Any) -> Tensor:
        return torch.full((1, 5, subject.probe(2).logit_size), NAN)

    weights = subject.weights(case.layers, case.weights, "steady")
    with pytest.raises(Violation, match="off by nan"):
        rounding.check_rounding(subject, case, "fused", "float32", weights, run=run)


def test_a_reference_without_an_error_of_its_own_measures_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounding, "rms_error", lambda *_: NAN)
    subject = Subject(ReferenceCandidate(), GPT2)
    case = rounding.RoundingCase(length=5)
    weights = subject.weights(case.layers, case.weights, "steady")
    with pytest.raises(SuiteFault, match="the reference's own error"):
        rounding.check_rounding(subject, case, "fused", "float32", weights)


def test_two_runs_in_low_precision_that_are_no_numbers_are_not_alike() -> None:
    nothing, rows = torch.full((1, 2, 3), NAN), torch.ones(1, 2, dtype=torch.bool)
    case = variants.TwiceCase(length=2, dtype="bfloat16")
    with pytest.raises(Violation):
        variants.demand_alike(
            nothing, torch.ones(1, 2, 3), rows=rows, case=case, budget=1.0, what="x"
        )


def test_of_what_never_varies_any_difference_is_too_much_and_none_is_none() -> None:
    same = torch.ones(4, 3).double()
    assert _distance(same, same) == 0.0
    assert _distance(same, 2 * same) == float("inf")


def test_a_result_that_is_no_number_lies_outside_of_its_values() -> None:
    v = np.ones((1, 1, 2, 2))
    assert _beyond(v, v, 0.0) <= 0.0
    spoilt = v.copy()
    spoilt[0, 0, 1, 0] = np.nan
    assert not _beyond(spoilt, v, 0.0) <= 0.0


# Whoever writes the next comparison -------------------------------------------------------------------------------

FOLDER = Path(holotype_conformance.__file__).parent
ERRORS = {
    "error",
    "away",
    "distance",
    "beyond",
    "residual_error",
}  # what measured numbers are called here
SUSPECT = re.compile(rf"\b({'|'.join(sorted(ERRORS))}) >")  # only such files are parsed


def passed_by(tree: ast.AST) -> Iterator[ast.Compare]:
    """Conditions that find a mistake where a measured number *is larger*: a NaN is not."""
    for node in ast.walk(tree):
        conditions = node.ifs if isinstance(node, ast.comprehension) else []
        conditions += [node.test] if isinstance(node, ast.If) else []
        compared = [each for test in conditions for each in ast.walk(test)]
        for each in compared:
            if not isinstance(each, ast.Compare) or not isinstance(each.left, ast.Name):
                continue
            if isinstance(each.ops[0], ast.Gt | ast.GtE) and each.left.id in ERRORS:
                yield each


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("if stated and error > budget: pass", 1),
        ("[x for x, error in found if error > budget]", 1),
        ("if not error <= budget: pass", 0),
    ],
)
def test_a_comparison_that_a_nan_passes_is_recognised(text: str, count: int) -> None:
    assert len(list(passed_by(ast.parse(text)))) == count


def test_no_comparison_of_the_suite_is_passed_by_a_nan() -> None:
    found = [
        f"{path.relative_to(FOLDER)}:{node.lineno}: write `not {ast.unparse(node.left)} <= …`"
        for path in sorted(FOLDER.rglob("*.py"))
        if "deviations" not in path.parts
        if SUSPECT.search(text := path.read_text())
        for node in passed_by(ast.parse(text))
    ]
    assert found == []
