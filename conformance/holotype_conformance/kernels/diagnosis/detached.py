"""Which part of a backward pass autograd takes for a constant, where a kernel's second derivatives are wrong.

The gradients are written down in operations that autograd differentiates, as kernels compute them which keep the
logarithm of the sum and the output (Dao et al. 2022, algorithm 4), with one of these detached:

    weights = exp(scores - log of the sum)        row sums = Σ upstream · output
    d scores = scale · weights · (upstream vᵀ - row sums)
"""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.double_backward import Bent
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import error, explained

# What is detached, and how it is called.
DETACHED = {
    "inputs": (("inputs",), "q, k and v are"),
    "log-sum": (("log-sum",), "the logarithm of the sum that the forward pass keeps is"),
    "output": (("output",), "the output that the forward pass keeps is"),
    "log-sum-and-output": (
        ("log-sum", "output"),
        "the output and the logarithm of the sum that the forward pass keeps are",
    ),
}


def detached(subject: KernelSubject, asked: list[Bent]) -> list[Diagnosis]:
    """What the backward pass takes for constant, if that alone explains all second derivatives asked for."""
    found = []
    for name, (parts, words) in DETACHED.items():
        try:
            residual = max(_residual(subject, each, parts) for each in asked)
        except Violation:
            continue
        if residual <= explained(asked[0].problem.call.q.dtype):
            title = f"agrees with the formula if {words} constant in the backward pass"
            found.append(Diagnosis(deviation=f"detached.{name}", title=title, residual=residual))
    return found


def _residual(subject: KernelSubject, asked: Bent, parts: tuple[str, ...]) -> float:
    """How far the kernel is from such a backward pass, which is computed in float64."""
    exact = asked.exact()
    expected = exact.of_gradients(lambda call, upstream: _gradients(exact, call, upstream, parts))
    _, sizes = asked.expected()
    found = asked.of_kernel(subject)
    return max(
        error(
            asked.filled(found[name], name),
            exact.filled(expected[name], name).cpu().numpy(),
            getattr(sizes, name),
        )
        for name in found
    )


def _gradients(
    asked: Bent, call: Call, upstream: Tensor, parts: tuple[str, ...]
) -> tuple[Tensor, ...]:
    """By q, k and v, with `parts` detached."""
    group = call.q.shape[1] // call.k.shape[1]
    given = (call.q, call.k, call.v)
    q, k, v = (x.detach() for x in given) if "inputs" in parts else given
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scale = q.shape[-1] ** -0.5 if call.scale is None else call.scale
    scores = scale * q @ k.mT
    if asked.problem.visible is not None:
        visible = torch.from_numpy(asked.problem.visible).to(q.device)
        scores = scores.masked_fill(~visible, -torch.inf)
    log_sum = scores.logsumexp(-1, keepdim=True)
    weights = (scores - (log_sum.detach() if "log-sum" in parts else log_sum)).exp()
    output = scores.softmax(-1) @ v
    kept = output.detach() if "output" in parts else output
    row_sums = (upstream * kept).sum(-1, keepdim=True)
    by_score = scale * weights * (upstream @ v.mT - row_sums)
    by_head = (by_score @ k, by_score.mT @ q, weights.mT @ upstream)
    return by_head[0], *(
        reduce(x, "b (h group) j d -> b h j d", "sum", group=group) for x in by_head[1:]
    )
