"""Scores and values at the edges of what a dtype can hold."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.cases import AttentionCase, Problem, as_array, cases
from holotype_conformance.kernels.claims import claim, drawn
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import demand_near, rounded_logarithms, rounding

Array = NDArray[np.float64]
WIDTH = 16  # the root is 4, so that scales are exact


def _small(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    return cases(subject.dtypes, head_dims=(WIDTH,), equal=False)


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A constant vector of one sign for each place: the products of two are ± the same number."""
    return np.broadcast_to(rng.choice([-1.0, 1.0], shape[:3])[..., None], shape).copy()


def _extreme(problem: Problem, *, q: float, k: float) -> Problem:
    """With constant queries of ±q and keys of ±k; values stay within [-1, 1], which hides no error."""
    call = problem.call
    return problem.changed(q=call.q.sign() * q, k=call.k.sign() * k, v=call.v)


def _demand_exact(subject: KernelSubject, problem: Problem, what: str) -> None:
    """All weights are equal or zero here: no rounding of scores is left to excuse a difference, only that of the
    logarithm of a sum of powers, which is as large as they are."""
    expected = problem.expected()
    output = subject.output(problem.call)
    demand_near(
        output,
        expected.output,
        expected.output_size,
        budget=2 * rounding(output.dtype) + rounded_logarithms(expected, output.dtype),
        what=what,
    )


@claim(
    slug="extremes.large-scores",
    clause="Scores of ±1e4 neither overflow nor vanish.",
    meaning=(
        "Scores of +10240 and -10240 in one row give the mean of the values at the largest, "
        "exactly, and finite gradients: the maximum must be subtracted before the power is taken, "
        "block by block as well. Look for exp of an unshifted score, and for a running maximum "
        "that starts at a finite number such as -1e4."
    ),
    catches=("no maximum subtracted", "a running maximum that starts at -1e4"),
    cases=_small,
    examples=15,
)
def large_scores(subject: KernelSubject, case: AttentionCase) -> None:
    # 64 · 40 · 16 / 4 = 10240, and 40960 before the scale, which half precision still holds.
    problem = _extreme(subject.problem(case, draw=_signs), q=64.0, k=40.0)
    _demand_exact(subject, problem, "the result for scores of ±10240")
    if subject.has("gradients"):
        subject.differentiated(problem)


class LowScoresCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """All scores are `score` thousand."""

    score: int = -10


def _low(subject: KernelSubject) -> st.SearchStrategy[LowScoresCase]:
    def low(case: AttentionCase, score: int) -> LowScoresCase:
        return LowScoresCase(**msgspec.structs.asdict(case), score=score)

    return st.builds(low, _small(subject), st.sampled_from((-10, 10, -1, 1)))


@claim(
    slug="extremes.equal-scores",
    clause="Equal scores of any size give the mean.",
    meaning=(
        "Scores that are all the same, be they -10000 or +10000, give the mean of the values. "
        "Scores that are all very low must not be taken for masked ones. Look for a mask that is "
        "recognised by its size, for a denominator with an epsilon, and for a maximum that starts "
        "at zero or at -1e4."
    ),
    catches=("a low score taken for a mask", "an epsilon in the denominator"),
    cases=_low,
    examples=15,
)
def equal_scores(subject: KernelSubject, case: LowScoresCase) -> None:
    problem = subject.problem(case)
    size = 1000.0 * abs(case.score) / 4.0  # times q = 1, 16 of head dim, over 4 of scale
    key = float(np.copysign(size, case.score))
    call = problem.call
    problem = problem.changed(q=torch.ones_like(call.q), k=torch.full_like(call.k, key))
    _demand_exact(subject, problem, f"the result for scores of {case.score} thousand")
    if subject.has("gradients"):
        subject.differentiated(problem)


@claim(
    slug="extremes.additive-mask",
    clause="Biases of ±1e4 and -inf are exact.",
    meaning=(
        "An additive mask with -inf, -10240, 0 and +10240 in one row gives the mean of the values "
        "at the largest finite one, and finite gradients: -inf beside large numbers must make no "
        "NaN. Look for -inf minus -inf in a block in which everything is hidden, which needs a "
        "guard of its own."
    ),
    catches=("NaN from a block that is hidden whole", "a bias clamped"),
    needs=("additive-mask",),
    wants=("unmasked",),  # else some queries would see no key
    cases=_small,
    examples=20,
)
def additive_mask(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    call = problem.call
    shape = (case.batch, case.heads, case.queries, case.keys)
    rng = np.random.default_rng([11, case.data])
    bias = rng.choice([-np.inf, -np.inf, -10240.0, 0.0, 10240.0], shape)
    half = (case.keys + 1) // 2
    bias[..., :half] = -np.inf  # whole blocks
    bias[..., -1] = rng.choice([-10240.0, 0.0], shape[:3])
    mask = torch.from_numpy(bias).to(call.q)
    problem = replace(problem, call=replace(call, q=torch.zeros_like(call.q), mask=mask), bias=bias)
    _demand_exact(subject, problem, "the result for a mask of -inf and ±10240")
    if subject.has("gradients"):
        subject.differentiated(problem)


@claim(
    slug="extremes.large-values",
    clause="Means of large values do not overflow.",
    meaning=(
        "Values near the largest number of the dtype (60000 in float16) have a mean that the "
        "dtype holds. Look for sums of values that are divided only at the end and kept in half "
        "precision meanwhile."
    ),
    catches=("the sum of values kept in float16",),
    cases=drawn(equal=False),
    examples=15,
)
def large_values(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    call = problem.call
    top = torch.full_like(call.v, 57344.0)  # 7/8 of 2^16
    output = subject.output(replace(call, q=torch.zeros_like(call.q), v=top))
    away = float(np.abs(as_array(output) / 57344.0 - 1.0).max())
    # All weights are the same number and are rounded the same way.
    slack = rounding(output.dtype)
    if not away <= slack:
        raise Violation(
            f"the mean of values that are all 57344 is wrong by {away:.1e} (relative; rounding stays"
            f" below {slack:.0e})",
            error=away,
        )


@claim(
    slug="extremes.products-overflow",
    clause="Products over the dtype’s range are scaled first.",
    level="should",
    meaning=(
        "Where the scaled score is small enough for the dtype but the product before it is not "
        "(above 65504 in float16), the result is still right if the product is kept in float32 or "
        "the scale is applied to q and k first. Otherwise activations that are a little larger "
        "than usual become NaN in half precision only."
    ),
    catches=("the unscaled product kept in float16",),
    cases=_small,
    examples=15,
)
def products_overflow(subject: KernelSubject, case: AttentionCase) -> None:
    # 128 · 64 · 16 = 131072 is no number of float16; a quarter of it, 32768, is.
    problem = _extreme(subject.problem(case, draw=_signs), q=128.0, k=64.0)
    _demand_exact(subject, problem, "the result for products of ±131072")
