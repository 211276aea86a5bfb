"""Diagnosis of a kernel: with which single change the formula agrees with what the kernel did.

The kernel is observed again on the failing case and on a larger one of the same kind, in the most precise dtype that
it takes, and compared with the float64 formula changed in each way of a small catalogue. What explains the failure
agrees to rounding with both; nothing else comes near by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import torch

from holotype_conformance.attention import oracle
from holotype_conformance.attention.budget import error, rounding
from holotype_conformance.attention.cases import AttentionCase, Problem, as_array
from holotype_conformance.attention.changes import CHANGES, Terms
from holotype_conformance.attention.subject import KernelSubject
from holotype_conformance.property import Property, Violation
from holotype_conformance.records import Diagnosis

SLACK = 4.0  # times the floor of a comparison with the formula: a change may amplify rounding


def diagnose(
    subject: KernelSubject, property_: Property, case: Any, violation: Violation
) -> list[Diagnosis]:
    """What explains a failure, best first; empty when nothing in the catalogue does."""
    if not isinstance(case, AttentionCase):
        return []
    try:
        scenes = [
            _observed(subject, each) for each in (_plain(subject, case), _larger(subject, case))
        ]
    except Violation:  # it has no result to compare
        return []
    if all(_residual(*scene, lambda terms, _: terms) <= _near(scene[0]) for scene in scenes):
        return []  # the result is right: the failure is one of gradients, say
    return sorted(_agreeing(scenes), key=lambda found: found.residual or 0.0)


def _agreeing(scenes: list[tuple[Problem, AttentionCase, torch.Tensor]]) -> Iterator[Diagnosis]:
    for change in CHANGES:
        residuals = [_residual(*scene, change.made) for scene in scenes]
        if all(r <= _near(scene[0]) for r, scene in zip(residuals, scenes, strict=True)):
            yield Diagnosis(
                deviation=change.slug,
                title=f"agrees with the formula if {change.title}",
                residual=max(residuals),
            )


def _near(problem: Problem) -> float:
    return SLACK * rounding(problem.call.q.dtype)


def _plain(subject: KernelSubject, case: AttentionCase) -> AttentionCase:
    """The case without what only its property makes of it, in the most precise dtype."""
    names = {field.name for field in msgspec.structs.fields(AttentionCase)}
    facts = {name: value for name, value in msgspec.structs.asdict(case).items() if name in names}
    return AttentionCase(**facts | {"dtype": subject.dtype})


def _larger(subject: KernelSubject, case: AttentionCase) -> AttentionCase:
    """A rich case of the same kind: small ones look alike under many changes."""
    few, many = 13, 19
    grouped = case.heads != case.kv_heads
    keys = few if case.queries > case.keys else many
    found: AttentionCase = msgspec.structs.replace(
        _plain(subject, case),
        queries=few if case.queries < case.keys else many,
        keys=keys,
        batch=2,
        heads=6 if grouped else 2,
        kv_heads=2,
        head_dim=12,
        size=5,
        documents=(3, 5, 1, keys - 9) if case.mask == "documents" else (),
    )
    return found


def _observed(
    subject: KernelSubject, case: AttentionCase
) -> tuple[Problem, AttentionCase, torch.Tensor]:
    problem = subject.problem(case)
    return problem, case, subject.output(problem.call, finite=False)


def _residual(
    problem: Problem,
    case: AttentionCase,
    output: torch.Tensor,
    made: Callable[[Terms, AttentionCase], Terms | None],
) -> float:
    """How far the kernel is from the formula with a change, at queries that see a key in it; infinite for no change."""
    call = problem.call
    terms = made(
        Terms(
            q=as_array(call.q),
            k=as_array(call.k),
            v=as_array(call.v),
            visible=problem.visible,
            scale=call.q.shape[-1] ** -0.5,
        ),
        case,
    )
    if terms is None:
        return float("inf")
    found = oracle.attention(terms.q, terms.k, terms.v, visible=terms.visible, scale=terms.scale)
    rows = found.weights.any(-1, keepdims=True)
    seen = output.masked_fill(~torch.from_numpy(rows).to(output.device), 0.0)
    return error(seen, found.output, found.output_size)
