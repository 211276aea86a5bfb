"""Diagnosis of a kernel whose results are right and whose gradients are not: which single change leads to them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import msgspec
import torch

from holotype_conformance.judge.elimination import agreeing
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.cases import AttentionCase, as_array
from holotype_conformance.kernels.deviations import CATALOGUE
from holotype_conformance.kernels.deviations.backward import BackwardDeviation, Gradients, Way, way
from holotype_conformance.kernels.deviations.blocks import BLOCKS, UNEVEN
from holotype_conformance.kernels.diagnosis.exact import exact, named
from holotype_conformance.kernels.diagnosis.regions import limiting
from holotype_conformance.kernels.oracle import Gradients as Sizes
from holotype_conformance.kernels.subject import KernelSubject, Returned
from holotype_conformance.kernels.tolerance import error, explained, sighted

BACKWARD = [each for each in CATALOGUE if isinstance(each, BackwardDeviation)]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The gradients that a kernel gave, the right way to them, and the units of their rounding."""

    right: Way
    found: Returned
    sizes: Sizes

    def residual(self, change: BackwardDeviation) -> float:
        """The distance of the kernel's gradients from those with a change; infinite for no change."""
        if not change.where(self.right.call):
            return float("inf")
        return self._from(change.made(self.right))

    def _from(self, gradients: Gradients) -> float:
        return max(
            error(
                getattr(self.found, name),
                getattr(gradients, name).numpy(),
                getattr(self.sizes, name),
            )
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
    """The explanation of gradients in a case that failed and in rich ones of its kind, or in those of many blocks."""
    if not subject.has("gradients"):
        return []
    observe = partial(_observed, subject)
    square = [msgspec.structs.replace(each, queries=each.keys) for each in longer]
    stages = (
        ([each for each in BACKWARD if each.block is None], larger),
        ([each for each in BACKWARD if each.block in BLOCKS], square),
        ([each for each in BACKWARD if each.block in UNEVEN], square),
    )
    with suppress(Violation):  # it has none to compare
        for changes, more in stages:
            cases = [case, *more]
            where = limiting(subject, observe, cases[-1])
            found = list(agreeing(changes, map(observe, cases), where))
            if found:
                return sorted(map(named, found), key=lambda each: each.residual or 0.0)
    return []


@lru_cache(maxsize=64)  # failures that have one cause share their larger scenes
def _observed(subject: KernelSubject, case: AttentionCase) -> Scene:
    problem = subject.problem(case)
    upstream = problem.upstream.masked_fill(~sighted(problem), 0.0)
    problem = replace(problem, upstream=upstream)
    found = subject.differentiated(problem)
    sizes = problem.expected(gradients=True).gradient_sizes
    assert sizes is not None
    right = way(exact(problem.call), torch.from_numpy(as_array(upstream)))
    return Scene(right=right, found=found, sizes=sizes)
