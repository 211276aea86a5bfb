"""Comparing two tensors of outputs: at real positions only, and relative to the size of what is expected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from holotype_conformance.judge.property import Violation, measured


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The largest absolute difference over the root mean square of `expected`, both in float64."""
    if actual.numel() == 0:
        return 0.0
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max() / _size(expected))


def rms_error(actual: Tensor, expected: Tensor) -> float:
    """The root mean square of the difference over that of `expected`, both in float64.

    Steadier than the largest difference: what decides where rounding itself is compared.
    """
    if actual.numel() == 0:
        return 0.0
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).square().mean().sqrt() / _size(expected))


def _size(expected: Tensor) -> Tensor:
    """The root mean square, and never zero: nothing differs from nothing by nothing."""
    return expected.square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)


def largest_error(errors: Mapping[str, float]) -> tuple[str, float]:
    """The name of the largest error, and that error; one that is no number is larger than any.

    `max` alone would lose it: no comparison with a NaN is true.
    """
    name = max(errors, key=lambda each: math.inf if math.isnan(errors[each]) else errors[each])
    return name, errors[name]


def moved(before: Tensor, after: Tensor, stillness: float) -> Tensor:
    """(batch, length) bool: which outputs have moved; a NaN always has, as it equals nothing.

    Args:
        before: (batch, length, …).
        after: the same shape.
        stillness: 0 where every bit counts, else the largest difference over the root mean square of `before`
            that is rounding.
    """
    differs = before != after
    if not stillness:
        return differs.any(-1)
    real = before[before.isfinite()]  # padding content may be anything
    rounding = stillness * real.double().square().mean().sqrt()
    near = (before.double() - after.double()).abs() <= rounding
    return (differs & ~near).any(-1)


def demand_equal(
    actual: Tensor,
    expected: Tensor,
    *,
    rows: Tensor,
    budget: float,
    what: str,
    stated: float = 0.0,
    **facts: Any,
) -> None:
    """Demand that two outputs agree at real positions to within `budget`, or to within what the candidate states.

    Args:
        actual: (batch, length, …).
        expected: the same shape.
        rows: (batch, length) bool, the positions that are compared.
        budget: the largest `relative_error` that is rounding.
        what: names what is compared with what, for the message: "X and Y".
        stated: the largest `rms_error` that the candidate declares to be its precision.
        facts: go into the violation.

    Raises:
        Violation: they differ by more; it names the position where they differ most.
    """
    error = relative_error(actual[rows], expected[rows])
    if stated and not error <= budget:
        _demand_stated(actual[rows], expected[rows], stated, what, facts)
        return
    measured(error, budget)
    if error <= budget:
        return
    difference = (actual.double() - expected.double()).abs().flatten(2).amax(-1)
    worst = int(torch.where(rows, difference, -1.0).argmax())
    row, position = divmod(worst, rows.shape[1])
    raise Violation(
        f"{what} differ by {error:.1e} (relative; rounding stays below {budget:.0e}),"
        f" most at position {position} of row {row}{_shifted(actual[rows], expected[rows], budget)}",
        error=error,
        budget=budget,
        row=row,
        position=position,
        **facts,
    )


def _shifted(actual: Tensor, expected: Tensor, budget: float) -> str:
    """Of numbers that all are off by one number at each position: what that means for a softmax over them."""
    if actual.shape[-1] < 3:
        return ""
    difference = actual.detach().double() - expected.detach().double()
    rest = difference - difference.mean(-1, keepdim=True)
    if not relative_error(expected.detach().double() + rest, expected) <= budget:
        return ""
    return "; at each position all are off by one number, so that a softmax over them gives the same probabilities"


def _demand_stated(
    actual: Tensor, expected: Tensor, stated: float, what: str, facts: dict[str, Any]
) -> None:
    """Demand that two outputs are as near to each other as the candidate states."""
    error = rms_error(actual, expected)
    measured(error, stated)
    if not error <= stated:
        raise Violation(
            f"{what} differ by {error:.1e} (relative root mean square); the candidate states that it may be {stated:g}",
            error=error,
            budget=stated,
            **facts,
        )
