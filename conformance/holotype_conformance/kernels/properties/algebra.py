"""Laws that attention obeys whatever the inputs are. They need no second implementation."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.cases import AttentionCase, Mask, Problem, as_array, cases
from holotype_conformance.kernels.claims import claim, drawn
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.stillness import leaks
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import (
    allowed,
    demand_both,
    demand_near,
    error,
    rounded_logarithms,
    rounding,
    stated,
)

Array = NDArray[np.float64]


@claim(
    slug="algebra.convex",
    clause="Rows are convex combinations of the values.",
    meaning=(
        "Every row of the result is a mean of the values with weights that are not negative and "
        "sum to one: it lies between the smallest and the largest value, and values that are all "
        "one give one. Look for a denominator that counts padded or masked keys, for a row "
        "maximum that is not carried from block to block, or for dropout that is on."
    ),
    catches=("weights that do not sum to one", "padding of the last block in the sum"),
    cases=drawn(equal=False, most=72),
)
def convex(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    dtype = problem.call.q.dtype
    slack = 4 * torch.finfo(dtype).eps + rounded_logarithms(problem.expected(), dtype)
    slack += stated(dtype)
    ones = subject.output(replace(problem.call, v=torch.ones_like(problem.call.v)))
    away = float((ones.double() - 1.0).abs().max())
    if not away <= slack:
        raise Violation(
            f"the weights sum to one only within {away:.1e}; rounding stays below {slack:.0e}",
            error=away,
        )
    output = as_array(subject.output(problem.call))
    v = as_array(problem.call.v)
    beyond = _beyond(output, v, slack)
    if not beyond <= 0.0:
        raise Violation(
            f"a result lies {beyond:.1e} outside the range of the values that it is a mean of",
            error=beyond,
        )


def _beyond(output: Array, v: Array, slack: float) -> float:
    """The distance of a result from the range of the values of its column, rounding left out."""
    low, high = v.min(axis=2, keepdims=True), v.max(axis=2, keepdims=True)
    room = slack * np.abs(v).max()
    return float(np.maximum(low - output, output - high).max() - room)


def dyadic(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Numbers that every dtype holds exactly, and still does after a shift by one."""
    return np.asarray(rng.integers(-12, 13, shape) / 16.0)


@claim(
    slug="algebra.score-shift",
    clause="A constant added to all scores changes nothing.",
    meaning=(
        "Adding one vector to all keys shifts all scores of a query by the same number, which the "
        "softmax cancels. Look for a softmax without its maximum subtracted, for a maximum over "
        "the wrong axis, or for a sink or a 'softmax plus one' in the denominator."
    ),
    catches=("one added to the denominator", "maximum clamped at zero"),
    cases=drawn(),
)
def score_shift(subject: KernelSubject, case: AttentionCase) -> None:
    still = subject.problem(case, draw=dyadic)
    moved = still.changed(k=still.call.k + 1.0)
    expected = still.expected()
    measured = error(plain(moved), expected.output, expected.output_size)
    output, shifted = subject.output(moved.call), moved.expected()
    demand_near(
        output,
        expected.output,
        expected.output_size,
        budget=allowed(measured, output.dtype, shifted),
        what="the result with a vector added to all keys",
        than="that without it",
    )


