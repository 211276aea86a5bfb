"""Results of a kernel that have moved and must not: to the bit, where the kernel gives bits.

What it is handed lies alike in each call (`copied`), so that one processor rounds what has no part in a change in one
way. A kernel whose own memory lies elsewhere each time, or that adds by turns, may not: this is measured by the same
call again, where something has moved by no more than rounding. See docs/bits.md.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.cases import Problem
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import rounding, sighted

AGAIN = 8  # calls


def leaks(
    subject: KernelSubject,
    call: Call,
    before: Tensor,
    after: Tensor,
    forbidden: Tensor,
    rows: Tensor | None = None,
) -> Tensor:
    """(batch, heads, queries) bool: which results have moved that must not.

    Args:
        call: that gave `before`.
        before: (batch, heads, queries, head_dim).
        after: the same of a changed call.
        forbidden: (batch, heads, queries) bool, or what broadcasts to it.
        rows: the queries that matter, as `KernelSubject.output` takes them.
    """
    found = (before != after).any(-1) & forbidden
    if not found.any():
        return found
    beyond = _beyond(before, after) & forbidden
    if torch.equal(beyond, found) or not rounds_anew(subject, call, before, rows):
        return found
    return beyond


def rounds_anew(
    subject: KernelSubject, call: Call, before: Tensor, rows: Tensor | None = None
) -> bool:
    """Whether the same call again gives other bits, and no more than that: another number is no rounding."""
    held = []  # so that what is made next lies elsewhere
    found = False
    for number in range(AGAIN):
        held.append(torch.empty(1009 * (number + 1)))
        again = subject.output(call, rows=rows)
        if _beyond(before, again).any():
            return False
        found = found or not torch.equal(before, again)
    return found


def _beyond(before: Tensor, after: Tensor) -> Tensor:
    """(batch, heads, queries) bool: which have moved by more than rounding."""
    largest = rounding(before.dtype) * before.double().abs().max()
    return ((before.double() - after.double()).abs() > largest).any(-1)


def demand_unmoved(subject: KernelSubject, problem: Problem, key: int) -> None:
    """Demand that another key and value at one place, a hundred thousand times as large, leave what does not see it.

    To the bit: what is hidden has no weight at all.
    """
    assert problem.visible is not None
    call, rows = problem.call, sighted(problem)
    k, v = call.k.clone(), call.v.clone()
    # Beyond a hidden score of -1e4.
    k[:, :, key] *= 1000.0 if k.dtype is torch.float16 else 1e5
    v[:, :, key] = 1000.0
    before = subject.output(call, rows=rows)
    after = subject.output(problem.changed(k=k, v=v).call, rows=rows)
    seen = np.broadcast_to(problem.visible, (*call.q.shape[:3], call.k.shape[2]))
    blind = torch.from_numpy(~seen[..., key] & seen.any(-1)).to(before.device)
    found = leaks(subject, call, before, after, blind, rows)
    if found.any():
        row, head, query = found.nonzero()[0].tolist()
        size = float((before - after).abs()[row, head, query].max())
        raise Violation(
            f"key {key}, which query {query} does not see, moves its result by {size:.1e};"
            " expected the same bits",
            moved=size,
            query=query,
            key=key,
        )
