"""The tolerance of a result: twice the plain implementation's own error in the same dtype, with a floor.

An error is the largest difference from the oracle, in units of the largest sum of absolute terms: what cancels in a
sum leaves its rounding behind. The floor is for small problems, in which the plain result is exact by luck.

Weights may be computed without a division, as exp(s - L) with L, the logarithm of the sum of powers, rounded to u |L|
(u: half a unit of rounding), which changes every weight of the row by as much, relative to it (Blanchard, Higham and
Higham 2021, section 4: that form is less accurate where L is large, and no mistake). So are those that backward passes
recompute. Two such roundings, with the factor of two that the plain implementation's error has, are 2 eps |L|. L is
kept in float32 at least: in half precision it would cost whole weights.

A kernel that rounds further than its dtype does, because it multiplies in TensorFloat or keeps its keys in 8 bits,
states how far (`KernelCandidate.floor`): that is its floor then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holotype_conformance.judge.declaring import Floor
from holotype_conformance.judge.property import Violation, measured
from holotype_conformance.kernels.cases import DTYPES, Problem, as_array
from holotype_conformance.kernels.oracle import Attended
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.subject import KernelSubject

FACTOR = 2.0
# The floor in units of rounding. In full precision the powers cost most: exp(score - log of the sum), which backward
# passes recompute, loses as many units as these numbers are large. Half-precision kernels compute them in float32, and
# round weights and results.
FLOORS = {torch.float64: 64.0, torch.float32: 64.0, torch.bfloat16: 4.0, torch.float16: 4.0}

Array = NDArray[np.float64]


_STATED: ContextVar[Floor | None] = ContextVar("stated", default=None)


@contextmanager
def stating(floor: Floor | None) -> Iterator[None]:
    """Inside, budgets are those of a kernel that states this floor."""
    token = _STATED.set(floor)
    try:
        yield
    finally:
        _STATED.reset(token)


def stated(dtype: torch.dtype, *, gradients: bool = False) -> float:
    """The error of results, or gradients, that the kernel states; twice as much for gradients unless it says so."""
    floor = _STATED.get()
    if floor is None:
        return 0.0
    outputs = floor.outputs(next(name for name, each in DTYPES.items() if each is dtype))
    if not gradients:
        return outputs
    return 2.0 * outputs if floor.gradients is None else floor.gradients


def rounding(dtype: torch.dtype, *, gradients: bool = False) -> float:
    """The floor for results, or gradients, of `dtype`."""
    return max(FLOORS[dtype] * torch.finfo(dtype).eps, stated(dtype, gradients=gradients))


def rounded_logarithms(expected: Attended, dtype: torch.dtype) -> float:
    """The relative error of weights that are powers of scores less a rounded logarithm."""
    if not expected.log_sums.size:
        return 0.0
    kept = torch.promote_types(dtype, torch.float32)
    return FACTOR * torch.finfo(kept).eps * float(np.abs(expected.log_sums).max())


def explained(dtype: torch.dtype) -> float:
    """The largest error of an explanation for results of `dtype`: a change of the formula may amplify rounding."""
    return 4.0 * rounding(dtype)


def error(actual: Tensor, expected: Array, size: Array) -> float:
    """The largest difference in units of the largest `size`."""
    if expected.size == 0:
        return 0.0
    unit = max(float(size.max()), np.finfo(np.float64).tiny)
    found = float(np.abs(as_array(actual) - expected).max()) / unit
    return found if np.isfinite(found) else float("inf")


def demand_near(
    actual: Tensor,
    expected: Array,
    size: Array,
    *,
    budget: float,
    what: str,
    than: str = "the formula in float64",
    **facts: Any,
) -> None:
    """Demand that `actual` is within `budget` of `expected`.

    Args:
        actual: (batch, heads, length, head_dim).
        expected, size: the same shape; see `error`.
        budget: the largest error.
        what: what is compared, for the message.
        than: with what it is compared.
        facts: go into the violation.

    Raises:
        Violation: it is not; the message names the place.
    """
    found = error(actual, expected, size)
    measured(found, budget)
    if found <= budget:
        return
    difference = np.abs(as_array(actual) - expected).max(axis=-1)
    batch, head, place = (int(i) for i in np.unravel_index(difference.argmax(), difference.shape))
    raise Violation(
        f"{what} differs from {than} by {found:.1e} (relative; the budget is {budget:.1e}), most at"
        f" place {place} of head {head}, row {batch} of the batch",
        error=found,
        budget=budget,
        batch=batch,
        head=head,
        place=place,
        **facts,
    )


def demand_formula(subject: KernelSubject, problem: Problem, **facts: Any) -> None:
    """Demand that the kernel's result for a problem is the formula's.

    Queries that see no key are left out.
    """
    _demand_result(subject, problem, problem.expected(), plain(problem), **facts)


def _demand_result(
    subject: KernelSubject, problem: Problem, expected: Attended, reference: Tensor, **facts: Any
) -> None:
    rows = sighted(problem)
    output = subject.output(problem.call, rows=rows)
    measured = error(reference.masked_fill(~rows, 0.0), expected.output, expected.output_size)
    demand_near(
        output,
        expected.output,
        expected.output_size,
        budget=allowed(measured, output.dtype, expected),
        what="the result",
        **facts,
    )


def demand_gradients(
    subject: KernelSubject, problem: Problem, *, by: str = "qkv", **facts: Any
) -> None:
    """Demand that the kernel's gradients by q, k and v, or some of them, are the formula's, and the result with them.

    No gradient arrives at queries that see no key.
    """
    rows = sighted(problem)
    if not rows.all():  # else it keeps its strides
        problem = replace(problem, upstream=problem.upstream.masked_fill(~rows, 0.0))
    expected = problem.expected(gradients=True)
    _demand_gradients(subject, problem, by, expected, plain_both(problem), **facts)


def _demand_gradients(
    subject: KernelSubject,
    problem: Problem,
    by: str,
    expected: Attended,
    reference: tuple[Tensor, dict[str, Tensor]],
    **facts: Any,
) -> None:
    assert expected.gradients is not None
    assert expected.gradient_sizes is not None
    rows = sighted(problem)
    output, found = subject.gradients(problem, by)
    plainly, gradients = reference
    measured = error(plainly.masked_fill(~rows, 0.0), expected.output, expected.output_size)
    demand_near(
        output.masked_fill(~rows, 0.0),
        expected.output,
        expected.output_size,
        budget=allowed(measured, output.dtype, expected),
        what="the result that has gradients",
        **facts,
    )
    for name in by:
        right, size = getattr(expected.gradients, name), getattr(expected.gradient_sizes, name)
        measured = error(gradients[name], right, size)
        demand_near(
            found[name],
            right,
            size,
            budget=allowed(measured, output.dtype, expected, gradients=True),
            what=f"the gradient by {name}",
            **facts,
        )


def demand_both(subject: KernelSubject, problem: Problem, **facts: Any) -> None:
    """`demand_formula`, and `demand_gradients` of a kernel that has them; the formula is computed once for both.

    Where some query sees no key there are no demands on gradients: that is a property of its own (masks.no-key).
    """
    if not (subject.has("gradients") and bool(sighted(problem).all())):
        demand_formula(subject, problem, **facts)
        return
    expected, reference = problem.expected(gradients=True), plain_both(problem)
    _demand_result(subject, problem, expected, reference[0], **facts)
    _demand_gradients(subject, problem, "qkv", expected, reference, **facts)


def allowed(
    measured: float,
    dtype: torch.dtype,
    expected: Attended | None = None,
    *,
    gradients: bool = False,
) -> float:
    """The budget, from the error of the plain implementation and, with `expected`, the size of its logarithms."""
    floor = rounding(dtype, gradients=gradients)
    if expected is not None:
        floor = max(floor, rounded_logarithms(expected, dtype))
    if not np.isfinite(measured):  # it overflowed: no measure of anything
        return floor
    return max(FACTOR * measured, floor)


def plain_both(problem: Problem) -> tuple[Tensor, dict[str, Tensor]]:
    """The result of the plain implementation, and its gradients by name."""
    leaves = problem.call.with_tensors(lambda x: x.detach().clone())
    inputs = [x.requires_grad_() for x in (leaves.q, leaves.k, leaves.v)]
    with torch.enable_grad():
        output = plain(problem.changed(q=inputs[0], k=inputs[1], v=inputs[2]))
    found = torch.autograd.grad(output, inputs, problem.upstream)
    return output.detach(), dict(zip("qkv", found, strict=True))


def plain_gradients(problem: Problem) -> dict[str, Tensor]:
    """Those of the plain implementation, by name."""
    return plain_both(problem)[1]


def sighted(problem: Problem) -> Tensor:
    """(batch or 1, heads or 1, queries, 1) boolean: whether a query sees a key."""
    q = problem.call.q
    if problem.visible is None:
        shape = (1, 1, q.shape[2], 1)
        return torch.full(shape, problem.call.k.shape[2] > 0, device=q.device)
    return torch.from_numpy(problem.visible).any(-1, keepdim=True).to(q.device)
