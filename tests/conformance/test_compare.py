"""Comparing outputs: hand-worked numbers."""

import pytest
import torch

from holotype_conformance.compare import demand_equal, relative_error, rms_error
from holotype_conformance.property import Violation


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
