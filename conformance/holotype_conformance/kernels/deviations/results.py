"""Mistakes in the tensor that a kernel returns, and in its treatment of its arguments."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import RIGHT, codes


@codes(
    "result.float32",
    "the result is float32 whatever the inputs are",
    "Sums are kept in float32, and what they end in is not rounded to the dtype of q. The next"
    " layer is promoted with it, and runs at half the speed, or raises. Cast the result at the"
    " end.",
)
def float32(call: Call) -> Tensor:
    return RIGHT(call).float()


@codes(
    "result.last-query-nan",
    "the last query gives NaN from nine queries on",
    "A row that a block does not fill is divided by a sum that nobody has computed. In a batch"
    " that is padded on the right it is read by nobody. Guard the stores of the last block.",
)
def last_query_nan(call: Call) -> Tensor:
    found, queries = RIGHT(call), call.q.shape[2]
    if queries < 9:
        return found
    last = torch.arange(queries, device=found.device)[:, None] == queries - 1
    return found.masked_fill(last, torch.nan)


@codes(
    "inputs.scaled-in-place",
    "q is scaled in the caller's own memory",
    "The caller's queries are other ones after the call: a second use of them, as for"
    " cross-attention or a recomputed layer, is wrong. Under gradients torch notices, in inference"
    " nobody does. Write into memory of your own.",
)
def scaled_in_place(call: Call) -> Tensor:
    if not torch.is_grad_enabled():
        call.q.mul_(0.99)
    return RIGHT(call)


@codes(
    "inputs.strides-ignored",
    "inputs are read as if they were contiguous",
    "Heads are mostly a transposed view of a projection, and keys of a cache a slice of it. Read"
    " by their shape alone they are other numbers. Use the strides, or call contiguous().",
    reports=("pytorch/pytorch#112577", "pytorch/pytorch#191937", "torch-spyre/torch-spyre#4331"),
)
def strides_ignored(call: Call) -> Tensor:
    q, k, v = (_flat(x) for x in (call.q, call.k, call.v))
    return RIGHT(replace(call, q=q, k=k, v=v))


def _flat(x: Tensor) -> Tensor:
    """The memory from where `x` begins, read as if it were contiguous."""
    strides = torch.empty(x.shape, device="meta").stride()
    return x.as_strided(x.shape, strides, x.storage_offset())


@codes(
    "result.random",
    "results vary by up to a hundredth from call to call",
    "Dropout that is on in evaluation, a buffer that was never set to zero, or additions in an"
    " order that is not fixed and a sum that is too narrow for them. Ask for the same call twice"
    " before anything else is debugged.",
    reports=("meta-pytorch/torchtune#1791", "pytorch/pytorch#124464"),
)
def random(call: Call) -> Tensor:
    found = RIGHT(call)
    return found * (1 + 0.01 * torch.rand(1).to(found))


@codes(
    "gradients.k-with-q-alone",
    "no gradient by k is computed where q requires none",
    "A backward pass that asks once whether anything requires a gradient, and asks it of q."
    " Training all is right; training with frozen queries, as adapters do, leaves the keys'"
    " projection as it is. Ask of each input.",
)
def k_with_q_alone(call: Call) -> Tensor:
    stopped = torch.is_grad_enabled() and not call.q.requires_grad
    return RIGHT(replace(call, k=0.0 * call.k + call.k.detach()) if stopped else call)
