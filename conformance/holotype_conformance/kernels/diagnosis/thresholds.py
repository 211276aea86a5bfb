"""Up to how many queries or keys a kernel is right, or of which number they must be multiples, if that is all there is.

A buffer that is too small, or a last block that is read beyond its end, is no change of the formula; that it begins
with the 129th key says as much to whoever wrote the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import msgspec

from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.cases import AttentionCase, bare
from holotype_conformance.kernels.deviations.sizes import said
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import demand_both

Axis = Literal["queries", "keys", "lengths"]
FEW = (9, 16)  # a mistake that these show is not one of size
LENGTHS = (24, 31, 32, 33, 48, 64, 65, 96, 128, 129, 192, 256, 257, 384, 400)
ROUND = 16  # what the sizes of buffers are multiples of
BLOCKS = (16, 32, 48, 64, 96, 128, 192)


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """The sizes at which it is right: multiples of a block, these and those within one block, or all up to a number."""

    kind: Literal["multiple", "one-or-multiple", "most"]
    number: int

    def said(self, axis: Axis) -> str:
        """In words."""
        return said(axis, self.kind, self.number)


def threshold(subject: KernelSubject, property_: Property, case: Any) -> list[Diagnosis]:
    """The sizes at which the property holds, if a number of queries or keys alone decides that."""
    if not isinstance(case, AttentionCase) or case.mask == "documents":
        return []

    check: Any = property_.check

    @cache
    def holds(queries: int, keys: int) -> bool | None:
        other = msgspec.structs.replace(case, queries=queries, keys=keys)
        if subject.fitted(other) != other:
            return None  # by what it declares
        try:
            check(subject, other)
        except Violation:
            return False
        return True

    along: dict[Axis, Callable[[int], bool | None]] = {
        "keys": lambda length: holds(case.queries, length),
        "queries": lambda length: holds(length, case.keys),
        "lengths": lambda length: holds(length, length),
    }
    if case.queries == case.keys:  # both may be asked for, or one may be to blame
        pattern = _pattern(along["lengths"])
        return [] if pattern is None else [_told(subject, case, pattern, _axis(pattern, holds))]
    for axis, held in along.items():
        if axis != "lengths" and (pattern := _pattern(held)) is not None:
            return [_told(subject, case, pattern, axis)]
    return []


def _told(subject: KernelSubject, case: AttentionCase, pattern: Pattern, axis: Axis) -> Diagnosis:
    name = f"sizes.{axis}-{pattern.kind}.{pattern.number}"
    sizes = {"queries": case.queries, "keys": case.keys}
    many = pattern.number + 1 if pattern.kind == "most" else 2 * pattern.number + 1
    wrong = sizes | dict.fromkeys(sizes if axis == "lengths" else [axis], many)
    limit = ", with a mask like this case's alone" if _by_mask(subject, case, wrong) else ""
    return Diagnosis(deviation=name, title=pattern.said(axis) + limit)


def _by_mask(subject: KernelSubject, case: AttentionCase, wrong: dict[str, int]) -> bool:
    """Whether the kernel is right at a size that is wrong once it is told no mask, so that the size says but a part."""
    unmasked = bare(case, mask="none", form="arguments", **wrong)
    if case.mask == "none" or not subject.has("unmasked") or subject.fitted(unmasked) != unmasked:
        return False
    try:
        demand_both(subject, subject.problem(unmasked))
    except Violation:
        return False
    return True


def _axis(pattern: Pattern, holds: Callable[[int, int], bool | None]) -> Axis:
    """The one of the two numbers that decides, where that can be told."""
    good, bad = pattern.number, pattern.number + 1
    if holds(good, bad) and holds(bad, good) is False:
        return "queries"
    return "keys" if holds(bad, good) and holds(good, bad) is False else "lengths"


def _pattern(holds: Callable[[int], bool | None]) -> Pattern | None:
    """The pattern of all lengths that are tried; None where there is none."""
    seen: dict[int, bool] = {}
    for length in FEW:
        if (found := holds(length)) is not None:
            seen[length] = found
    if seen and not any(seen.values()):
        return _multiple(seen, holds) if holds(128) else None
    for length in LENGTHS:
        if (found := holds(length)) is not None:
            seen[length] = found
    right, wrong = _split(seen)
    if right and wrong and max(right) < min(wrong):
        number = _last(max(right), min(wrong), holds)
        # Any other number may as well be where chance ends: it is buffers and blocks that end.
        return Pattern(kind="most", number=number) if number % ROUND == 0 else None
    return _multiple(seen, holds)


def _multiple(seen: dict[int, bool], holds: Callable[[int], bool | None]) -> Pattern | None:
    for length in LENGTHS:
        if length not in seen and (found := holds(length)) is not None:
            seen[length] = found
    right, wrong = _split(seen)
    for block in BLOCKS:
        multiples = [length for length in seen if length % block == 0]
        if sorted(multiples) == sorted(right) and wrong and len(right) > 1:
            return Pattern(kind="multiple", number=block)
        within = [length for length in seen if length < block]
        if within and sorted(multiples + within) == sorted(right) and wrong and len(multiples) > 1:
            return Pattern(kind="one-or-multiple", number=block)
    return None


def _split(seen: dict[int, bool]) -> tuple[list[int], list[int]]:
    right = [length for length, found in seen.items() if found]
    return right, [length for length, found in seen.items() if not found]


def _last(right: int, wrong: int, holds: Callable[[int], bool | None]) -> int:
    """The last length that is right, between one that is and one that is not."""
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if holds(middle):
            right = middle
        else:
            wrong = middle
    return right
