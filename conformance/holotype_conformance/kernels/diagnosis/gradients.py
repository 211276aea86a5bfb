"""Diagnosis of a kernel whose results are right and whose gradients are not: which single change leads to them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import msgspec

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.cases import AttentionCase, as_array
from holotype_conformance.kernels.diagnosis.backward import (
    GradientChange,
    Way,
    block_changes,
    gradient_changes,
    way,
)
from holotype_conformance.kernels.diagnosis.changes import Terms
from holotype_conformance.kernels.diagnosis.elimination import agreeing
from holotype_conformance.kernels.diagnosis.regions import limiting
from holotype_conformance.kernels.diagnosis.tiled import BLOCKS, UNEVEN
from holotype_conformance.kernels.oracle import Gradients
from holotype_conformance.kernels.subject import KernelSubject, Returned
from holotype_conformance.kernels.tolerance import error, explained, sighted


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The gradients that a kernel gave, the right way to them, and the units of their rounding."""

    right: Way
    found: Returned
    sizes: Gradients

    def residual(self, change: GradientChange) -> float:
        """How far the kernel's gradients are from those with a change; infinite for no change."""
        gradients = change.made(self.right)
        return float("inf") if gradients is None else self._from(gradients)

    def _from(self, gradients: Gradients) -> float:
        return max(
            error(getattr(self.found, name), getattr(gradients, name), getattr(self.sizes, name))
            for name in ("q", "k", "v")
        )

    @property
    def near(self) -> float:
        """The residual that is rounding."""
        return explained(self.found.q.dtype)

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to explain."""
        return self._from(self.right.gradients()) <= self.near


def astray(
    subject: KernelSubject,
    case: AttentionCase,
    larger: list[AttentionCase],
    longer: list[AttentionCase],
) -> list[Diagnosis]:
    """What explains the gradients in a case that failed and in rich ones of its kind, or in those of many blocks."""
    found: list[Diagnosis] = []
    observe = partial(_observed, subject)
    where = limiting(subject, observe)
    if subject.has("gradients"):
        with suppress(Violation):  # it has none to compare
            found += agreeing(observe, gradient_changes(), [case, *larger], where)
            square = [msgspec.structs.replace(each, queries=each.keys) for each in longer]
            for blocks in (BLOCKS, UNEVEN):
                changes = block_changes(blocks)
                found += [] if found else agreeing(observe, changes, [case, *square], where)
    return sorted(found, key=lambda each: each.residual or 0.0)


@lru_cache(maxsize=64)  # failures that have one cause share their larger scenes
def _observed(subject: KernelSubject, case: AttentionCase) -> Scene:
    problem = subject.problem(case)
    upstream = problem.upstream.masked_fill(~sighted(problem), 0.0)
    problem = replace(problem, upstream=upstream)
    found = subject.differentiated(problem)
    call = problem.call
    terms = Terms(
        q=as_array(call.q),
        k=as_array(call.k),
        v=as_array(call.v),
        visible=problem.visible,
        scale=call.q.shape[-1] ** -0.5 if call.scale is None else call.scale,
    )
    sizes = problem.expected(gradients=True).gradient_sizes
    assert sizes is not None
    return Scene(right=way(terms, case, as_array(upstream)), found=found, sizes=sizes)
