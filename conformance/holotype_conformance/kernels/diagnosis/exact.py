"""Calls in float64, from which deviations compute what a kernel is compared with; and explanations in words."""

from __future__ import annotations

from typing import Any

from holotype_conformance.judge.elimination import Explanation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.candidate import Call


def exact(call: Call) -> Call:
    """The same numbers in float64, on the CPU."""
    return call.with_tensors(
        lambda x: x.detach().double().cpu() if x.is_floating_point() else x.detach().cpu()
    )


def named(found: Explanation[Any]) -> Diagnosis:
    """The explanation of a kernel's failure, as reports have it."""
    title = f"agrees with the formula if {found.change.words} {' and '.join(found.where)}"
    return Diagnosis(deviation=found.change.slug, title=title.rstrip(), residual=found.residual)
