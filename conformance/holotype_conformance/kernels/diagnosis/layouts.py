"""Whether a kernel reads its tensors in another order of the axes than the one in which it is given them.

Libraries differ: (batch, length, heads, head_dim) is as common as the order here. Where heads and length trade places
every result is wrong, and each property sees another symptom.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from einops import rearrange
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.candidate import LAYOUT, Call
from holotype_conformance.kernels.cases import AttentionCase, as_array
from holotype_conformance.kernels.deviations.layouts import LENGTH_FIRST, said
from holotype_conformance.kernels.oracle import Array
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import error, rounding

# In the words of einops; a kernel that tells its own may have got it wrong.
LAYOUTS = (LAYOUT, LENGTH_FIRST, "length batch heads head_dim")
# With as many queries as keys and as many heads of both every order is possible. No two axes are of one size, so that
# none is right by chance.
CASE = AttentionCase(queries=5, keys=5, batch=2, heads=3, kv_heads=3, head_dim=7)


@lru_cache(maxsize=8)  # every failure of a kernel asks
def misread(subject: KernelSubject) -> Diagnosis | None:
    """The order of the axes in which the kernel gives the formula, if it is another than the one that it is given."""
    own = subject.kernel.layout
    if sorted(own.split()) != sorted(LAYOUT.split()):
        return None  # some of its axes are one: then the order is no mere slip
    case = subject.fitted(msgspec.structs.replace(CASE, dtype=subject.dtype))
    call = subject.problem(case).call
    try:
        output = subject.output(call, finite=False)
    except Violation:
        return None
    for layout in LAYOUTS:
        residual = _residual(call, output, own, layout)
        if layout != own and residual <= rounding(output.dtype):
            title = f"agrees with the formula if {said(layout)}"
            return Diagnosis(deviation="layout", title=title, residual=residual)
    return None


def _residual(call: Call, output: Tensor, own: str, layout: str) -> float:
    """The distance of the result from that of a kernel which takes its arguments, in the order `own`, for `layout`."""
    q, k, v = (_read(as_array(x), own, layout) for x in (call.q, call.k, call.v))
    found = oracle.attention(q, k, v)
    return error(output, *(_read(x, layout, own) for x in (found.output, found.output_size)))


def _read(x: Array, given: str, taken: str) -> Array:
    """The memory of one order of the axes, taken for the other."""
    arranged = rearrange(x, f"{LAYOUT} -> {given}")
    return rearrange(arranged, f"{taken} -> {LAYOUT}")
