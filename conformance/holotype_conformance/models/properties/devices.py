"""The same model elsewhere: on a GPU, through another attention kernel, on several threads, compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from holotype_conformance.judge.precision import arithmetic, settings
from holotype_conformance.judge.process_state import changes
from holotype_conformance.judge.property import ALL_DTYPES, Skip, Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    BatchCase,
    batch_cases,
    batch_inputs,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.variants import (
    TwiceCase,
    allowance,
    demand_alike,
    twice_cases,
)
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools import backends as machine
from holotype_conformance.torch_tools.fake_device import ELSEWHERE, here, places, told_apart
from holotype_conformance.torch_tools.float64 import default_dtype

SEVERAL = 2  # threads; an odd number of tokens leaves a rest


def demand_same_within(
    subject: Subject,
    case: TwiceCase,
    path: str,
    what: str,
    context: Callable[[], AbstractContextManager[None]],
) -> None:
    """Demand that a run inside a context gives what one outside gives."""
    inputs = batch_inputs(subject, case)
    budget = 2 * allowance(subject, case)
    model = subject.model(case.setup(path, dtype=case.dtype))
    expected = subject.forward(model, inputs).logits
    with context():
        actual = subject.forward(model, inputs).logits
    demand_alike(
        actual,
        expected,
        rows=real_rows(inputs),
        case=case,
        budget=budget,
        what=what,
    )


# Another device -------------------------------------------------------------------------------------------


@claim(
    slug="devices.placement",
    clause="A model moved to a device computes there alone.",
    level="should",
    meaning=(
        "A model that is moved to a device takes everything with it, and makes whatever it makes there. This "
        "needs no GPU: a second device is simulated, whose tensors refuse to meet those of the CPU, and which "
        "computes with real numbers. Look for a table that is a plain attribute (register_buffer moves with the "
        "model), and for arange, zeros, tensor or full without device=."
    ),
    catches=("table that is a plain attribute", "positions made on the CPU", "logits on the CPU"),
    needs=("parameters",),
    cases=lambda subject: batch_cases(subject),
    examples=3,
)
def placement(subject: Subject, case: BatchCase, path: str) -> None:
    home = subject.on(machine.CPU)
    inputs = batch_inputs(home, case)
    model = home.fresh_model(case.setup(path))
    expected = home.forward(model, inputs).logits
    with places(), told_apart():
        model.to(ELSEWHERE)
        moved = {name: value.to(ELSEWHERE) for name, value in inputs.tensors().items()}
        with torch.no_grad():
            actual = home.call(model, Inputs(**moved)).logits
    if actual.device != ELSEWHERE:
        raise Violation("the logits are on the CPU; expected them on the model's device")
    demand_equal(
        here(actual),
        expected,
        rows=real_rows(inputs),
        budget=home.floor,
        what="the outputs on another device and on the CPU",
    )


def _on_gpu(name: str, dtype: DType, words: str, *, rounded: bool = False) -> None:
    @claim(
        slug=f"devices.{name}",
        clause=f"CPU and GPU agree in {words}.",
        meaning=(
            f"In {words} the GPU gives what the CPU gives with the same weights and inputs, in float64 to rounding, "
            "below it within what the reference's own errors on the two allow. Look for a kernel that only one of "
            "them takes, for a tensor that is left on the other, and for a lower precision that is asked for on "
            "the GPU alone (autocast, TensorFloat)."
        ),
        catches=("a kernel that is wrong on the GPU", "autocast on the GPU only"),
        needs=(dtype,),
        cases=lambda subject: twice_cases(subject, (dtype,)),
        examples=4,
        dtypes=(dtype,),
    )
    def same(subject: Subject, case: TwiceCase, path: str) -> None:
        demand_same_on_gpu(subject, case, path, rounded=rounded)


def demand_same_on_gpu(
    subject: Subject, case: TwiceCase, path: str, *, rounded: bool = False
) -> None:
    """Demand that the candidate gives on a CUDA device what it gives on the CPU.

    `rounded` lets the GPU round the factors of float32 products to TensorFloat.
    """
    gpu, home = subject.on(machine.cuda_device(subject.device)), subject.on(machine.CPU)
    inputs, moved = batch_inputs(home, case), batch_inputs(gpu, case)
    with arithmetic(rounded_products=rounded):
        budget = allowance(gpu, case)
    budget += allowance(home, case)
    setup = case.setup(path, dtype=case.dtype)
    expected = home.forward(home.model(setup), inputs).logits
    with arithmetic(rounded_products=rounded):
        actual = gpu.forward(gpu.model(setup), moved).logits
    demand_alike(
        actual,
        expected,
        rows=real_rows(inputs),
        case=case,
        budget=budget,
        what="the logits on the GPU and on the CPU",
    )


for _dtype in ALL_DTYPES:
    _on_gpu(_dtype, _dtype, _dtype)
_on_gpu("tensorfloat", "float32", "float32 with TensorFloat", rounded=True)


# Another kernel, other threads, other settings ------------------------------------------------------------


@claim(
    slug="devices.back-ends",
    clause="Every attention back end gives the same logits.",
    meaning=(
        "scaled_dot_product_attention has several kernels, and which one runs depends on the machine, the dtype and "
        "the mask. The same batch is run through each that serves it, in each dtype. Look for branches on which "
        "kernels are enabled, and for a fallback that nobody has run: it forgets the mask, the scale or the bias."
    ),
    catches=("fallback that ignores the mask", "mask that only one kernel reads"),
    cases=twice_cases,
    examples=4,
    dtypes=ALL_DTYPES,
)
def back_ends(subject: Subject, case: TwiceCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    budget = 2 * allowance(subject, case)
    model = subject.model(case.setup(path, dtype=case.dtype))
    found = dict(_by_back_end(subject, model, inputs))
    if len(found) < 2:
        raise Skip("only one attention back end serves it here")
    for name, actual in found.items():
        demand_alike(
            actual,
            next(iter(found.values())),
            rows=real_rows(inputs),
            case=case,
            budget=budget,
            what=f"the logits through the back ends {name} and {next(iter(found))}",
        )


def _by_back_end(
    subject: Subject, model: nn.Module, inputs: Inputs
) -> Iterator[tuple[str, Tensor]]:
    for name, back_end in machine.BACK_ENDS.items():
        try:
            with sdpa_kernel(back_end):
                yield name, subject.forward(model, inputs).logits
        except Violation as violation:
            if not machine.NO_KERNEL.search(str(violation.__cause__)):
                raise


def _odd(case: TwiceCase) -> TwiceCase:
    odd: TwiceCase = msgspec.structs.replace(case, batch=case.batch | 1, length=case.length | 1)
    return odd


@claim(
    slug="devices.threads",
    clause="Several threads give the logits that one gives.",
    meaning=(
        "The same batch, large enough to be split among threads, is run on one thread and on two. Look for a "
        "kernel of one's own that divides the work and drops the rest, for results that two threads write, and "
        "for buffers that they share."
    ),
    catches=("rest of a division among threads dropped", "race between threads"),
    cases=lambda subject: twice_cases(subject, batches=(41, 47)).map(_odd),
    examples=2,
    dtypes=ALL_DTYPES,
)
def several_threads(subject: Subject, case: TwiceCase, path: str) -> None:
    what = f"the logits of {SEVERAL} threads and of one"
    demand_same_within(subject, case, path, what, lambda: machine.threads(SEVERAL))


@claim(
    slug="devices.settings-kept",
    clause="A call leaves torch's settings alone.",
    level="should",
    meaning=(
        "The precision of products and sums, the default dtype, the number of threads and whether algorithms are "
        "deterministic hold for the whole process. A model that sets them in its forward changes everyone else's "
        "numbers. Use the context managers that put them back, or leave them to the caller."
    ),
    catches=("reduced precision turned on for the process",),
    cases=lambda subject: batch_cases(subject),
    examples=2,
)
def settings_kept(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    # In float32, because a call in float64 is made under a default dtype of float64.
    model = subject.model(case.setup(path, dtype="float32"))
    threads = machine.threads(torch.get_num_threads())
    with arithmetic(), threads, default_dtype(torch.float32), changes() as put_back:
        before = _process_settings()
        subject.forward(model, inputs)
        after = _process_settings()
    changed = [f"{name} to {after[name]}" for name in before if after[name] != before[name]]
    changed += put_back  # as soon as the call had ended
    if changed:
        raise Violation(f"a call has set {', '.join(changed)} for the process")


def _process_settings() -> dict[str, str]:
    return settings() | {
        "default dtype": str(torch.get_default_dtype()),
        "threads": str(torch.get_num_threads()),
        "gradients": str(torch.is_grad_enabled()),
    }


# Compiled -------------------------------------------------------------------------------------------------

COMPILED_IN: tuple[DType, ...] = ("float32", "bfloat16")


def demand_same_compiled(subject: Subject, case: TwiceCase, path: str, back_end: str) -> None:
    """Demand that `torch.compile` changes nothing beyond rounding.

    Raises:
        Skip: it cannot be compiled.
    """
    inputs = batch_inputs(subject, case)
    budget = 2 * allowance(subject, case)
    model = subject.model(case.setup(path, dtype=case.dtype))
    expected = subject.forward(model, inputs).logits
    with machine.fresh_compiler(), machine.compilable():
        compiled: nn.Module = torch.compile(model, backend=back_end, dynamic=False)  # type: ignore[assignment]
        actual = subject.forward(compiled, inputs).logits
    demand_alike(
        actual,
        expected,
        rows=real_rows(inputs),
        case=case,
        budget=budget,
        what="the logits compiled and not",
    )


@claim(
    slug="devices.captured",
    clause="A captured graph gives the same logits.",
    meaning=(
        "torch.compile reads the model's code once and runs the operations that it recorded; here without "
        "generating machine code, so that it needs no compiler. Look for branches on "
        "torch.compiler.is_compiling(), for values of the first call that became constants (sizes, positions, an "
        ".item()), and for changes in place that the recording does not see."
    ),
    catches=("mask dropped when compiled", "value of the first call kept as a constant"),
    needs=("weights",),
    cases=lambda subject: twice_cases(subject, COMPILED_IN),
    examples=1,
    dtypes=COMPILED_IN,
    costly=True,
)
def captured(subject: Subject, case: TwiceCase, path: str) -> None:
    demand_same_compiled(subject, case, path, "aot_eager")


@claim(
    slug="devices.compiled",
    clause="Compiled code gives the same logits.",
    meaning=(
        "The whole of torch.compile, which fuses operations into machine code: what devices.captured demands, and "
        "that no fusion loses precision beyond what the dtype's own rounding allows. If only this one fails, the "
        "compiler or an intermediate that overflows is to blame: look for float16 or bfloat16 intermediates that "
        "rely on being rounded. It needs a C++ compiler on a CPU, Triton on a GPU."
    ),
    catches=("mask dropped when compiled", "wrong code from a compiler"),
    needs=("weights",),
    cases=lambda subject: twice_cases(subject, COMPILED_IN),
    examples=1,
    dtypes=COMPILED_IN,
    costly=True,
)
def compiled(subject: Subject, case: TwiceCase, path: str) -> None:
    lack = machine.compiler_lack()
    if lack is not None:
        raise Skip(f"no working compiler: {lack}")
    demand_same_compiled(subject, case, path, "inductor")
