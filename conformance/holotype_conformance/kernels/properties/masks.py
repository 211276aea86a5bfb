"""Every kind of mask, in every form in which the kernel can be passed it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.cases import (
    MASKS,
    AttentionCase,
    Form,
    Mask,
    Problem,
    TogetherCase,
    additive,
    as_array,
    cases,
    visibility,
)
from holotype_conformance.kernels.claims import claim, drawn, forms
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.stillness import demand_unmoved
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import (
    allowed,
    demand_both,
    demand_formula,
    demand_gradients,
    demand_near,
    error,
    sighted,
)


@claim(
    slug="masks.causal",
    clause="A causal mask hides every later key.",
    meaning=(
        "With causal=True query i sees the keys up to i and no others, forward and backward. Look "
        "for a diagonal off by one, and for blocks on the diagonal that are left out or not "
        "masked."
    ),
    catches=("diagonal off by one", "diagonal blocks not masked"),
    needs=("causal",),
    cases=lambda subject: cases(subject.dtypes, masks=("causal",), most=72),
    examples=15,
)
def causal(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="masks.diagonal",
    clause="A causal mask is aligned to the last key.",
    meaning=(
        "With causal=True and another number of keys than queries, query i sees the keys j <= i + "
        "keys - queries: the diagonal ends in the lower right corner, as in decoding with a "
        "cache, where the last token sees everything. A kernel whose diagonal starts in the upper "
        "left corner (as is_causal of torch's scaled_dot_product_attention) shows a decoding step "
        "one key only. Queries that see no key are not compared."
    ),
    catches=("the diagonal in the upper left corner",),
    needs=("causal",),
    wants=("unequal-lengths",),
    cases=drawn(masks=("causal",), equal=False),
    examples=20,
)
def diagonal(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="masks.window",
    clause="A sliding window of w shows the last w keys.",
    meaning=(
        "With causal=True and window=w a query sees w keys, the last of them the one on its "
        "diagonal. Look for w + 1 keys (a comparison with <= where < is meant, or a window that "
        "counts only what lies behind), and for blocks at the far edge that are skipped too "
        "early."
    ),
    catches=("a window of one too many", "the window ignored", "the block at the far edge skipped"),
    needs=("window",),
    cases=drawn(masks=("window",), equal=False, most=160),
    examples=20,
)
def window(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="masks.band",
    clause="A window that is not causal shows both sides.",
    meaning=(
        "With window=w and no causal a query sees the keys less than w away from its diagonal, "
        "before and behind: w - 1 on each side and the diagonal. Look for a window that is always "
        "causal, or halved to each side."
    ),
    catches=("a band that is always causal", "the width halved"),
    needs=("band",),
    cases=drawn(masks=("band",), equal=False, most=160),
    examples=20,
)
def band(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


@claim(
    slug="masks.boolean",
    clause="A boolean mask shows the keys where it is true.",
    meaning=(
        "Where a boolean mask is true the query sees the key: causal, window, band, prefix, "
        "packed documents, padding on either side, and masks at random for each head. Look for "
        "the opposite convention (true hides), for a boolean that is added to the scores as 0 and "
        "1, and for masks read with the wrong stride."
    ),
    catches=("true hides", "the mask added as numbers", "only the first head's mask used"),
    needs=("boolean-mask",),
    cases=drawn(masks=MASKS, forms=("boolean",), equal=False),
    examples=25,
)
def boolean(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


class BiasCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """`decibias` is the standard deviation of the numbers that the mask adds, in tenths."""

    decibias: int = 0


def _biased(subject: KernelSubject) -> st.SearchStrategy[BiasCase]:
    def biased(case: AttentionCase, decibias: int) -> BiasCase:
        return BiasCase(**msgspec.structs.asdict(case), decibias=decibias)

    ways = cases(subject.dtypes, masks=MASKS, forms=("additive",), equal=False)
    return st.builds(biased, ways, st.sampled_from((0, 10, 30)))


@claim(
    slug="masks.additive",
    clause="An additive mask is added to the scores.",
    meaning=(
        "A floating-point mask is added to the scaled scores; -inf hides. It carries biases by "
        "distance (ALiBi, T5) as well as masks. Look for a bias that is multiplied by the scale, "
        "for one read as a boolean, and for -inf that becomes NaN by a multiplication with 0."
    ),
    catches=("the bias scaled", "the bias read as a boolean"),
    needs=("additive-mask",),
    cases=_biased,
    examples=25,
)
def added(subject: KernelSubject, case: BiasCase) -> None:
    problem = subject.problem(case)
    assert problem.call.mask is not None
    assert problem.visible is not None
    shape = (case.batch, case.heads, case.queries, case.keys)
    noise = np.random.default_rng([9, case.data]).standard_normal(shape) * case.decibias / 10
    bias = torch.from_numpy(noise).to(problem.call.mask)
    demand_both(
        subject,
        replace(
            problem,
            call=replace(problem.call, mask=problem.call.mask + bias),
            bias=as_array(bias),
        ),
    )


Axis = Literal["batch", "heads", "queries"]


class BroadcastCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """`alike` are the axes of the mask along which it is the same, and has the size one."""

    alike: tuple[Axis, ...] = ()


AXES: tuple[Axis, ...] = ("batch", "heads", "queries")


def _broadcast(subject: KernelSubject) -> st.SearchStrategy[BroadcastCase]:
    def shared(case: AttentionCase, alike: tuple[Axis, ...]) -> BroadcastCase:
        return BroadcastCase(**msgspec.structs.asdict(case), alike=alike)

    shapes: tuple[tuple[Axis, ...], ...] = (
        ("heads",),
        ("batch",),
        ("heads", "queries"),
        ("batch", "heads"),
        AXES,
        (),
    )
    ways = cases(
        subject.dtypes, masks=("random",), forms=tuple(forms(subject, "random")), equal=False
    )
    return st.builds(shared, ways, st.sampled_from(shapes))


@claim(
    slug="masks.broadcast",
    clause="A mask broadcasts along axes of size one.",
    meaning=(
        "The mask may have the size one for batch, heads or queries (key padding is (batch, 1, 1, "
        "keys)) and then holds for all of them. Look for a mask that is read with the strides of "
        "the full shape, or whose heads and batch are mixed up."
    ),
    catches=("a mask of one query applied to the first query only", "batch and heads mixed up"),
    needs=("boolean-mask",),
    cases=_broadcast,
    examples=20,
)
def broadcast(subject: KernelSubject, case: BroadcastCase) -> None:
    problem = subject.problem(case)
    found = visibility(case)
    assert found is not None
    cut = tuple(slice(0, 1) if axis in case.alike else slice(None) for axis in AXES)
    visible = found[cut]
    boolean_mask = torch.from_numpy(visible.copy()).to(problem.call.q.device)
    dtype = problem.call.q.dtype
    mask = boolean_mask if case.form == "boolean" else additive(boolean_mask, dtype)
    demand_both(subject, subject.told(problem, mask, visible))


@claim(
    slug="masks.agree",
    clause="Equal masks in different forms give equal results.",
    meaning=(
        "The same mask as arguments, as booleans, as an additive mask of -inf and as one of the "
        "lowest finite number gives the same result: kernels take another path for each, and "
        "models choose among them by what is installed. Look for the path whose result stands in "
        "the message."
    ),
    catches=("one path with another convention", "one path with another diagonal"),
    needs=("boolean-mask",),
    cases=drawn(masks=MASKS, forms=("boolean",), equal=False),
    examples=20,
)
def agree(subject: KernelSubject, case: AttentionCase) -> None:
    told = subject.problem(case)
    assert told.visible is not None
    rows = sighted(told)
    expected = told.expected()
    measured = error(plain(told).masked_fill(~rows, 0.0), expected.output, expected.output_size)
    first = subject.output(told.call, rows=rows)
    for name, (form, call) in _same(subject, case, told).items():
        demand_near(
            subject.output(call, rows=rows),
            as_array(first),
            expected.output_size,
            budget=2 * allowed(measured, first.dtype, expected),
            what=f"the result for the mask {name}",
            than="that for the boolean one",
            form=form,
        )


def _same(
    subject: KernelSubject, case: AttentionCase, told: Problem
) -> dict[str, tuple[Form, Call]]:
    """The other calls that mean the same, each with its form."""
    found: dict[str, tuple[Form, Call]] = {}
    for form in forms(subject, case.mask):
        if form != "boolean":
            other = msgspec.structs.replace(case, form=form)
            words = "as arguments" if form == "arguments" else "of -inf"
            found[words] = form, subject.problem(other).call
    if subject.has("additive-mask"):
        assert told.call.mask is not None
        dtype = told.call.q.dtype
        lowest = additive(told.call.mask, dtype, torch.finfo(dtype).min)
        found["of the lowest number"] = "additive", replace(told.call, mask=lowest)
    return found


def _any_mask(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    ways = [
        cases(subject.dtypes, masks=(mask,), forms=forms(subject, mask), equal=False)
        for mask in MASKS
        if forms(subject, mask)
    ]
    return st.one_of(ways)


@claim(
    slug="masks.hidden-keys",
    clause="Masked keys and values change no result.",
    meaning=(
        "Other keys and values where no query of a set sees them, of a hundred thousand times the size, "
        "leave the results of those queries as they are, to the bit: the claim that causality and "
        "padding rest on. Look for a mask applied after the softmax, a hidden score of -1e4 "
        "instead of -inf, or a maximum that is taken over hidden keys too."
    ),
    catches=("a hidden score of -1e4", "the mask applied after the softmax"),
    needs=("boolean-mask",),
    cases=_any_mask,
    examples=20,
)
def hidden_keys(subject: KernelSubject, case: AttentionCase) -> None:
    demand_unmoved(subject, subject.problem(case), case.data % case.keys)


def _together(subject: KernelSubject) -> st.SearchStrategy[TogetherCase]:
    masks: tuple[Mask, ...] = ("random", "right-padding")
    ways = cases(subject.dtypes, masks=masks, forms=("boolean",), equal=False)
    return ways.map(lambda case: TogetherCase(**msgspec.structs.asdict(case)))


@claim(
    slug="masks.together",
    clause="A mask and causal=True hold together.",
    meaning=(
        "A mask (key padding, say) given together with causal=True hides what either hides. Look "
        "for one of the two that is dropped without a word when the other is there."
    ),
    catches=("causal dropped where a mask is given", "the mask dropped where causal is given"),
    needs=("masks-together", "boolean-mask"),
    cases=_together,
    examples=15,
)
def together(subject: KernelSubject, case: TogetherCase) -> None:
    demand_both(subject, subject.problem(case))


class BlindCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """`row` is the query that sees no key, as long as there are so many."""

    row: Annotated[int, msgspec.Meta(ge=0, le=16_384)] = 0


def _blind(subject: KernelSubject) -> st.SearchStrategy[BlindCase]:
    def blinded(case: AttentionCase, row: int) -> BlindCase:
        return BlindCase(**msgspec.structs.asdict(case), row=row)

    ways = cases(subject.dtypes, masks=("random",), forms=forms(subject, "random"), equal=False)
    return st.builds(blinded, ways, st.integers(0, 20))


@claim(
    slug="masks.no-key",
    clause="A query that sees no key stays finite.",
    meaning=(
        "A row of a mask that hides everything, as padding makes them, gives a finite result "
        "(zero, or a mean of the values) and finite gradients, and leaves all other rows right. A "
        "NaN there reaches every weight of the model through the backward pass. Look for a "
        "softmax over -inf only, 0/0, and -inf minus -inf."
    ),
    catches=("0/0 in a row without keys", "NaN gradients from a row without keys"),
    needs=("boolean-mask",),
    cases=_blind,
    examples=20,
)
def no_key(subject: KernelSubject, case: BlindCase) -> None:
    problem = subject.problem(case)
    assert problem.visible is not None
    visible = problem.visible.copy()
    visible[:, :, case.row % case.queries] = False
    seen = torch.from_numpy(visible).to(problem.call.q.device)
    mask: Tensor = seen if case.form == "boolean" else additive(seen, problem.call.q.dtype)
    blind = subject.told(problem, mask, visible)
    subject.output(blind.call)  # finite in that row too
    demand_formula(subject, blind)
    if subject.has("gradients"):
        subject.differentiated(blind)  # finite, even where a gradient arrives at the row
        demand_gradients(subject, blind)
