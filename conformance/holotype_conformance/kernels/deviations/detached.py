"""Backward passes of which autograd takes a part for a constant: gradients are right, second derivatives are not.

The gradients are written down in operations that autograd differentiates, as kernels compute them which keep the
logarithm of the sum and the output (Dao et al. 2022, algorithm 4), with some of these detached:

    weights = exp(scores - log of the sum)        row sums = Σ upstream · output
    d scores = scale · weights · (upstream vᵀ - row sums)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import reduce
from torch import Tensor

from holotype_conformance.judge.deviation import says
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.backward import Gradients, with_backward
from holotype_conformance.kernels.deviations.deviation import (
    CATALOGUE,
    RIGHT,
    KernelDeviation,
    deviates,
)
from holotype_conformance.kernels.deviations.formula import scale_of, wide


@dataclass(frozen=True, kw_only=True)
class DetachedDeviation(KernelDeviation):
    """A backward pass that takes `parts` for constants."""

    parts: tuple[str, ...]

    def attention(self, call: Call) -> Tensor:
        return with_backward(call, self.gradients)

    def gradients(self, call: Call, upstream: Tensor) -> Gradients:
        """By q, k and v, with `parts` detached."""
        group = call.q.shape[1] // max(call.k.shape[1], 1)
        given = (call.q, call.k, call.v)
        q, k, v = (x.detach() for x in given) if "inputs" in self.parts else given
        q, k, v = (wide(x) for x in (q, RIGHT.shared(k, group), RIGHT.shared(v, group)))
        heads = replace(call, q=q, k=k, v=v)
        kept = replace(RIGHT, weighed=lambda scores, told: scores)
        scores = kept.parts(heads)[0]
        blind = scores.isneginf().all(-1, keepdim=True)
        scores = scores.masked_fill(blind, 0.0)
        log_sum = scores.logsumexp(-1, keepdim=True)
        weights = (scores - (log_sum.detach() if "log-sum" in self.parts else log_sum)).exp()
        weights = weights.masked_fill(blind, 0.0)
        output = scores.softmax(-1).masked_fill(blind, 0.0) @ v
        output = output.detach() if "output" in self.parts else output
        upstream = wide(upstream)
        row_sums = (upstream * output).sum(-1, keepdim=True)
        by_score = scale_of(call) * weights * (upstream @ v.mT - row_sums)
        by_keys, by_values = (
            reduce(x, "b (h group) j d -> b h j d", "sum", group=group)
            for x in (by_score.mT @ q, weights.mT @ upstream)
        )
        return Gradients(q=by_score @ k, k=by_keys, v=by_values)


# What is detached, how it is called, and what follows.
for _name, _parts, _words, _meaning in (
    (
        "inputs",
        ("inputs",),
        "q, k and v are",
        "The backward pass reads tensors that were saved without their history, by ctx.q ="
        " q.detach() or from a C extension: second derivatives lack all that goes through them."
        " Gradient penalties and meta-learning get a part of the sum, silently. Decorate it with"
        " once_differentiable, so that it raises.",
    ),
    (
        "log-sum",
        ("log-sum",),
        "the logarithm of the sum that the forward pass keeps is",
        "The forward pass returns L without a gradient, and weights that are computed from it"
        " know only half of what they depend on: they do not sum to one any more when"
        " differentiated. Compute L again where gradients of gradients are asked for, or refuse.",
    ),
    (
        "output",
        ("output",),
        "the output that the forward pass keeps is",
        "The row sums are taken of a saved output that has no history. Second derivatives by what"
        " made the output are lost. Save it by ctx.save_for_backward, which keeps its history, or"
        " refuse.",
    ),
    (
        "log-sum-and-output",
        ("log-sum", "output"),
        "the output and the logarithm of the sum that the forward pass keeps are",
        "Both of what the forward pass keeps are constants to autograd, which is how a kernel's"
        " buffers come to it. Either give the pair a backward pass of its own, or decorate this"
        " one with once_differentiable.",
    ),
):
    CATALOGUE.register(
        DetachedDeviation(
            slug=f"detached.{_name}",
            title=says(f"{_words} constant in the backward pass"),
            meaning=_meaning,
            parts=_parts,
        )
    )


class _Opaque(torch.autograd.Function):
    """The softmax with a backward pass that autograd does not see through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, call: Call) -> Tensor:
        weights = RIGHT.weighed(scores, call).detach()
        ctx.weights = weights
        return weights.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (arrived,) = upstream
        return ctx.weights * (arrived - (ctx.weights * arrived).sum(-1, keepdim=True)), None


def _opaque(scores: Tensor, call: Call) -> Tensor:
    found: Tensor = _Opaque.apply(scores, call)  # type: ignore[no-untyped-call]
    return found


deviates(
    "detached.weights",
    "the weights are constant in the backward pass",
    "A softmax with a backward pass of its own keeps its weights on ctx instead of by"
    " save_for_backward. Its gradient is right, and that of the gradient lacks the softmax. torch"
    " says nothing of it.",
    weighed=_opaque,
    named=False,
)
