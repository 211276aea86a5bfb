"""Diagnosis of a kernel: with which single change the formula agrees with what the kernel did.

The kernel is observed again on the failing case and on larger ones of the same kind, in the most precise dtype that it
takes, and compared with the float64 formula changed in each way of a catalogue. What explains the failure agrees to
rounding with all; nothing else comes near by chance. The larger ones are seen only by what explains the failing case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import msgspec
import torch

from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Diagnosis, DType
from holotype_conformance.kernels.cases import AttentionCase, TogetherCase, as_array, bare
from holotype_conformance.kernels.diagnosis.backward import (
    GradientChange,
    block_changes,
    gradient_changes,
)
from holotype_conformance.kernels.diagnosis.changes import CHANGES, Change, Terms
from holotype_conformance.kernels.diagnosis.detached import detached
from holotype_conformance.kernels.diagnosis.elimination import agreeing
from holotype_conformance.kernels.diagnosis.gradients import astray
from holotype_conformance.kernels.diagnosis.layouts import misread
from holotype_conformance.kernels.diagnosis.refusals import refused
from holotype_conformance.kernels.diagnosis.regions import limiting
from holotype_conformance.kernels.diagnosis.rows import applies, padded, row_changes
from holotype_conformance.kernels.diagnosis.thresholds import threshold
from holotype_conformance.kernels.diagnosis.tiled import LENGTHS, UNEVEN, tiled_changes
from holotype_conformance.kernels.double_backward import bent
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import error, explained, stating

NOTHING = Change(slug="", title="")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a kernel did with a case.

    Attributes:
        case: as it was given.
        terms: what the kernel was to compute from.
        output: its result.
    """

    case: AttentionCase
    terms: Terms
    output: torch.Tensor

    def residual(self, change: Change) -> float:
        """How far the kernel is from the formula with a change, where a query sees a key; infinite for no change."""
        found = change.result(self.terms, self.case)
        if found is None:
            return float("inf")
        rows = torch.from_numpy(found.rows).to(self.output.device)
        return error(self.output.masked_fill(~rows, 0.0), found.output, found.size)

    @property
    def near(self) -> float:
        """The residual that is rounding."""
        return explained(self.output.dtype)

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to explain."""
        return self.residual(NOTHING) <= self.near


def catalogue() -> dict[str, str]:
    """Slug -> what goes on "agrees with the formula if" of every change that a diagnosis may name."""
    known: list[Change | GradientChange] = [*CHANGES, *tiled_changes(), *row_changes()]
    known += [*gradient_changes(), *block_changes()]
    return {change.slug: change.title for change in known}


def diagnose(
    subject: KernelSubject, property_: Property, case: Any, violation: Violation
) -> list[Diagnosis]:
    """What explains a failure, best first; empty when nothing in the catalogue does."""
    with stating(subject.kernel.floor):
        found = _diagnose(subject, case, violation)
        return found or threshold(subject, property_, case)


def _diagnose(subject: KernelSubject, case: Any, violation: Violation) -> list[Diagnosis]:
    order = misread(subject)
    if order is not None:
        return [order]
    if not isinstance(case, AttentionCase):
        return []
    case = msgspec.structs.replace(case, form=violation.facts.get("form", case.form))
    limits = refused(subject, _plain(case, case.dtype), violation)
    if limits is not None:
        return limits
    if violation.facts.get("order") == 2:
        plain = _plain(case, subject.dtype)
        return detached(
            subject, [bent(subject.problem(x), seed=13) for x in (plain, *_larger(subject, plain))]
        )
    for dtype in _dtypes(subject):
        found = sorted(
            _explaining(subject, _plain(case, dtype)), key=lambda each: each.residual or 0.0
        )
        if found:
            return found
    plain = _plain(case, subject.dtype)
    longer = [subject.fitted(_longer(plain, keys)) for keys in LENGTHS]
    return astray(subject, plain, _larger(subject, plain), longer)


def _dtypes(subject: KernelSubject) -> list[DType]:
    """The most precise, and that in which kernels compute inside which take a more precise one."""
    inside: list[DType] = ["float32"] if subject.has("float32") else []
    return list(dict.fromkeys([subject.dtype, *inside]))


def _explaining(subject: KernelSubject, case: AttentionCase) -> Iterator[Diagnosis]:
    longer = [subject.fitted(_longer(case, keys)) for keys in LENGTHS]
    observe = partial(_observed, subject)
    catalogues: list[tuple[Iterable[Change], list[AttentionCase]]] = [
        (CHANGES, _larger(subject, case)),
        (tiled_changes(), longer),
        (tiled_changes(UNEVEN), longer),
    ]
    if applies(case):
        catalogues.insert(1, (row_changes(), [subject.fitted(each) for each in padded(case)]))
    for changes, more in catalogues:
        with suppress(Violation):  # it has no result to compare
            cases = _with_results(subject, [case, *more])
            found = list(agreeing(observe, changes, cases, limiting(subject, observe)))
            yield from found
            if found and changes is not CHANGES:
                return


def _with_results(subject: KernelSubject, cases: list[AttentionCase]) -> list[AttentionCase]:
    """Without the first ones if the kernel has no result there: it may divide by a scale of zero."""
    for index, case in enumerate(cases):
        with suppress(Violation):
            _observed(subject, case)
            return cases[index:]
    return []


def _plain(case: AttentionCase, dtype: DType) -> AttentionCase:
    """The case without what only its property makes of it, in another dtype."""
    plain = bare(case, dtype=dtype)
    if isinstance(case, TogetherCase):
        return TogetherCase(**msgspec.structs.asdict(plain))
    return plain


def _larger(subject: KernelSubject, case: AttentionCase) -> list[AttentionCase]:
    """Rich cases of the same kind, for small ones look alike under many changes: with its scale, and another."""
    found = subject.fitted(_sized(case, few=13, many=19, batch=2, heads=2, head_dim=12, size=5))
    if case.percent is None:
        return [found]
    return [found, msgspec.structs.replace(found, percent=70)]


def _longer(case: AttentionCase, keys: int) -> AttentionCase:
    """One of many blocks."""
    few, many = (13, keys) if case.queries <= case.keys else (keys, keys + 13)
    return _sized(case, few=few, many=many, batch=1, heads=1, head_dim=16, size=300)


def _sized(case: AttentionCase, *, few: int, many: int, heads: int, **sizes: int) -> AttentionCase:
    """A case of the same kind with other sizes: `few` and `many` are the queries and keys, whichever are more."""
    keys = few if case.queries > case.keys else many
    found: AttentionCase = msgspec.structs.replace(
        case,
        queries=few if case.queries < case.keys else many,
        keys=keys,
        heads=3 * heads if case.heads != case.kv_heads else heads,
        kv_heads=heads,
        documents=(3, 5, 1, keys - 9) if case.mask == "documents" else (),
        data=0,
        **sizes,
    )
    return found


@lru_cache(maxsize=64)  # failures that have one cause share their larger scenes
def _observed(subject: KernelSubject, case: AttentionCase) -> Scene:
    problem = subject.problem(case)
    call = problem.call
    terms = Terms(
        q=as_array(call.q),
        k=as_array(call.k),
        v=as_array(call.v),
        visible=problem.visible,
        scale=call.q.shape[-1] ** -0.5 if call.scale is None else call.scale,
    )
    output = subject.output(call, finite=False)
    return Scene(case=case, terms=terms, output=output)
