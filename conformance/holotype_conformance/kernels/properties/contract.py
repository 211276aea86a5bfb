"""The promises of a kernel for any numbers: shape, dtype, device, its inputs left alone, the same bits twice."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import msgspec
import torch
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.cases import AttentionCase, Problem, cases, copied_as
from holotype_conformance.kernels.claims import claim
from holotype_conformance.kernels.subject import (
    KernelSubject,
    Returned,
    checked,
    copied,
)
from holotype_conformance.kernels.tolerance import demand_both


def _masked(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    """Cases without a mask, and with an additive or boolean one where the kernel takes it."""
    open_cases = cases(subject.dtypes)
    ways = [
        cases(subject.dtypes, masks=("random",), forms=(form,))
        for form in ("boolean", "additive")
        if subject.has(f"{form}-mask")  # type: ignore[arg-type]
    ]
    return st.one_of(open_cases, *ways)


@claim(
    slug="contract.result",
    clause="The result has q’s shape, dtype and device.",
    meaning=(
        "The result has the shape (batch, heads, queries, head_dim), the dtype and the device of "
        "q: a model that mixes dtypes loses precision or speed without a word. Look for a reshape "
        "that swaps axes, a result left in the accumulator's float32, or a tensor made without "
        "device=q.device."
    ),
    catches=("a result in float32 for half inputs", "axes swapped", "a tuple returned"),
    cases=lambda subject: cases(subject.dtypes, equal=False),
)
def result(subject: KernelSubject, case: AttentionCase) -> None:
    call = subject.problem(case).call
    subject.output(call, finite=False)
    # As it is written, for a result in float32 would be lifted; what raises then does not.
    returned = None
    with suppress(Violation), torch.no_grad():
        returned = subject.raw(call.with_tensors(copied), lifted=False)
    if returned is not None:
        checked(returned, call, finite=False)


@claim(
    slug="contract.finite",
    clause="A finite problem has a finite result.",
    meaning=(
        "Ordinary finite inputs in which every query sees a key give finite results in every "
        "dtype. A NaN or an infinity means uninitialised memory, a softmax without its maximum "
        "subtracted, or a division by zero."
    ),
    catches=("memory read before it is written", "0/0 in the last block"),
    cases=_masked,
)
def finite(subject: KernelSubject, case: AttentionCase) -> None:
    subject.output(subject.problem(case).call)


@claim(
    slug="contract.inputs-unwritten",
    clause="A call writes nothing into its inputs.",
    meaning=(
        "q, k, v and the mask hold the same bits after the call, and after the backward pass, as "
        "before, and so do the result and the gradient that arrived: other layers and the backward "
        "pass itself still need them. Look for in-place operations (mul_, masked_fill_) on an "
        "argument, on what was saved, or on a view of one."
    ),
    catches=(
        "q scaled in place",
        "the mask filled in place",
        "the saved output multiplied in place",
    ),
    cases=_masked,
)
def inputs_unwritten(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    given = problem.call.with_tensors(copied)
    with torch.no_grad():
        subject.raw(given)
    for name in ("q", "k", "v", "mask"):
        before, after = getattr(problem.call, name), getattr(given, name)
        if before is not None and not torch.equal(before, after):
            raise Violation(f"the call wrote into {name}: its contents have changed", tensor=name)
    if subject.has("gradients"):
        _demand_backward_unwritten(subject, problem)


def _demand_backward_unwritten(subject: KernelSubject, problem: Problem) -> None:
    given, upstream = _Graph(subject, problem), copied(problem.upstream)
    kept = given.output.detach().clone()
    given.gradients(upstream)
    call = problem.call
    for words, before, after in (
        ("the gradient that it was given", problem.upstream, upstream),
        ("the result", kept, given.output),
        *((name, getattr(call, name), x) for name, x in zip("qkv", given.inputs, strict=True)),
    ):
        if not torch.equal(before, after):
            raise Violation(f"the backward pass wrote into {words}: its contents have changed")


class _Graph:
    """One call whose backward pass can be run several times."""

    def __init__(self, subject: KernelSubject, problem: Problem) -> None:
        self.subject = subject
        self.call, self.inputs = subject.leaves(problem, "qkv")
        with torch.enable_grad():
            self.output = checked(subject.raw(self.call), problem.call)

    def gradients(self, upstream: Tensor) -> list[Tensor | None]:
        return self.subject.backwards(self.call, self.output, upstream, self.inputs, retain=True)


def _demand_same_again(subject: KernelSubject, problem: Problem) -> None:
    """Two backward passes through one graph give the same bits, unless the second is refused."""
    graph = _Graph(subject, problem)
    first = graph.gradients(copied(problem.upstream))
    kept = [None if x is None else x.clone() for x in first]
    try:
        again = graph.gradients(copied(problem.upstream))
    except Violation:
        return
    for name, before, after in zip("qkv", kept, again, strict=True):
        if before is not None and (after is None or not torch.equal(before, after)):
            raise Violation(
                f"the gradients by {name} of two backward passes through one call differ; expected the same bits,"
                " or an exception the second time"
            )


@claim(
    slug="contract.deterministic",
    clause="The same call gives the same bits twice.",
    meaning=(
        "Two calls with the same inputs give the same bits, whatever was computed between them, "
        "and draw no random numbers; so do two backward passes through one call (retain_graph), "
        "unless the second raises. Otherwise no failure of training can be reproduced. Look for "
        "uninitialised memory, a buffer kept between calls, sums by atomic additions, or a "
        "dropout that is on."
    ),
    catches=("a workspace kept between calls", "random dropout", "results kept by shape"),
    cases=_masked,
)
def deterministic(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    other = subject.problem(msgspec.structs.replace(case, data=case.data + 1))
    results = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(_everything(subject, problem))
            subject.output(other.call, finite=False)
    if subject.has("gradients"):
        _demand_same_again(subject, problem)
    for name, first in results[0].items():
        if not torch.equal(first, results[1][name]):
            moved = float((first - results[1][name]).abs().max())
            raise Violation(
                f"{name} of two same calls differ by {moved:.1e}; expected the same bits"
            )


def _everything(subject: KernelSubject, problem: Problem) -> Mapping[str, Tensor]:
    if not subject.has("gradients"):
        return {"the results": subject.output(problem.call)}
    found: Returned = subject.differentiated(problem)
    return {"the results": found.output} | {
        f"the gradients by {name}": getattr(found, name) for name in "qkv"
    }


Layout = Literal["transposed", "sliced", "strided", "expanded", "offset"]


class StridesCase(AttentionCase, frozen=True, kw_only=True, omit_defaults=True):
    """`layout` is how q, k and v (and the mask) lie in memory."""

    layout: Layout = "transposed"


def _strided(subject: KernelSubject) -> st.SearchStrategy[StridesCase]:
    def laid(case: AttentionCase, layout: Layout) -> StridesCase:
        fields: dict[str, Any] = msgspec.structs.asdict(case)
        return StridesCase(**fields, layout=layout)

    layouts: tuple[Layout, ...] = ("transposed", "sliced", "strided", "expanded", "offset")
    return st.builds(laid, _masked(subject), st.sampled_from(layouts))


@claim(
    slug="contract.strides",
    clause="The memory layout of inputs changes no result.",
    meaning=(
        "Inputs that are transposed, sliced out of a larger tensor, strided in their last axis, "
        "expanded over heads (stride 0) or offset in memory give what contiguous ones give, and so "
        "does the gradient that arrives: models hand over such views, and `sum` an expanded "
        "gradient. Look for `view` where `reshape` is meant, for pointers that "
        "ignore strides, or for a stride assumed to be head_dim."
    ),
    catches=(
        "strides ignored",
        "only transposed inputs handled",
        "strides of the gradient ignored",
    ),
    cases=_strided,
    examples=20,
)
def strides(subject: KernelSubject, case: StridesCase) -> None:
    problem = subject.problem(case)
    visible = problem.visible
    if case.layout == "expanded" and visible is not None:
        visible = visible[:, :1]
    call = problem.call.with_tensors(lambda x: lie(x, case.layout))
    upstream = lie(problem.upstream, case.layout)
    laid = replace(problem, call=call, visible=visible, upstream=upstream)
    demand_both(subject, laid, layout=case.layout)


def lie(x: Tensor, layout: Layout) -> Tensor:
    """`x`, or for `expanded` its first head for all heads, lying so in memory. x: four axes."""
    batch, heads, length, width = x.shape
    match layout:
        case "transposed":
            return copied_as(x, x.new_empty(batch, length, heads, width).transpose(1, 2))
        case "sliced":
            return copied_as(x, x.new_empty(batch, heads, length + 3, width + 5)[:, :, 2:-1, 1:-4])
        case "strided":
            return copied_as(x, x.new_empty(batch, heads, length, 2 * width)[..., ::2])
        case "expanded":
            return x[:, :1].expand(batch, heads, length, width)
        case "offset":
            flat = x.new_empty(x.numel() + 1)
            return copied_as(x, flat[1:].view(x.shape))
