"""The decision of the timed gate, on clocks that are made up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from holotype_conformance.bench.pairs import PAIRS, SAME_CODE, calls_for, compare


def steady(seconds: float) -> Callable[[int], float]:
    return lambda number: seconds


def test_a_tenth_more_is_over_the_limit_in_both_windows() -> None:
    found = compare(steady(1.1), steady(1.0), against="it", limit=SAME_CODE)
    assert found.slower
    assert found.windows == pytest.approx((1.1, 1.1))


def test_the_same_time_is_not_slower_and_costs_one_window() -> None:
    numbers: list[int] = []

    def counted(number: int) -> float:
        numbers.append(number)
        return 1.0

    found = compare(counted, steady(1.0), against="it", limit=SAME_CODE)
    assert not found.slower
    assert len(numbers) == PAIRS == 15


def test_one_bad_window_is_not_enough() -> None:
    found = compare(
        lambda number: 2.0 if number < PAIRS else 1.0, steady(1.0), against="it", limit=SAME_CODE
    )
    assert found.windows == (2.0, 1.0)
    assert not found.slower


def test_seven_disturbed_pairs_of_fifteen_change_nothing() -> None:
    found = compare(
        lambda number: 5.0 if number % PAIRS < 7 else 1.0,
        steady(1.0),
        against="it",
        limit=SAME_CODE,
    )
    assert found.windows == (1.0,)


def test_who_comes_first_changes_with_each_pair() -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[int], float]:
        return lambda number: (order.append(name), 1.0)[1]

    compare(named("candidate"), named("other"), against="it", limit=None, pairs=4)
    assert order == ["other", "candidate", "candidate", "other"] * 2


def test_without_a_limit_nothing_is_judged() -> None:
    assert not compare(steady(9.0), steady(1.0), against="it", limit=None).slower


def test_no_false_alarm_and_no_miss_at_the_scatter_that_was_measured() -> None:
    # Pairs scatter by 2 to 5 per cent on the machines of the project, loaded or not.
    draw = random.Random(0)

    def noisy(seconds: float) -> Callable[[int], float]:
        return lambda number: seconds * draw.lognormvariate(0.0, 0.035)

    def verdicts(seconds: float) -> list[bool]:
        return [
            compare(noisy(seconds), noisy(1.0), against="it", limit=SAME_CODE).slower
            for _ in range(1000)
        ]

    assert sum(verdicts(1.0)) < 10
    assert sum(verdicts(1.1)) > 990


def test_short_calls_are_timed_many_at_a_time() -> None:
    assert calls_for(1e-3, 1000) == 20
    assert calls_for(0.5, 1000) == 1


def test_what_returns_at_once_does_not_fill_the_memory_with_inputs() -> None:
    assert calls_for(1e-9, 1) == 200
    assert calls_for(1e-9, 1 << 24) == 4
    assert calls_for(1e-9, 1 << 30) == 1
