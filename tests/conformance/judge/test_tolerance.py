"""Comparing outputs: hand-worked numbers."""

import math

import pytest
import torch

from holotype_conformance.judge.property import Violation, measurements
from holotype_conformance.judge.tolerance import (
    demand_equal,
    largest_error,
    moved,
    relative_error,
    rms_error,
)


def test_the_relative_error_is_the_largest_difference_over_the_root_mean_square() -> None:
    expected = torch.tensor([3.0, 4.0, 0.0, 0.0])  # root mean square 2.5
    actual = torch.tensor([3.0, 4.5, -0.25, 0.0])
    assert relative_error(actual, expected) == pytest.approx(0.5 / 2.5)


def test_the_rms_error_is_that_of_the_difference_over_that_of_the_expected() -> None:
    expected = torch.tensor([3.0, 4.0, 0.0, 0.0])
    actual = torch.tensor([3.0, 4.0, 3.0, 4.0])
    assert rms_error(actual, expected) == pytest.approx(1.0)


def test_half_precision_is_compared_in_float64() -> None:
    expected = torch.tensor([1.0, 1.0], dtype=torch.bfloat16)
    actual = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)  # one unit in the last place
    assert relative_error(actual, expected) == 0.0078125


def test_nothing_to_compare_is_no_difference() -> None:
    assert relative_error(torch.empty(0, 5), torch.empty(0, 5)) == 0.0
    assert rms_error(torch.empty(0, 5), torch.empty(0, 5)) == 0.0


def test_a_difference_at_padding_is_not_seen() -> None:
    expected = torch.ones(1, 2, 3)
    actual = expected.clone()
    actual[0, 1] = 100.0
    demand_equal(
        actual, expected, rows=torch.tensor([[True, False]]), budget=0.0, what="these and those"
    )


def test_a_difference_is_named_by_its_row_and_position() -> None:
    expected = torch.ones(2, 3, 4)
    actual = expected.clone()
    actual[0, 1, 2] += 0.1
    actual[1, 2, 0] += 0.5
    with pytest.raises(Violation, match=r"these and those differ .* position 2 of row 1") as caught:
        demand_equal(
            actual,
            expected,
            rows=torch.ones(2, 3, dtype=torch.bool),
            budget=1e-12,
            what="these and those",
            path="eager",
        )
    assert caught.value.facts["row"] == 1
    assert caught.value.facts["position"] == 2
    assert caught.value.facts["path"] == "eager"
    assert caught.value.facts["error"] == pytest.approx(0.5)


@pytest.mark.parametrize(("moved_by", "said"), [([0.5, 0.5, 0.5], True), ([0.5, 0.5, 0.4], False)])
def test_one_number_a_position_is_told_from_other_differences(
    moved_by: list[float], said: bool
) -> None:
    expected = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 0.0, -1.0]]], dtype=torch.float64)
    actual = expected.clone()
    actual[0, 1] += torch.tensor(moved_by)
    rows = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(Violation) as caught:
        demand_equal(actual, expected, rows=rows, budget=1e-12, what="both")
    assert ("gives the same probabilities" in caught.value.summary) is said


def test_a_nan_is_never_equal() -> None:
    expected = torch.ones(1, 1, 2)
    with pytest.raises(Violation):
        demand_equal(
            torch.full_like(expected, torch.nan),
            expected,
            rows=torch.ones(1, 1, dtype=torch.bool),
            budget=1e9,
            what="these and those",
        )


@pytest.mark.parametrize("stated", [0.0, 0.1])
def test_a_nan_is_never_as_near_as_stated(stated: float) -> None:
    expected = torch.ones(1, 2, 2)
    actual = expected.clone()
    actual[0, 1, 1] = torch.nan
    rows = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(Violation):
        demand_equal(actual, expected, rows=rows, budget=1.0, what="both", stated=stated)


