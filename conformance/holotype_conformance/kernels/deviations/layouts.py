"""Kernels that read their tensors in another order of the axes than the one in which they are given them."""

from __future__ import annotations

from dataclasses import replace

from einops import rearrange
from torch import Tensor

from holotype_conformance.kernels.candidate import LAYOUT, Call
from holotype_conformance.kernels.deviations.deviation import RIGHT, codes

LENGTH_FIRST = "batch length heads head_dim"


def said(layout: str) -> str:
    """In which order of the axes the results of such a kernel are right, in words."""
    return f'its layout is "{layout}": a KernelCandidate says so'


@codes(
    "layout",
    said(LENGTH_FIRST),
    "Libraries differ: flash-attention and JAX put the length before the heads, torch puts it"
    " behind. A kernel that is given the one and reads the other attends over heads instead of"
    " tokens, and raises where there are fewer keys than queries. Give the adapter the layout that"
    " the kernel has, which is checked then.",
    reports=("PrimeIntellect-ai/prime-rl#2681",),
)
def length_first(call: Call) -> Tensor:
    q, k, v = (_turned(x) for x in (call.q, call.k, call.v))
    if q.shape[1] % k.shape[1] or call.mask is not None or call.causal:
        raise RuntimeError(f"shapes do not fit: q {tuple(call.q.shape)}, k {tuple(call.k.shape)}")
    return _turned(RIGHT(replace(call, q=q, k=k, v=v)))


def _turned(x: Tensor) -> Tensor:
    """The same memory, read with length and heads exchanged."""
    return rearrange(x, f"{LENGTH_FIRST} -> {LAYOUT}")
