"""How wrong a kernel may be: each number of the budget, and what is compared with what.

Expected values are worked out by hand from the definitions: units of rounding, stated limits, sums of absolute terms.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from holotype_conformance.judge.declaring import Floor
from holotype_conformance.judge.property import Violation, measurements
from holotype_conformance.kernels import tolerance as budget
from holotype_conformance.kernels.cases import AttentionCase, Problem, problem
from holotype_conformance.kernels.oracle import Attended
from holotype_conformance.kernels.plain import plain

EPS = {torch.float64: 2**-52, torch.float32: 2**-23, torch.bfloat16: 2**-7, torch.float16: 2**-10}
UNITS = {torch.float64: 64, torch.float32: 64, torch.bfloat16: 4, torch.float16: 4}
SINGLE = torch.float32


# Budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", EPS)
def test_the_floor_is_a_few_units_of_rounding_of_the_dtype(dtype: torch.dtype) -> None:
    assert budget.rounding(dtype) == budget.rounding(dtype, gradients=True)
    assert budget.rounding(dtype) == UNITS[dtype] * EPS[dtype]
    assert budget.explained(dtype) == 4 * UNITS[dtype] * EPS[dtype]
    assert budget.stated(dtype) == budget.stated(dtype, gradients=True) == 0.0


def test_what_a_kernel_states_is_its_floor_while_it_is_stated() -> None:
    floor = Floor(relative={"float32": 1e-3, "bfloat16": 1e-4}, reason="TensorFloat")
    with budget.stating(floor):
        assert budget.stated(SINGLE) == budget.rounding(SINGLE) == 1e-3
        assert budget.stated(SINGLE, gradients=True) == 2e-3  # twice as far, unless it says so
        assert budget.rounding(SINGLE, gradients=True) == 2e-3
        assert budget.explained(SINGLE) == 4e-3
        assert budget.stated(torch.bfloat16) == 1e-4
        assert budget.rounding(torch.bfloat16) == 4 * 2**-7  # which is more
        assert budget.stated(torch.float64) == 0.0
        with budget.stating(replace(floor, gradients=5e-3)):
            assert budget.stated(SINGLE) == 1e-3
            assert budget.stated(SINGLE, gradients=True) == 5e-3
        with budget.stating(None):
            assert budget.stated(SINGLE) == 0.0
        assert budget.stated(SINGLE) == 1e-3
    assert budget.stated(SINGLE) == 0.0
    with pytest.raises(KeyError), budget.stating(floor):
        raise KeyError
    assert budget.stated(SINGLE) == 0.0


def attended(*log_sums: float) -> Attended:
    nothing = np.zeros((1, 1, 1, 1))
    return Attended(
        output=nothing,
        weights=nothing,
        log_sums=np.array(log_sums).reshape(1, 1, -1),
        output_size=nothing,
        gradients=None,
        gradient_sizes=None,
    )


@pytest.mark.parametrize(
    ("dtype", "eps"),
    [(torch.float64, 2**-52), (SINGLE, 2**-23), (torch.bfloat16, 2**-23), (torch.float16, 2**-23)],
)
def test_a_rounded_logarithm_costs_two_units_of_it_in_float32_at_least(
    dtype: torch.dtype, eps: float
) -> None:
    assert budget.rounded_logarithms(attended(3.0, -500.0, 80.0), dtype) == 2 * eps * 500
    assert budget.rounded_logarithms(attended(), dtype) == 0.0


def test_twice_the_error_of_the_plain_implementation_is_allowed_or_the_floor() -> None:
    floor = 64 * 2**-23
    assert budget.allowed(1e-3, SINGLE) == 2e-3
    assert budget.allowed(1e-9, SINGLE) == floor
    assert budget.allowed(math.inf, SINGLE) == budget.allowed(math.nan, SINGLE) == floor
    assert budget.allowed(1e-9, SINGLE, attended(1000.0)) == 2 * 2**-23 * 1000
    assert budget.allowed(1e-9, SINGLE, attended(1.0)) == floor
    assert budget.allowed(math.inf, SINGLE, attended(1000.0)) == 2 * 2**-23 * 1000
    with budget.stating(Floor(relative=1e-2, gradients=3e-2, reason="8 bits")):
        assert budget.allowed(1e-3, SINGLE, attended(1.0)) == 1e-2
        assert budget.allowed(1e-3, SINGLE, attended(1.0), gradients=True) == 3e-2


# Comparing ------------------------------------------------------------------------------------------------------


def result(*rows: list[float]) -> Tensor:
    """(1, 1, rows, columns)."""
    return torch.tensor([[list(rows)]], dtype=torch.float64)


def test_an_error_is_the_largest_difference_in_units_of_the_largest_sum() -> None:
    expected, size = result([1.0, 2.0], [3.0, 4.0]).numpy(), result([5.0, 8.0], [1.0, 2.0]).numpy()
    assert budget.error(result([1.0, 2.0], [3.0, 4.0]), expected, size) == 0.0
    assert budget.error(result([1.0, 2.0], [3.0, 3.0]), expected, size) == 1 / 8
    assert budget.error(result([1.5, 2.0], [7.0, 3.0]), expected, size) == 4 / 8
    assert budget.error(result([1.0, math.nan], [3.0, 4.0]), expected, size) == math.inf
    assert budget.error(result([1.0, -math.inf], [3.0, 4.0]), expected, size) == math.inf
    nothing = np.zeros((1, 1, 0, 2))
    assert budget.error(torch.zeros(1, 1, 0, 2), nothing, nothing) == 0.0
    zero = np.zeros((1, 1, 1, 2))  # of nothing any difference is endlessly much
    assert budget.error(result([0.0, 0.0]), zero, zero) == 0.0
    assert budget.error(result([0.0, 1.0]), zero, zero) > 1e300


def test_who_is_beyond_the_budget_is_told_the_place_and_who_is_on_it_passes() -> None:
    expected = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    size = torch.full_like(expected, 2.0).numpy()
    found = expected.clone()
    found[1, 2, 3, 4] = -0.5
    found[0, 1, 1, 0] = 0.25
    facts: dict[str, Any] = {"what": "the result", "case": 7}
    with measurements() as errors:
        budget.demand_near(found, expected.numpy(), size, budget=0.25, **facts)
        with pytest.raises(Violation) as caught:
            budget.demand_near(found, expected.numpy(), size, budget=0.2, **facts)
    assert errors == [(0.25, 0.25), (0.25, 0.2)]
    assert caught.value.summary == (
        "the result differs from the formula in float64 by 2.5e-01 (relative; the budget is 2.0e-01), most at"
        " place 3 of head 2, row 1 of the batch"
    )
    told = {"error": 0.25, "budget": 0.2, "batch": 1, "head": 2, "place": 3, "case": 7}
    assert caught.value.facts == told
    with pytest.raises(Violation, match="x differs from y by"):
        budget.demand_near(found, expected.numpy(), size, budget=0.2, what="x", than="y")


# Kernels --------------------------------------------------------------------------------------------------------

CASE = AttentionCase(
    queries=5, keys=5, batch=2, heads=2, kv_heads=2, dtype="float32", mask="causal"
)


def blind(found: Problem) -> Problem:
    """The problem, whose second query sees nothing."""
    assert found.visible is not None
    visible = found.visible.copy()
    visible[..., 1, :] = False
    return replace(found, visible=visible)


class Kernel:
    """The plain implementation, but for what is added to its result and its gradients."""

    def __init__(
        self, found: Problem, *, output: float = 0.0, has: bool = True, **by: float
    ) -> None:
        self.found, self.off, self.by, self.able = found, output, by, has
        self.asked: list[Any] = []

    def output(self, call: Any, *, rows: Tensor) -> Tensor:
        self.asked.append(rows)
        output = plain(self.found).masked_fill(~rows, 0.0)
        output[1, 1, 2, 3] += self.off
        return output

    def gradients(self, found: Problem, by: str) -> tuple[Tensor, dict[str, Tensor]]:
        self.asked.append((found, by))
        gradients = budget.plain_gradients(found)
        for name, off in self.by.items():
            gradients[name][1, 1, 2, 3] += off
        output = plain(found)
        output[1, 1, 2, 3] += self.off
        output[:, :, 1] += 0.0 if budget.sighted(found)[..., 1, :].all() else 100.0  # nobody looks
        return output, {name: gradients[name] for name in by}

    def has(self, capability: str) -> bool:
        assert capability == "gradients"
        return self.able


def test_queries_that_see_a_key_are_sighted() -> None:
    found = problem(CASE)
    assert budget.sighted(found).shape == (1, 1, 5, 1)
    assert budget.sighted(found).all()
    seen = budget.sighted(blind(found))
    assert seen.dtype is torch.bool
    assert seen.flatten().tolist() == [True, False, True, True, True]
    everything = problem(replace_case(mask="none"))
    assert budget.sighted(everything).shape == (1, 1, 5, 1)
    assert budget.sighted(everything).all()
    k = everything.call.k[:, :, :0]
    none = replace(everything, call=replace(everything.call, k=k, v=k))
    assert not budget.sighted(none).any()
    there = problem(replace_case(mask="none"), device="meta")
    assert budget.sighted(there).device == torch.device("meta")
    assert budget.sighted(problem(CASE, device="meta")).device == torch.device("meta")
    assert budget.sighted(problem(replace_case(mask="none", keys=1))).all()


def replace_case(**changes: Any) -> AttentionCase:
    return msgspec.structs.replace(CASE, **changes)


def test_the_result_must_be_the_formulas_where_a_query_sees_a_key() -> None:
    found = blind(problem(CASE))
    kernel: Any = Kernel(found)
    with measurements() as errors:
        budget.demand_formula(kernel, found, case=7)
    ((error, allowed),) = errors
    assert 0 < error <= allowed < 1e-3
    (rows,) = kernel.asked
    assert rows.flatten().tolist() == [True, False, True, True, True]
    wrong: Any = Kernel(found, output=1e-2)
    with pytest.raises(Violation, match="the result differs from the formula in float64") as caught:
        budget.demand_formula(wrong, found, case=7)
    facts = caught.value.facts
    assert (facts["case"], facts["batch"], facts["head"], facts["place"]) == (7, 1, 1, 2)


def test_the_budget_of_a_result_is_twice_the_plain_ones_error_at_queries_that_see_a_key() -> None:
    """Half a unit of bfloat16 in the values, of which the plain result has an error that can be worked out."""
    found = blind(problem(replace_case(dtype="bfloat16", head_dim=16)))
    expected = found.expected()
    seen = plain(found).masked_fill(~budget.sighted(found), 0.0)
    own = budget.error(seen, expected.output, expected.output_size)
    with measurements() as errors:
        budget.demand_formula(Kernel(found), found)  # type: ignore[arg-type]
    assert errors == [(own, max(2 * own, 4 * 2**-7))]


@pytest.mark.parametrize("hidden", [False, True])
def test_gradients_must_be_the_formulas_and_the_result_with_them(hidden: bool) -> None:
    found = blind(problem(CASE)) if hidden else problem(CASE)
    kernel: Any = Kernel(found)
    with measurements() as errors:
        budget.demand_gradients(kernel, found, case=7)
    assert len(errors) == 4  # the result, and by q, k and v
    assert all(0 < error <= allowed < 1e-3 for error, allowed in errors)
    ((asked, by),) = kernel.asked
    assert by == "qkv"
    assert (asked.upstream[:, :, 1] == 0).all() == hidden
    assert (asked.upstream is found.upstream) == (not hidden)  # it keeps its strides
    some: Any = Kernel(found)
    budget.demand_gradients(some, found, by="kv")
    assert some.asked[0][1] == "kv"
    with pytest.raises(Violation, match="the result that has gradients differs") as caught:
        budget.demand_gradients(Kernel(found, output=1e-2), found, case=7)  # type: ignore[arg-type]
    assert caught.value.facts["case"] == 7
    for name in "qkv":
        with pytest.raises(Violation, match=f"the gradient by {name} differs") as caught:
            budget.demand_gradients(Kernel(found, **{name: 1e-2}), found, case=7)  # type: ignore[arg-type]
        assert caught.value.facts["case"] == 7


def test_the_budget_of_gradients_is_twice_the_plain_ones_error_or_what_is_stated_of_them() -> None:
    found = problem(replace_case(dtype="bfloat16"))
    expected = found.expected(gradients=True)
    own = budget.plain_gradients(found)
    floor = Floor(relative=1e-9, gradients=0.25, reason="8 bits")
    with measurements() as errors:
        budget.demand_gradients(Kernel(found), found)  # type: ignore[arg-type]
        with budget.stating(floor):
            budget.demand_gradients(Kernel(found), found)  # type: ignore[arg-type]
    for name, (error, allowed) in zip("qkv", errors[1:4], strict=True):
        exact, size = (
            getattr(part, name) for part in (expected.gradients, expected.gradient_sizes)
        )
        assert error == budget.error(own[name], exact, size)
        assert allowed == max(2 * error, 4 * 2**-7)
    assert [allowed for _, allowed in errors[5:]] == [0.25] * 3
    assert errors[4][1] == max(2 * errors[4][0], 4 * 2**-7)


def test_a_large_logarithm_widens_the_budgets_of_results_and_gradients() -> None:
    found = problem(replace_case(percent=1000))
    large = replace(found, call=replace(found.call, q=found.call.q * 40, k=found.call.k * 40))
    least = budget.rounded_logarithms(large.expected(), SINGLE)
    assert least > 64 * 2**-23
    with measurements() as errors:
        budget.demand_formula(Kernel(large), large)  # type: ignore[arg-type]
        budget.demand_gradients(Kernel(large), large)  # type: ignore[arg-type]
    assert all(allowed >= least for _, allowed in errors)


def test_both_are_demanded_of_kernels_with_gradients_where_every_query_sees_a_key() -> None:
    def count(found: Problem, *, has: bool = True) -> int:
        with measurements() as errors:
            budget.demand_both(Kernel(found, has=has), found)  # type: ignore[arg-type]
        return len(errors)

    found = problem(CASE)
    assert count(found) == 5
    assert count(found, has=False) == 1
    assert count(blind(found)) == 1
    with pytest.raises(Violation) as caught:
        budget.demand_both(Kernel(found, output=1e-2), found, case=7)  # type: ignore[arg-type]
    assert caught.value.facts["case"] == 7
    with pytest.raises(Violation) as caught:
        budget.demand_both(Kernel(found, q=1e-2), found, case=8)  # type: ignore[arg-type]
    assert caught.value.facts["case"] == 8


def test_plain_gradients_are_those_of_autograd_in_leaves_of_their_own() -> None:
    found = problem(CASE)
    with torch.no_grad():
        gradients = budget.plain_gradients(found)
    assert list(gradients) == ["q", "k", "v"]
    assert not found.call.q.requires_grad
    expected = found.expected(gradients=True)
    for name, gradient in gradients.items():
        exact = torch.from_numpy(getattr(expected.gradients, name)).float()
        assert torch.allclose(gradient, exact, atol=1e-4)
    wanting = replace(found, call=replace(found.call, q=found.call.q.clone().requires_grad_()))
    budget.plain_gradients(wanting)
    assert wanting.call.q.grad is None