@pytest.mark.parametrize("order", ["abc", "cab", "bca"])
def test_of_several_errors_one_that_is_no_number_is_the_largest(order: str) -> None:
    errors = {"a": 0.5, "b": math.nan, "c": 2.0}
    name, error = largest_error({each: errors[each] for each in order})
    assert name == "b"
    assert math.isnan(error)
    assert largest_error({"a": 0.5, "c": 2.0}) == ("c", 2.0)


# Numbers of low precision, gradients and nothing ------------------------------------------------------------------


def test_squares_that_no_half_precision_holds_are_squared_all_the_same() -> None:
    expected = torch.full((4,), 300.0, dtype=torch.float16)  # its square is beyond 65,504
    actual = expected + torch.tensor([0.25, 0.0, 0.0, 0.0], dtype=torch.float16)
    assert relative_error(actual, expected) == pytest.approx(0.25 / 300.0)
    assert rms_error(actual, expected) == pytest.approx(0.125 / 300.0)
    assert moved(expected[None, None], actual[None, None], 0.9 * 0.25 / 300.0).tolist() == [[True]]
    assert moved(expected[None, None], actual[None, None], 1.1 * 0.25 / 300.0).tolist() == [[False]]


def test_tensors_with_a_history_are_compared_without_a_word() -> None:  # warnings are errors here
    one, two = (torch.tensor([2.0, -2.0], requires_grad=True) for _ in range(2))
    assert relative_error(one + 1.0, two) == rms_error(one + 1.0, two) == 0.5
    assert relative_error(one.detach(), two + 1.0) == pytest.approx(1.0 / 5.0**0.5)
    assert rms_error(one.detach(), two + 1.0) == pytest.approx(1.0 / 5.0**0.5)


def test_nothing_differs_from_nothing_by_nothing_and_something_by_more_than_any_budget() -> None:
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0.0
    assert relative_error(torch.full((3,), 1e-30), torch.zeros(3)) > 1e100
    assert rms_error(torch.zeros(3), torch.zeros(3)) == 0.0
    assert rms_error(torch.full((3,), 1e-30), torch.zeros(3)) > 1e100


# What has moved ---------------------------------------------------------------------------------------------------


def test_an_output_has_moved_if_one_of_its_numbers_has() -> None:
    before = torch.full((2, 3, 2), 2.0, dtype=torch.float64)
    after = before.clone()
    after[1, 2, 0] += 1.0
    expected = [[False, False, False], [False, False, True]]
    assert moved(before, after, 0.0).tolist() == expected
    assert moved(before, after, 0.4).tolist() == expected  # of a size of 2: 0.8 is rounding
    assert not moved(before, after, 0.5).any()  # 1.0 is the largest that is


def test_what_stands_at_padding_says_nothing_of_the_size_of_the_rest() -> None:
    before = torch.tensor([[[2.0], [torch.inf], [torch.nan]]])
    after = before.clone()
    after[0, 0] += 0.5
    assert moved(before, after, 0.2).tolist()[0][0] is True
    assert moved(before, after, 0.3).tolist()[0][0] is False


# Where outputs differ most ----------------------------------------------------------------------------------------


def worst(actual: torch.Tensor, expected: torch.Tensor, rows: torch.Tensor) -> tuple[int, int]:
    with pytest.raises(Violation) as caught:
        demand_equal(actual, expected, rows=rows, budget=1e-6, what="these and those")
    assert caught.value.facts["budget"] == 1e-6
    return caught.value.facts["row"], caught.value.facts["position"]


def test_the_position_is_that_of_the_largest_difference_up_or_down() -> None:
    expected = torch.tensor([[[100.0], [1.0], [1.0]], [[1.0], [1.0], [1.0]]])
    actual = expected.clone()
    actual[0, 2] += 0.25
    actual[1, 1] -= 0.5
    assert worst(actual, expected, torch.ones(2, 3, dtype=torch.bool)) == (1, 1)


def test_the_position_is_a_real_one_though_padding_differs_by_more() -> None:
    expected = torch.ones(1, 3, 2)
    actual = expected.clone()
    actual[0, 0] = 100.0
    actual[0, 1] += 0.25
    rows = torch.tensor([[False, True, True]])
    assert worst(actual, expected, rows) == (0, 1)


