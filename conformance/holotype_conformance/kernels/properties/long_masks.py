"""Masks beyond the first block, with all that may come together: grouped heads, a scale, few queries, two masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec
from hypothesis import strategies as st

from holotype_conformance.judge.property import Skip
from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.cases import MASKS, AttentionCase, Form, Mask
from holotype_conformance.kernels.claims import claim, forms
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import demand_both

LENGTHS = (65, 100, 129, 150, 161, 200)
QUERIES = (1, 3, 64, 70)  # or as many as keys
SIZES = (1, 30, 64, 65, 130, 300)
REAL = (1, 5, 30, 63, 90)  # keys of the first row, where others are padding; the second has 71 more
PADDED = ("left-padding", "right-padding")
HEADS = ((1, 1), (2, 2))
GROUPED = ((2, 1), (4, 2))


class FarCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """With `width` the kernel is also passed causal, and with one above zero a window."""

    width: Annotated[int, msgspec.Meta(ge=0, le=16_384)] | None = None


def _ways(subject: KernelSubject) -> list[tuple[Mask, Form]]:
    """Those as arguments twice as often: blocks are skipped by them."""
    return [
        (mask, form)
        for mask in MASKS
        for form in forms(subject, mask)
        for _ in range(2 if form == "arguments" else 1)
    ]


def _widths(subject: KernelSubject, form: Form) -> tuple[int | None, ...]:
    """The widths passed beside a mask that is a tensor."""
    if form == "arguments" or not subject.has("masks-together"):
        return (None,)
    return (None, 0, 20, 80) if subject.has("window") else (None, 0)


def _far(subject: KernelSubject) -> st.SearchStrategy[FarCase]:
    heads = HEADS + (GROUPED if subject.has("grouped-heads") else ())

    @st.composite
    def case(draw: st.DrawFn) -> FarCase:
        mask, form = draw(st.sampled_from(_ways(subject)))
        keys = draw(st.sampled_from(LENGTHS))
        queries = draw(st.sampled_from((*[keys] * 4, *QUERIES)))
        sizes = REAL if mask in PADDED else SIZES
        count, kv_heads = draw(st.sampled_from(heads))
        return FarCase(
            queries=min(queries, keys),
            keys=keys,
            batch=2 if mask in PADDED else draw(st.integers(1, 2)),
            heads=count,
            kv_heads=kv_heads,
            head_dim=16,
            dtype=draw(st.sampled_from((subject.dtype, *subject.dtypes))),
            mask=mask,
            form=form,
            size=1 if mask in ("causal", "random") else draw(st.sampled_from(sizes)),
            percent=draw(st.sampled_from((None, 30))) if subject.has("scale") else None,
            by_row=mask in PADDED,
            width=draw(st.sampled_from(_widths(subject, form))),
            data=draw(st.integers(0, 99)),
        )

    if not _ways(subject):
        raise Skip("it takes no mask in any form, so that there is none to hold")
    return case()


@claim(
    slug="lengths.masks",
    clause="Masks hold in every block of a long sequence.",
    meaning=(
        "With 65 to 200 keys every mask shows what it should, forward and backward, passed as arguments, booleans or "
        "numbers, alone and together with causal and a window, for as many queries as keys and for few at their end, "
        "with grouped heads and a scale. Kernels skip blocks in which everything is hidden and leave out the mask "
        "where all is seen: look at how they find out (one row, one corner, the first row of the batch), at the "
        "blocks where a window begins, and at paths of their own for one query or for grouped heads."
    ),
    catches=(
        "a block taken for hidden by its first row",
        "the block in which a window begins is skipped",
        "the window or the scale forgotten for grouped heads or one query",
    ),
    cases=_far,
    examples=60,
)
def masks(subject: KernelSubject, case: FarCase) -> None:
    problem = subject.problem(case)
    if case.width is not None:
        assert problem.visible is not None
        more = oracle.causal(case.queries, case.keys)
        if case.width:
            more = more & oracle.window(case.queries, case.keys, case.width)
        call = replace(problem.call, causal=True, window=case.width or None)
        told = replace(problem, call=call)
        problem = subject.told(told, call.mask, problem.visible & more)
    demand_both(subject, problem)
