"""Kernels that are right on one machine, thread or compiler, and not on the next."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import RIGHT, codes


@codes(
    "devices.tensor-on-cpu",
    "a tensor is made on the CPU, whatever device the inputs are on",
    "On the CPU nothing shows; on any other device the kernel raises, or copies in every call."
    " Give torch.arange and torch.ones the device of the inputs.",
)
def tensor_on_cpu(call: Call) -> Tensor:
    ones = torch.ones(call.q.shape[-1], dtype=call.q.dtype)
    return RIGHT(replace(call, q=call.q * ones))


@codes(
    "threads.rest-dropped",
    "rows that do not divide evenly among the threads give zeros",
    "Each thread takes rows // threads of them, and the rest is nobody's. With one thread, or a"
    " lucky number of rows, all is right. Let the last thread take what is left.",
)
def rest_dropped(call: Call) -> Tensor:
    found = RIGHT(call)
    rows, threads = found.shape[:3].numel(), torch.get_num_threads()
    served = torch.arange(rows, device=found.device) < rows // threads * threads
    return found * served.view(*found.shape[:3], 1)


@codes(
    "backends.fallback-softer",
    "scores are nine tenths of what they should be where the fused back end is turned off",
    "A kernel that falls back to another code where a back end is missing is two kernels, of"
    " which one is tested. Whoever turns the fused one off, to debug or for a mask that it does"
    " not take, gets the other's results.",
    reports=("mlc-ai/mlc-llm#3426",),
)
def fallback_softer(call: Call) -> Tensor:
    return _softer(call, when=not torch.backends.cuda.flash_sdp_enabled())  # type: ignore[no-untyped-call]


@codes(
    "compiled.softer",
    "scores are nine tenths of what they should be where the kernel is compiled",
    "A branch on torch.compiler.is_compiling(), or a rewrite by the compiler of what it takes for"
    " attention, has a scale of its own. Compare a compiled call with a plain one on the same"
    " numbers.",
)
def softer(call: Call) -> Tensor:
    return _softer(call, when=torch.compiler.is_compiling())


def _softer(call: Call, *, when: bool) -> Tensor:
    def weighed(scores: Tensor, told: Call) -> Tensor:
        return RIGHT.weighed(scores * 0.9, told)

    return (replace(RIGHT, weighed=weighed) if when else RIGHT)(call)