def test_outputs_may_have_several_axes_behind_the_position() -> None:
    expected = torch.ones(2, 3, 4, 5)
    actual = expected.clone()
    actual[1, 0, 3, 2] = 0.0
    assert worst(actual, expected, torch.ones(2, 3, dtype=torch.bool)) == (1, 0)


# Off by one number at each position -------------------------------------------------------------------------------


def is_told_as_shifted(expected: torch.Tensor, change: torch.Tensor, budget: float) -> bool:
    """Whether two positions of logits that are off by `change` (2, vocabulary) are said to be off by one number."""
    rows = torch.ones(1, 2, dtype=torch.bool)
    actual = (expected + change)[None]
    with pytest.raises(Violation) as caught:
        demand_equal(actual, expected[None], rows=rows, budget=budget, what="these and those")
    return "so that a softmax over them gives the same probabilities" in caught.value.summary


ONES = torch.ones(2, 3, dtype=torch.float64)


def test_logits_that_are_off_by_one_number_at_each_position_are_told_as_such() -> None:
    each = torch.tensor([[5.0], [-7.0]]).double()
    assert is_told_as_shifted(ONES, each.expand(2, 3), 1e-12)
    assert not is_told_as_shifted(ONES, torch.tensor([[5.0, 5.0, 5.0], [1.0, 2.0, 3.0]]), 1e-12)
    assert not is_told_as_shifted(ONES, torch.tensor([5.0, -7.0, 1.0]).expand(2, 3), 1e-12)
    assert not is_told_as_shifted(ONES[:, :2], each.expand(2, 2), 1e-12)  # two say little
    uneven = each + torch.tensor([0.25, -0.25, 0.0])  # what is left has the size of a quarter
    assert is_told_as_shifted(ONES, uneven, 0.25)
    assert not is_told_as_shifted(ONES, uneven, 0.2)
    assert is_told_as_shifted(4 * ONES, uneven, 0.0625)  # relative to what was expected


def test_what_is_left_of_a_shift_is_seen_behind_the_rounding_of_half_precision() -> None:
    close = torch.tensor([[1.0, 1.0078125, 1.0]] * 2, dtype=torch.bfloat16)
    # 101 for each of them, in steps of half a unit: off by 100, and once by a hundredth less
    assert not is_told_as_shifted(close, torch.full((2, 3), 100.0).bfloat16(), 1e-3)
    assert is_told_as_shifted(close, torch.full((2, 3), 100.0).bfloat16(), 1e-2)


# What a candidate states of its precision -------------------------------------------------------------------------


def stated_demand(error: float, budget: float, stated: float) -> list[tuple[float, float]]:
    """What is measured of ones that are off by `error`, in each of which the largest error is the typical one."""
    expected = torch.ones(1, 2, 3, dtype=torch.float64)
    rows = torch.ones(1, 2, dtype=torch.bool)
    with measurements() as found:
        demand_equal(
            expected * (1.0 + error),
            expected,
            rows=rows,
            budget=budget,
            stated=stated,
            what="these and those",
            case=7,
        )
    return found


def test_beyond_rounding_a_candidate_is_held_to_what_it_states() -> None:
    assert stated_demand(0.25, 0.125, 0.5) == [(0.25, 0.5)]
    assert stated_demand(0.25, 0.125, 0.25) == [(0.25, 0.25)]
    assert stated_demand(0.125, 0.125, 0.5) == [(0.125, 0.125)]  # it needs none of it
    with pytest.raises(Violation, match=r"the candidate states that it may be 0\.25") as caught:
        stated_demand(0.5, 0.125, 0.25)
    assert caught.value.facts == {"error": 0.5, "budget": 0.25, "case": 7}
    with pytest.raises(Violation, match="rounding stays below 1e-01"):
        stated_demand(0.25, 0.125, 0.0)
