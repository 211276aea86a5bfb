"""The properties that are claimed of kernels: those of `holotype_conformance.kernels.properties`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from hypothesis import strategies as st

from holotype_conformance.judge.property import Claims, Level, Property, Skip
from holotype_conformance.kernels.candidate import KernelCapability
from holotype_conformance.kernels.cases import AttentionCase, Form, Mask, cases
from holotype_conformance.kernels.fitting import is_limited
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import stating

Check = Callable[[KernelSubject, Any], None]
CLAIMS: Claims[KernelSubject] = Claims()


def claim(
    *,
    slug: str,
    clause: str,
    meaning: str,
    catches: tuple[str, ...],
    cases: Callable[[KernelSubject], st.SearchStrategy[Any]],
    needs: tuple[str, ...] = (),
    wants: tuple[KernelCapability, ...] = (),
    level: Level = "must",
    examples: int = 12,
    costly: bool = False,
) -> Callable[[Check], Property[KernelSubject]]:
    """Decorate a check: make it a `Property` of kernels and register that. See `Property` for the arguments.

    `wants` are freedoms that a kernel has unless it declares otherwise, without which there is nothing to draw.
    """

    described = CLAIMS.claim(
        slug=slug,
        clause=clause,
        level=level,
        meaning=meaning,
        catches=catches,
        needs=needs,
        cases=_fitted(cases, wants),
        examples=examples,
        dtypes=(),  # they are capabilities of kernels
        costly=costly,
    )
    return lambda check: described(_within_floor(check))


def _fitted(
    cases: Callable[[KernelSubject], st.SearchStrategy[Any]], wants: tuple[KernelCapability, ...]
) -> Callable[[KernelSubject], st.SearchStrategy[Any]]:
    """The cases that a kernel takes by what it declares; none where that leaves nothing to draw."""

    def strategy(subject: KernelSubject) -> st.SearchStrategy[Any]:
        for want in wants:
            if (reason := subject.capabilities[want]) is not None:
                raise Skip(reason)
        drawn = cases(subject)
        return drawn.map(subject.fitted) if is_limited(subject.kernel) else drawn

    return strategy


def _within_floor(check: Check) -> Check:
    """The check, with the limits of precision that the kernel states."""

    @wraps(check)
    def run(subject: KernelSubject, case: Any) -> None:
        with stating(subject.kernel.floor):
            check(subject, case)

    return run


def drawn(**options: Any) -> Callable[[KernelSubject], st.SearchStrategy[AttentionCase]]:
    """Cases in every dtype that the kernel takes; for the options see `cases`."""
    return lambda subject: cases(subject.dtypes, **options)


_ARGUMENTS: dict[Mask, KernelCapability] = {
    "causal": "causal",
    "window": "window",
    "band": "band",
    "prefix": "prefix",
    "documents": "documents",
}


def forms(subject: KernelSubject, mask: Mask) -> tuple[Form, ...]:
    """The forms in which this kernel can be passed a mask."""
    ways: list[Form] = []
    argument = _ARGUMENTS.get(mask)
    if argument is not None and subject.has(argument):
        ways.append("arguments")
    if subject.has("boolean-mask"):
        ways.append("boolean")
    if subject.has("additive-mask"):
        ways.append("additive")
    return tuple(ways)
