"""Regions in which a mistake is made and in which not: a name is given only for what it explains.

A change that explains a failing case is tried on cases that differ from it in one respect: fewer queries than keys, as
many or more, another form of the mask, one row, grouped heads, another head dim or dtype. Where the change would show
and the kernel is right, it is no mistake, and the name is limited to the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from holotype_conformance.judge.elimination import Seen
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.regions import Sight, within
from holotype_conformance.kernels.cases import AttentionCase, Form, TogetherCase
from holotype_conformance.kernels.claims import forms
from holotype_conformance.kernels.subject import KernelSubject

MANY = 150  # keys, several customary blocks
MOST = 2  # a name with more limits than these says nothing
TOLD: dict[Form, str] = {
    "arguments": "where the mask is told as arguments",
    "boolean": "where the mask is boolean",
    "additive": "where the mask is additive",
}


@dataclass(frozen=True, kw_only=True)
class Region:
    """A case that differs from another in one respect.

    Attributes:
        respect: which.
        words: where it lies, to be set behind the name of a mistake.
        case: an example; None for the case that everything starts from.
    """

    respect: str
    words: str
    case: AttentionCase | None = None


def regions(subject: KernelSubject, case: AttentionCase) -> list[Region]:
    """Those around a case that the kernel takes, itself among them in every respect."""
    found = [
        *_relations(case),
        *_lengths(case),
        *_forms(subject, case),
        *_together(subject, case),
        *_rows(case),
        *_groups(subject, case),
        *_scales(subject, case),
        *_widths(case),
        *_dtypes(subject, case),
    ]
    return [each for each in found if each.case is None or subject.fitted(each.case) == each.case]


def _other(respect: str, words: str, case: AttentionCase, **changes: Any) -> Region:
    """A region; the one of the case itself if nothing changes."""
    changed = msgspec.structs.replace(case, **changes)
    if changed.documents:
        rest = changed.keys - 9
        documents = (3, 5, 1, rest) if rest > 0 else (changed.keys,)
        changed = msgspec.structs.replace(changed, documents=documents)
    return Region(respect=respect, words=words, case=None if changed == case else changed)


def _relations(case: AttentionCase) -> Iterator[Region]:
    few, many = min(case.queries, case.keys), max(case.queries, case.keys)
    few = few if few < many else max(many * 2 // 3, 1)
    for sign, queries, keys in (("<", few, many), ("=", many, many), (">", many, few)):
        same = (case.queries > case.keys) - (case.queries < case.keys) == (queries > keys) - (
            queries < keys
        )
        sizes = {} if same else {"queries": queries, "keys": keys}
        yield _other("relation", f"where queries {sign} keys", case, **sizes)


def _lengths(case: AttentionCase) -> Iterator[Region]:
    if max(case.queries, case.keys) >= MANY:
        return
    longest = max(case.queries, case.keys)
    factor = MANY // max(longest, 1)
    yield _other("length", f"for {case.keys} keys, though not for many", case)
    yield _other(
        "length", "for many keys", case, queries=case.queries * factor, keys=case.keys * factor
    )


def _forms(subject: KernelSubject, case: AttentionCase) -> Iterator[Region]:
    if case.mask == "none":
        return
    for form in forms(subject, case.mask):
        yield _other("form", TOLD[form], case, form=form)


def _together(subject: KernelSubject, case: AttentionCase) -> Iterator[Region]:
    """A mask that is told with causal and without, and causal with a mask and without."""
    if isinstance(case, TogetherCase):
        mask, causal = "where a mask is told with it", "where causal is told with it"
        yield Region(respect="with a mask", words=mask)
        yield Region(
            respect="with a mask", words="where no mask is told with it", case=case.causal_alone
        )
        yield Region(respect="with causal", words=causal)
        yield Region(
            respect="with causal", words="where causal is not told with it", case=case.mask_alone
        )
    elif case.mask == "causal" and case.form == "arguments" and _takes_both(subject):
        facts = msgspec.structs.asdict(case) | {"mask": "random", "form": "boolean"}
        both = TogetherCase(**facts)
        yield Region(respect="with a mask", words="where no mask is told with it")
        yield Region(respect="with a mask", words="where a mask is told with it", case=both)


def _takes_both(subject: KernelSubject) -> bool:
    return subject.has("masks-together") and subject.has("boolean-mask")


def _rows(case: AttentionCase) -> Iterator[Region]:
    if case.by_row:
        return
    yield _other("batch", "in a batch of one", case, batch=1)
    yield _other("batch", "in a batch of several rows", case, batch=max(case.batch, 2))


def _groups(subject: KernelSubject, case: AttentionCase) -> Iterator[Region]:
    if not subject.has("grouped-heads"):
        return
    many = case.heads if case.heads > case.kv_heads else 3 * case.kv_heads
    words = "with as many key-value heads as query heads"
    yield _other("groups", "with grouped heads", case, heads=many)
    yield _other("groups", words, case, heads=case.kv_heads)


def _scales(subject: KernelSubject, case: AttentionCase) -> Iterator[Region]:
    if not subject.has("scale"):
        return
    yield _other("scale", "where no scale is told", case, percent=None)
    yield _other("scale", "where a scale is told", case, percent=case.percent or 70)


def _widths(case: AttentionCase) -> Iterator[Region]:
    for width in dict.fromkeys((case.head_dim, 12, 16, 64)):
        yield _other("width", f"for a head dim of {width}", case, head_dim=width)


def _dtypes(subject: KernelSubject, case: AttentionCase) -> Iterator[Region]:
    for dtype in dict.fromkeys((case.dtype, *subject.dtypes)):
        yield _other("dtype", f"in {dtype}", case, dtype=dtype)


def limiting(
    subject: KernelSubject, observe: Callable[[AttentionCase], Seen], case: AttentionCase
) -> Callable[[Any], list[str] | None]:
    """`limits` around a case of a kernel."""
    return lambda change: limits(observe, change, regions(subject, case))


def limits(
    observe: Callable[[AttentionCase], Seen], change: Any, around: list[Region]
) -> list[str] | None:
    """The regions in which alone the change explains the kernel, in words, one for each limit.

    None where it is limited in too many to be the mistake that was made.
    """
    home = {region.respect: region.words for region in around if region.case is None}
    seen = [Sight(region=home, agrees=True)]
    for region in around:
        verdict = None if region.case is None else _explains(observe, change, region.case)
        if verdict is not None and region.respect in home:
            seen.append(Sight(region=home | {region.respect: region.words}, agrees=verdict))
    box = within(seen, MOST)
    if box is None:
        return None
    return [
        " or ".join(
            each.words for each in around if each.respect == respect and each.words in words
        )
        for respect, words in box.items()
    ]


def _explains(
    observe: Callable[[AttentionCase], Seen], change: Any, case: AttentionCase
) -> bool | None:
    """Whether the change explains a case; false only where it would show and the kernel is right."""
    try:
        scene = observe(case)
    except Violation:
        return None
    residual = scene.residual(change)
    if scene.is_right:
        return False if scene.near < residual < float("inf") else None
    return residual <= scene.near or None
