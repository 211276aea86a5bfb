"""The same kernel elsewhere: on a GPU, through another back end of torch, on several threads, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from holotype_conformance.judge.guard import candidate_code
from holotype_conformance.judge.precision import arithmetic
from holotype_conformance.judge.property import Skip, Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.kernels.cases import AttentionCase, Mask, Problem, as_array, cases
from holotype_conformance.kernels.claims import claim
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.subject import KernelSubject, checked, copied
from holotype_conformance.kernels.tolerance import allowed, demand_near, error
from holotype_conformance.torch_tools import backends as machine
from holotype_conformance.torch_tools.fake_device import ELSEWHERE, here, places, told_apart

SEVERAL = 2  # threads; an odd number of rows leaves a rest


def known_masks(subject: KernelSubject) -> tuple[Mask, ...]:
    """None at all, and what the kernel knows of causal and window as arguments."""
    told = [mask for mask in ("causal", "window", "band") if subject.has(mask)]
    return ("none", *told)  # type: ignore[arg-type]


def allowance(problem: Problem) -> float:
    """The tolerance of one run against the formula: half of what may lie between two."""
    expected = problem.expected()
    measured = error(plain(problem), expected.output, expected.output_size)
    return allowed(measured, problem.call.q.dtype, expected)


def demand_alike(
    actual: Tensor, expected: Tensor, problem: Problem, *, budget: float, what: str, than: str
) -> None:
    """Demand that two runs agree within `budget`."""
    demand_near(
        actual,
        as_array(expected),
        problem.expected().output_size,
        budget=budget,
        what=what,
        than=than,
    )


# Another device -------------------------------------------------------------------------------------------


@claim(
    slug="hardware.placement",
    clause="Every tensor that a kernel makes is on q’s device.",
    level="should",
    meaning=(
        "Whatever a kernel makes, such as positions, masks and buffers, is made on the device of q. This needs no "
        "GPU: a second device is simulated, whose tensors refuse to meet those of the CPU, and which computes with "
        "real numbers. Look for arange, ones, tril or tensor without device=q.device."
    ),
    catches=("positions made on the CPU", "a mask kept on the CPU"),
    cases=lambda subject: cases(
        subject.dtypes, masks=known_masks(subject)[::-1], equal=False, most=24
    ),
    examples=6,
)
def placement(subject: KernelSubject, case: AttentionCase) -> None:
    home = subject.on(machine.CPU)
    problem = home.problem(case)
    expected = home.output(problem.call)
    with places(), told_apart():
        call = problem.call.with_tensors(lambda x: copied(x).to(ELSEWHERE))
        with torch.no_grad():
            actual = here(checked(home.raw(call), call))
    demand_alike(
        actual,
        expected,
        problem,
        budget=2 * allowance(problem),
        what="the result on another device",
        than="that on the CPU",
    )


def _on_gpu(name: str, dtype: DType, words: str, *, rounded: bool = False) -> None:
    @claim(
        slug=f"hardware.{name}",
        clause=f"CPU and GPU agree in {words}.",
        meaning=(
            f"In {words} the kernel gives on a GPU what it gives on the CPU from the same inputs, within what the "
            "plain implementation's own errors on the two allow. A kernel usually has different code for the two: "
            "the smallest shape that tells them apart is shown."
        ),
        catches=("a kernel that is wrong on the GPU",),
        needs=(dtype,),
        cases=lambda subject: cases((dtype,), masks=known_masks(subject), equal=False, most=72),
    )
    def same(subject: KernelSubject, case: AttentionCase) -> None:
        demand_same_on_gpu(subject, case, rounded=rounded)


def demand_same_on_gpu(
    subject: KernelSubject, case: AttentionCase, *, rounded: bool = False
) -> None:
    """Demand that the kernel gives on a CUDA device what it gives on the CPU.

    `rounded` lets the GPU round the factors of float32 products to TensorFloat.
    """
    gpu, home = subject.on(machine.cuda_device(subject.device)), subject.on(machine.CPU)
    problem, moved = home.problem(case), gpu.problem(case)
    try:
        expected = home.output(problem.call)
    except Violation as violation:
        if subject is home:
            raise
        raise Skip(f"it does not run on the CPU: {violation.summary}") from violation
    with arithmetic(rounded_products=rounded):
        budget = allowance(moved)
        actual = gpu.output(moved.call)
    demand_alike(
        actual,
        expected,
        problem,
        budget=budget + allowance(problem),
        what="the result on the GPU",
        than="that on the CPU",
    )


for _dtype in ("float64", "float32", "bfloat16", "float16"):
    _on_gpu(_dtype, _dtype, _dtype)
_on_gpu("tensorfloat", "float32", "float32 with TensorFloat", rounded=True)


# Another back end, other threads, other batches -----------------------------------------------------------


@claim(
    slug="hardware.back-ends",
    clause="Every back end of torch gives the same result.",
    meaning=(
        "A kernel that calls scaled_dot_product_attention runs through another kernel on another machine. The same "
        "call is made with each back end that serves it. Look for branches on which ones are enabled."
    ),
    catches=("a fallback with another scale",),
    cases=lambda subject: cases(subject.dtypes, masks=known_masks(subject), equal=False),
)
def back_ends(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    found = dict(_by_back_end(subject, problem))
    if len(found) < 2:
        raise Skip("only one back end of torch serves it here")
    first = next(iter(found))
    for name, output in found.items():
        demand_alike(
            output,
            found[first],
            problem,
            budget=2 * allowance(problem),
            what=f"the result through {name}",
            than=f"that through {first}",
        )


def _by_back_end(subject: KernelSubject, problem: Problem) -> Iterator[tuple[str, Tensor]]:
    for name, back_end in machine.BACK_ENDS.items():
        try:
            with sdpa_kernel(back_end):
                yield name, subject.output(problem.call)
        except Violation as violation:
            if not machine.NO_KERNEL.search(str(violation.__cause__)):
                raise


def _many_rows(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    def many(case: AttentionCase) -> AttentionCase:
        found: AttentionCase = msgspec.structs.replace(
            case, batch=case.batch + 8 | 1, heads=3, kv_heads=3, queries=case.queries | 1
        )
        return found

    return cases(subject.dtypes, most=72).map(many)


@claim(
    slug="hardware.threads",
    clause="Several threads give the result that one gives.",
    meaning=(
        "A problem that is large enough to be split is computed on one thread and on two. Look for work divided by "
        "the number of threads whose rest nobody does, for two threads that write the same place, and for a "
        "workspace that they share."
    ),
    catches=("the rest of a division among threads dropped",),
    wants=("batches",),
    cases=_many_rows,
    examples=4,
)
def several_threads(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    expected = subject.output(problem.call)
    with machine.threads(SEVERAL):
        actual = subject.output(problem.call)
    demand_alike(
        actual,
        expected,
        problem,
        budget=2 * allowance(problem),
        what=f"the result of {SEVERAL} threads",
        than="that of one",
    )


@claim(
    slug="hardware.batch-sizes",
    clause="A row gives the same result alone and in a batch.",
    meaning=(
        "Kernels choose tiles and split the keys by the size of the batch, so that bits may differ; more than "
        "rounding may not. Look for offsets that overflow or use the wrong stride in a larger batch, and for a scale "
        "or a maximum taken over the whole of it."
    ),
    catches=("one quantisation for the whole batch", "rows beyond the first few left out"),
    wants=("batches",),
    cases=_many_rows,
    examples=4,
)
def batch_sizes(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    rows = [
        subject.output(problem.call.with_tensors(lambda x, row=row: x[row : row + 1]))  # type: ignore[misc]
        for row in range(case.batch)
    ]
    demand_alike(
        torch.cat(rows),
        subject.output(problem.call),
        problem,
        budget=2 * allowance(problem),
        what="the result of each row alone",
        than="that in the batch",
    )


# Compiled -------------------------------------------------------------------------------------------------


def demand_same_compiled(subject: KernelSubject, case: AttentionCase, back_end: str) -> None:
    """Demand that `torch.compile` changes nothing beyond rounding.

    Raises:
        Skip: it cannot be compiled.
    """
    problem = subject.problem(case)
    expected = subject.output(problem.call)
    call = problem.call.with_tensors(copied)

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result: Tensor = subject.kernel.call(replace(call, q=q, k=k, v=v))
        return result

    with machine.fresh_compiler(), machine.compilable(), candidate_code("attention, compiled,"):
        compiled = torch.compile(attention, backend=back_end, dynamic=False)
        with torch.no_grad():
            actual = compiled(call.q, call.k, call.v)
    demand_alike(
        checked(actual, call),
        expected,
        problem,
        budget=2 * allowance(problem),
        what="the result compiled",
        than="that not compiled",
    )


def _compiled_cases(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    # What is lifted in float64 is not as it is compiled.
    dtypes = tuple(dtype for dtype in subject.dtypes[::-1] if dtype != "float64")
    return cases(dtypes or subject.dtypes, masks=known_masks(subject)[::-1], least=5)


@claim(
    slug="hardware.captured",
    clause="A captured graph gives the same result.",
    meaning=(
        "torch.compile reads the kernel's code once and runs the operations that it recorded; here without "
        "generating machine code. Look for branches on torch.compiler.is_compiling(), and for values of the first "
        "call that became constants."
    ),
    catches=("the mask dropped when compiled",),
    cases=_compiled_cases,
    examples=3,
    costly=True,
)
def captured(subject: KernelSubject, case: AttentionCase) -> None:
    demand_same_compiled(subject, case, "aot_eager")


@claim(
    slug="hardware.compiled",
    clause="Compiled code gives the same result.",
    meaning=(
        "The whole of torch.compile, which fuses operations into machine code. If only this one fails and "
        "hardware.captured holds, the compiler or a precision that relied on rounded intermediates is to blame. It "
        "needs a C++ compiler on a CPU, Triton on a GPU."
    ),
    catches=("the mask dropped when compiled", "wrong code from a compiler"),
    cases=_compiled_cases,
    examples=2,
    costly=True,
)
def compiled(subject: KernelSubject, case: AttentionCase) -> None:
    lack = machine.compiler_lack()
    if lack is not None:
        raise Skip(f"no working compiler: {lack}")
    demand_same_compiled(subject, case, "inductor")