@claim(
    slug="algebra.key-permutation",
    clause="The order of keys and values changes nothing.",
    meaning=(
        "Without a mask, keys and values in another order give the same sum. Look for positions "
        "that come in although nobody asked for them: an implicit causal mask, a last block that "
        "is dropped, a bias by distance."
    ),
    catches=("causal although not asked for", "keys of the last block dropped"),
    wants=("unmasked",),
    cases=drawn(equal=False, most=72),
)
def key_permutation(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    order = torch.from_numpy(np.random.default_rng(case.data).permutation(case.keys))
    order = order.to(problem.call.k.device)
    shuffled = problem.changed(k=problem.call.k[:, :, order], v=problem.call.v[:, :, order])
    _demand_same_sum(subject, problem, shuffled, "the result with keys and values in another order")


def _demand_same_sum(subject: KernelSubject, problem: Problem, changed: Problem, what: str) -> None:
    """Both results are within the budget of one another."""
    expected = problem.expected()
    budget = sum(
        allowed(
            error(plain(each), expected.output, expected.output_size), each.call.q.dtype, expected
        )
        for each in (problem, changed)
    )
    demand_near(
        subject.output(changed.call),
        as_array(subject.output(problem.call)),
        expected.output_size,
        budget=budget,
        what=what,
        than="that before",
    )


@claim(
    slug="algebra.linear-in-values",
    clause="The result is linear in the values.",
    meaning=(
        "The result for a sum of two sets of values is the sum of the two results, because the "
        "weights do not depend on them. Look for values that are normalised, clamped or quantised "
        "on the way, or for scores that are computed from v where k is meant."
    ),
    catches=("values clamped", "k and v mixed up"),
    cases=drawn(),
)
def linear_in_values(subject: KernelSubject, case: AttentionCase) -> None:
    first = subject.problem(case, draw=dyadic)
    second = first.changed(v=2.0 - 8.0 * first.call.v.flip(-1))
    both = first.changed(v=first.call.v + second.call.v)
    results = [subject.output(problem.call) for problem in (first, second, both)]
    size = first.expected().output_size + second.expected().output_size
    demand_near(
        results[2],
        as_array(results[0]) + as_array(results[1]),
        size,
        budget=4 * rounding(results[2].dtype),
        what="the result for a sum of values",
        than="the sum of the results",
    )


@claim(
    slug="algebra.heads-apart",
    clause="Heads and batch rows do not mix.",
    meaning=(
        "Other contents in one head of one row of the batch leave the results of all others as "
        "they are, to the bit. Look for a reshape that mixes batch and heads, for offsets "
        "computed with the wrong size, or for a reduction (a maximum, an amax for quantisation) "
        "over too many axes."
    ),
    catches=("batch and heads mixed up by a reshape", "one maximum for all heads"),
    cases=lambda subject: cases(subject.dtypes, heads=(2, 3), most=24),
)
def heads_apart(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    batch, head = case.data % case.batch, case.data % case.heads
    tensors = {name: getattr(problem.call, name).clone() for name in "qkv"}
    for tensor in tensors.values():
        tensor[batch, head] = 3.0 * tensor[batch, head].flip(0) + 0.5
    before = subject.output(problem.call)
    after = subject.output(problem.changed(**tensors).call)
    others = torch.ones(before.shape[:2], dtype=torch.bool)
    others[batch, head] = False
    found = leaks(subject, problem.call, before, after, others[..., None].to(before.device))
    if found.any():
        row, other, _ = found.nonzero()[0].tolist()
        raise Violation(
            f"a change in head {head} of row {batch} of the batch moves head {other} of row {row}"
        )


def _grouped(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    def grouped(case: AttentionCase, group: int) -> AttentionCase:
        return msgspec.structs.replace(case, heads=case.kv_heads * group)

    known: tuple[Mask, ...] = ("none", "causal") if subject.has("causal") else ("none",)
    return st.builds(grouped, cases(subject.dtypes, masks=known), st.integers(2, 8))


@claim(
    slug="algebra.grouped-heads",
    clause="GQA equals attention with repeated heads.",
    meaning=(
        "With fewer key-value heads than query heads (GQA), query head h reads key-value head h // "
        "(heads / kv_heads): neighbours share. The gradients of a shared head are summed. Look "
        "for `repeat` (0 1 0 1) where `repeat_interleave` (0 0 1 1) is meant, and for gradients "
        "that only the last of a group writes."
    ),
    catches=("heads tiled instead of repeated", "gradients of a group overwritten"),
    needs=("grouped-heads",),
    cases=_grouped,
    examples=20,
)
def grouped_heads(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    demand_both(subject, problem)
