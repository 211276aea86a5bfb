"""Diagnosis of a kernel: with which single change the formula agrees with what the kernel did.

The kernel is observed again on the failing case and on larger ones of the same kind, in the most precise dtype that it
takes, and compared with the float64 formula changed in each way of a catalogue. What explains the failure agrees to
rounding with all; nothing else comes near by chance. The larger ones are seen only by what explains the failing case.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import msgspec
import torch

from holotype_conformance.judge.elimination import agreeing
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Diagnosis, DType
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.cases import AttentionCase, TogetherCase, bare
from holotype_conformance.kernels.deviations import CATALOGUE, FormulaDeviation
from holotype_conformance.kernels.deviations.blocks import BLOCKS, UNEVEN
from holotype_conformance.kernels.deviations.deviation import RIGHT
from holotype_conformance.kernels.deviations.formula import Result
from holotype_conformance.kernels.diagnosis.detached import detached
from holotype_conformance.kernels.diagnosis.exact import exact, named
from holotype_conformance.kernels.diagnosis.gradients import astray
from holotype_conformance.kernels.diagnosis.layouts import misread
from holotype_conformance.kernels.diagnosis.refusals import refused
from holotype_conformance.kernels.diagnosis.regions import limiting
from holotype_conformance.kernels.diagnosis.rows import applies, padded
from holotype_conformance.kernels.diagnosis.thresholds import threshold
from holotype_conformance.kernels.double_backward import bent
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import error, explained, stating

# With these numbers of keys no two blocks leave the same rests, nor lack as many keys to be full. Every block leaves
# one, and two of the largest have a third behind them.
LENGTHS = (261, 765, 385)
FORMULA = [each for each in CATALOGUE if isinstance(each, FormulaDeviation) and each.named]
BY_ROW = [each for each in FORMULA if each.slug.startswith("blocks.of-first-row.")]
BY_BLOCK = [each for each in FORMULA if each.block is not None and each not in BY_ROW]
OF_ANY_SIZE = [each for each in FORMULA if each.block is None]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The answer of a kernel to a case.

    Attributes:
        call: what it was given, in float64.
        output: its result.
    """

    call: Call
    output: torch.Tensor

    def residual(self, change: FormulaDeviation) -> float:
        """The kernel's distance from the formula with a change, where a query sees a key; infinite for no change."""
        found = change.result(self.call)
        return float("inf") if found is None else self._from(found)

    def _from(self, found: Result) -> float:
        output = self.output.masked_fill(~found.rows.to(self.output.device), 0.0)
        return error(output, found.output.numpy(), found.size.numpy())

    @property
    def near(self) -> float:
        """The residual that is rounding."""
        return explained(self.output.dtype)

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to explain."""
        return self._from(RIGHT.result(self.call)) <= self.near


def diagnose(
    subject: KernelSubject, property_: Property, case: Any, violation: Violation
) -> list[Diagnosis]:
    """The explanations of a failure, best first; empty when nothing in the catalogue explains it."""
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
    stages: list[tuple[list[FormulaDeviation], list[AttentionCase]]] = [
        (OF_ANY_SIZE, _larger(subject, case)),
        ([each for each in BY_BLOCK if each.block in BLOCKS], longer),
        ([each for each in BY_BLOCK if each.block in UNEVEN], longer),
    ]
    if applies(case):
        stages.insert(1, (BY_ROW, [subject.fitted(each) for each in padded(case)]))
    for changes, more in stages:
        with suppress(Violation):  # it has no result to compare
            cases = _with_results(subject, [case, *more])
            if not cases:
                continue
            where = limiting(subject, observe, cases[-1])
            found = list(agreeing(changes, map(observe, cases), where))
            yield from map(named, found)
            if found and changes is not OF_ANY_SIZE:
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
    call = subject.problem(case).call
    output = subject.output(call, finite=False)
    return Scene(call=exact(call), output=output)
