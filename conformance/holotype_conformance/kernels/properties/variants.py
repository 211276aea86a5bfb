"""Second derivatives, which a kernel has, or refuses, but never gets wrong without a word."""

from __future__ import annotations

from itertools import product

import msgspec
from hypothesis import strategies as st

from holotype_conformance.judge.property import Skip, Violation
from holotype_conformance.kernels.cases import AttentionCase, Form, Mask, cases
from holotype_conformance.kernels.claims import claim, forms
from holotype_conformance.kernels.double_backward import Bent, Found, bent
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import (
    allowed,
    demand_formula,
    demand_gradients,
    demand_near,
    error,
)

MASKS: tuple[Mask, ...] = ("none", "causal", "window", "prefix", "documents", "random")
LENGTHS = (3, 9, 17, 40, 150, 520)  # kernels that have several paths take another for what is long
WORDS = {name: f"by {name}" for name in "qkv"} | {"upstream": "by the gradient that arrives"}


def _ways(subject: KernelSubject) -> list[tuple[Mask, Form]]:
    """No mask, masks by argument, and one at random in each form that the kernel takes."""
    told: list[tuple[Mask, Form]] = [("none", "arguments")]
    for mask in MASKS[1:]:
        for form in forms(subject, mask):
            if form == "arguments" or mask == "random":
                told.append((mask, form))
    return told


def _demand_some(subject: KernelSubject) -> None:
    """Go on only where some way is not refused: kernels take another path for each.

    Raises:
        Skip: all are; with what the kernel says.
    """
    said = []
    for (mask, form), length in product(_ways(subject), (LENGTHS[2], LENGTHS[-1])):
        problem = subject.plainest(queries=length, keys=length, mask=mask, form=form, size=5)
        try:
            bent(problem, seed=13).of_kernel(subject)
        except Violation as refusal:
            said.append(refusal.summary)
        else:
            return
    raise Skip(said[0])


def _cases(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    _demand_some(subject)
    groups = (1, 2) if subject.has("grouped-heads") else (1,)
    percents = (None, 30, 130) if subject.has("scale") else (None,)

    def case(
        drawn: AttentionCase, way: tuple[Mask, Form], length: int, group: int, percent: int | None
    ) -> AttentionCase:
        """As many queries as keys unless there is no mask, so that all see a key; few heads where they are many."""
        kv_heads = 1 if length == LENGTHS[-1] else drawn.kv_heads
        return msgspec.structs.replace(
            drawn,
            queries=drawn.queries if way[0] == "none" and drawn.data % 2 else length,
            keys=length,
            batch=1 if length == LENGTHS[-1] else drawn.batch,
            heads=group * kv_heads,
            kv_heads=kv_heads,
            mask=way[0],
            form=way[1],
            size=5,
            percent=percent,
        )

    return st.builds(
        case,
        cases((subject.dtype,), most=24, heads=(1, 2), head_dims=(8, 16)),
        st.sampled_from(_ways(subject)),
        st.sampled_from(LENGTHS),
        st.sampled_from(groups),
        st.sampled_from(percents),
    )


@claim(
    slug="gradients.second-derivatives",
    clause="Second derivatives are the formula’s, or refused.",
    meaning=(
        "A kernel that is differentiated twice (for a penalty on gradients, a Hessian, an optimiser of second order) "
        "gives what the formula gives, or raises, and is then skipped by what it says. A backward pass that computes "
        "from detached tensors raises nothing: the second derivative lacks all that went through it, without a word. "
        "Write the backward pass in differentiable operations on tensors that save_for_backward kept (inputs and "
        "outputs: a logarithm of the sum that was merely computed on the way is a constant there), or mark it with "
        "torch.autograd.function.once_differentiable, which raises."
    ),
    catches=("second derivatives of zero", "a logarithm of the sum taken for a constant"),
    needs=("gradients",),
    cases=_cases,
    examples=15,
)
def twice(subject: KernelSubject, case: AttentionCase) -> None:
    asked = bent(subject.problem(case), seed=[13, case.data])
    demand_formula(subject, asked.problem)  # what is wrong at once explains what is wrong later
    try:
        found = asked.of_kernel(subject)
    except Violation:
        return  # a refusal, though not of everything
    try:
        _demand_formula(asked, found)
    except Violation:
        demand_gradients(subject, asked.problem)
        raise


def _demand_formula(asked: Bent, found: Found) -> None:
    expected, sizes = asked.expected()
    if all(x is None for x in found.values()):
        raise Violation(
            "autograd takes the gradients for constants, although they depend on q, k, v and the gradient that"
            " arrives: second derivatives would lack them without a word; expected those of the formula, or an"
            " exception (torch.autograd.function.once_differentiable raises one)"
        )
    right = asked.of_plain()
    for name, words in WORDS.items():
        wanted, size = getattr(expected, name), getattr(sizes, name)
        actual = asked.filled(found[name], name)
        nothing = ", zero everywhere," if wanted.any() and not actual.any() else ""
        demand_near(
            actual,
            wanted,
            size,
            budget=allowed(
                error(asked.filled(right[name], name), wanted, size), actual.dtype, gradients=True
            ),
            what=f"the derivative {words} of the gradients{nothing}",
            order=2,
        )
