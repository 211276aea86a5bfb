"""Agreement with the formula in float64, in every dtype, forward and backward."""

from __future__ import annotations

from typing import Literal

import msgspec
from hypothesis import strategies as st

from holotype_conformance.judge.records import DType
from holotype_conformance.kernels.cases import (
    DTYPES,
    AttentionCase,
    Mask,
    cases,
)
from holotype_conformance.kernels.claims import claim
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import demand_both, demand_formula, demand_gradients


def _either(subject: KernelSubject, *dtypes: DType) -> st.SearchStrategy[AttentionCase]:
    """Without a mask, and causal where the kernel knows that."""
    known: tuple[Mask, ...] = ("none", "causal") if subject.has("causal") else ("none",)
    return cases(dtypes, masks=known, most=72, head_dims=(8, 16, 32, 64, 128, 256))


def _forward(dtype: DType) -> None:
    @claim(
        slug=f"formula.{dtype}",
        clause=f"The result is the formula’s in {dtype}.",
        meaning=(
            f"In {dtype} the result differs from softmax(scale q kᵀ) v, computed in float64 from "
            "the same inputs, by at most twice what the plain implementation differs by in the "
            "same dtype. A larger error means another formula (scale, softmax axis, diagonal), a "
            "block that is left out or counted twice, or, if only half precision fails, sums that "
            "are not accumulated in float32."
        ),
        catches=("a wrong scale", "the last block dropped", "half-precision accumulation"),
        needs=(dtype,),
        cases=lambda subject: _either(subject, dtype),
        examples=15,
    )
    def forward(subject: KernelSubject, case: AttentionCase) -> None:
        demand_formula(subject, subject.problem(case))


for _dtype in DTYPES:
    _forward(_dtype)


def _scaled(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    def scaled(case: AttentionCase, percent: int) -> AttentionCase:
        return msgspec.structs.replace(case, percent=percent)

    return st.builds(scaled, cases(subject.dtypes), st.integers(-50, 120))


@claim(
    slug="formula.scale",
    clause="Scores are scaled by the scale that is passed.",
    meaning=(
        "`scale` multiplies the products of queries and keys, whatever it is, zero and negative "
        "ones included, and replaces 1/√head_dim. Models without a scale (T5) or with one of "
        "their own (Gemma) rely on it. Look for a `scale or default`, for a scale applied twice, "
        "or for one that the backward pass does not know."
    ),
    catches=("scale ignored", "zero taken for none", "scale applied on top of the default"),
    needs=("scale",),
    cases=_scaled,
    examples=15,
)
def scale(subject: KernelSubject, case: AttentionCase) -> None:
    demand_both(subject, subject.problem(case))


def _backward(dtype: DType) -> None:
    @claim(
        slug=f"gradients.{dtype}",
        clause=f"Gradients are the formula’s in {dtype}.",
        meaning=(
            f"In {dtype} the gradients by q, k and v each differ from the formula's, computed in "
            "float64, by at most twice what those of the plain implementation differ by. If the "
            "forward pass is right, look at what it saves (the logarithm of the sum, the output), "
            "at the row sums of output · upstream, and at the scale, which belongs to the "
            "gradients by q and k and not to that by v."
        ),
        catches=("the scale forgotten in dq", "dk without the row sums", "a detached v"),
        needs=(dtype, "gradients"),
        cases=lambda subject: _either(subject, dtype),
        examples=12,
    )
    def backward(subject: KernelSubject, case: AttentionCase) -> None:
        demand_gradients(subject, subject.problem(case))


for _dtype in DTYPES:
    _backward(_dtype)


By = Literal["q", "k", "v", "qk", "qv", "kv"]


class SomeCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """`by` are those of q, k and v that require a gradient."""

    by: By = "q"


def _some(subject: KernelSubject) -> st.SearchStrategy[SomeCase]:
    def some(case: AttentionCase, by: By) -> SomeCase:
        return SomeCase(**msgspec.structs.asdict(case), by=by)

    known: tuple[Mask, ...] = ("none", "causal") if subject.has("causal") else ("none",)
    return st.builds(
        some,
        cases((subject.dtype,), masks=known),
        st.sampled_from(("q", "k", "v", "qk", "qv", "kv")),
    )


@claim(
    slug="gradients.some",
    clause="Gradients by some inputs are those by all.",
    meaning=(
        "Where only some of q, k and v require a gradient (keys and values of a frozen encoder or a cache, a prompt "
        "that is learned) theirs are what they are with all. Look for a backward pass that is skipped because q "
        "requires none, and for needs_input_grad read at the wrong place."
    ),
    catches=("no gradients where q requires none", "gradients handed back in the wrong places"),
    needs=("gradients",),
    cases=_some,
    examples=15,
)
def some(subject: KernelSubject, case: SomeCase) -> None:
    demand_gradients(subject, subject.problem(case), by=case.by)
