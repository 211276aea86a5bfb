"""Running a batch twice: the same candidate in another way, compared in every dtype.

In float64 the two agree to rounding. In a lower precision each may be as far from the exact result as `agreement`
allows, and the two may be as far from each other as that together: the budget is measured on the reference, in that
dtype and on that device.
"""

from __future__ import annotations

from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import ALL_DTYPES, Skip, Violation, measured
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.sharing import shared
from holotype_conformance.judge.tolerance import demand_equal, rms_error
from holotype_conformance.models.cases import BatchCase, asked, batch_inputs, paddings
from holotype_conformance.models.properties.rounding import (
    ROUNDING_FACTOR,
    own_error,
    rounded_to,
    run_oracle,
)
from holotype_conformance.models.subject import Subject
from holotype_reference.support import unsupported


class TwiceCase(BatchCase, frozen=True, kw_only=True):
    """A batch that is run twice, in one dtype."""

    dtype: DType = "float64"


def twice_cases(
    subject: Subject, dtypes: tuple[DType, ...] = ALL_DTYPES, *, batches: tuple[int, int] = (2, 5)
) -> st.SearchStrategy[TwiceCase]:
    """Batches in those of `dtypes` that were asked for and can be compared."""
    return st.builds(
        TwiceCase,
        length=st.integers(3, 24),
        batch=st.integers(*batches),
        padding=paddings(subject, ("left", "right", "none")),
        layers=st.sampled_from((1, 2)),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
        dtype=asked(subject, comparable(subject, dtypes)),
    )


def comparable(subject: Subject, dtypes: tuple[DType, ...]) -> tuple[DType, ...]:
    """Those of `dtypes` that have a budget: below float64 it takes the reference to measure one.

    Raises:
        Skip: none of those that were asked for has.
    """
    reason = unmeasured(subject)
    found = tuple(dtype for dtype in dtypes if reason is None or dtype == "float64")
    if not set(found) & set(subject.asked):
        raise Skip(f"nothing to measure a budget by: {reason}")
    return found


def unmeasured(subject: Subject) -> str | None:
    """Why the reference's rounding is no measure for this candidate, or None."""
    if subject.spec.family.generic:
        return "a generic spec has no reference"
    missing = unsupported(subject.spec)
    return f"the reference has no {missing[0]} yet" if missing else subject.capabilities["weights"]


# Budgets --------------------------------------------------------------------------------------------------


@shared
def allowance(subject: Subject, case: TwiceCase) -> float:
    """The tolerance of one run against the exact result: half of what may lie between two."""
    if case.dtype == "float64":
        return subject.floor / 2
    weights = subject.weights(case.layers, case.weights, "steady")
    rounded, inputs = rounded_to(case.dtype, weights), batch_inputs(subject, case)
    exact = run_oracle(subject, case, rounded, inputs)
    setup = case.setup("default", dtype=case.dtype)
    return ROUNDING_FACTOR[case.dtype] * own_error(subject, setup, rounded, inputs, exact)


def demand_alike(
    actual: Tensor,
    expected: Tensor,
    *,
    rows: Tensor,
    case: TwiceCase,
    budget: float,
    what: str,
) -> None:
    """Demand that two runs agree, in float64 everywhere and below in root mean square.

    Raises:
        Violation: they do not.
    """
    actual, expected = actual.cpu(), expected.cpu()
    rows = rows.cpu()
    if case.dtype == "float64":
        demand_equal(actual, expected, rows=rows, budget=budget, what=what)
        return
    error = rms_error(actual[rows], expected[rows])
    measured(error, budget)
    if not error <= budget:
        raise Violation(
            f"in {case.dtype} {what} differ by {error:.1e} (relative root mean square); twice what the reference's"
            f" own rounding allows is {budget:.1e}",
            error=error,
            budget=budget,
        )
