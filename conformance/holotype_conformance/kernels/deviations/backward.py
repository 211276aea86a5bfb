"""The backward pass in steps, of which a deviation replaces one, after a forward pass that is right.

A kernel that keeps no weights computes them again from the logarithm L of each query's sum of powers, weights =
exp(scores - L), and has from the output what the softmax takes off, mean = Σ upstream · output (Dao et al. 2022,
algorithm 4). A mistake is one part of this that is another: the scores it is taken of, the base of L, the mean, the
scale, which heads are summed, or which blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import RIGHT, KernelDeviation
from holotype_conformance.kernels.deviations.formula import Formula, scale_of, wide

# To which key-value head the gradients of a head go, where that is not head // (heads / kv_heads).
DIVISORS: dict[str, Callable[[int, int], int]] = {
    "other-divisor": lambda head, kv_heads: head // kv_heads,
    "tiled": lambda head, kv_heads: head % kv_heads,
}


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Of ``sum(output * upstream)``, each shaped as what it belongs to."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True, kw_only=True)
class Way:
    """The tensors that a backward pass starts from; keys and values are repeated for all heads.

    Attributes:
        call: what the kernel was to compute from.
        upstream: the gradient that arrives.
        weights: (batch, heads, queries, keys).
        mean: (batch, heads, queries, 1), what the softmax takes off.
        by_query, by_key: what gradients by q and k are multiplied by, the scale.
        heads: how the gradients of a group of heads become one.
    """

    call: Call
    upstream: Tensor
    weights: Tensor
    mean: Tensor
    by_query: float
    by_key: float
    heads: str = "sum"

    @property
    def group(self) -> int:
        """The number of heads that share their keys and values."""
        return int(self.call.q.shape[1] // max(self.call.k.shape[1], 1))

    def gradients(self) -> Gradients:
        """The gradients that it leads to."""
        weights = self.weights
        by_weight = self.upstream @ self.repeated(self.call.v).mT
        by_score = weights * (by_weight - self.mean)
        return Gradients(
            q=self.by_query * by_score @ self.repeated(self.call.k),
            k=self.shared(self.by_key * by_score.mT @ self.call.q),
            v=self.shared(weights.mT @ self.upstream),
        )

    def repeated(self, x: Tensor) -> Tensor:
        """Keys or values for all heads."""
        return RIGHT.shared(x, self.group)

    def shared(self, x: Tensor) -> Tensor:
        """Gradients by the keys or values of each group of heads."""
        if self.heads in DIVISORS:
            return self._misplaced(x)
        if self.heads in ("sum", "mean"):
            return reduce(x, "b (h group) j d -> b h j d", self.heads, group=self.group)
        found = rearrange(x, "b (h group) j d -> b h group j d", group=self.group)
        return found[:, :, {"first": 0, "last": -1}[self.heads]]

    def _misplaced(self, x: Tensor) -> Tensor:
        """Summed up, but each head for the keys and values of another group; beyond the last group it is lost."""
        heads, kv_heads = x.shape[1], self.call.k.shape[1]
        found = [torch.zeros_like(x[:, 0]) for _ in range(kv_heads)]
        for head in range(heads):
            group = DIVISORS[self.heads](head, kv_heads)
            if group < kv_heads:
                found[group] = found[group] + x[:, head]
        return torch.stack(found, 1)


def way(call: Call, upstream: Tensor) -> Way:
    """The right one, in the dtype of sums."""
    upstream = wide(upstream)
    weights, values = RIGHT.parts(_wide(call))
    return Way(
        call=_wide(call),
        upstream=upstream,
        weights=weights,
        mean=(upstream * (weights @ values)).sum(-1, keepdim=True),
        by_query=scale_of(call),
        by_key=scale_of(call),
    )


def _wide(call: Call) -> Call:
    return call.with_tensors(lambda x: wide(x) if x.is_floating_point() else x)


def again(right: Way, formula: Formula, power: float = 1.0) -> Tensor:
    """Weights from the scores of another formula and the logarithm of the right sum, times `power`."""
    scores, other = (_scores(each, right.call) for each in (RIGHT, formula))
    log_sum = scores.logsumexp(-1, keepdim=True)
    log_sum = log_sum.masked_fill(log_sum.isneginf(), torch.inf)
    return (other - power * log_sum).exp()


def _scores(formula: Formula, call: Call) -> Tensor:
    """Those that a formula takes the softmax of."""
    kept = replace(formula, weighed=lambda scores, told: scores)
    return kept.parts(call)[0]


@dataclass(frozen=True, kw_only=True)
class BackwardDeviation(KernelDeviation):
    """A step of the backward pass is another.

    Attributes:
        made: the gradients, from the right way to them.
        where: whether a call has what is changed; elsewhere the kernel is right.
    """

    made: Callable[[Way], Gradients]
    where: Callable[[Call], bool]

    def attention(self, call: Call) -> Tensor:
        return with_backward(call, self.gradients)

    def gradients(self, call: Call, upstream: Tensor) -> Gradients:
        """Those of a kernel with this mistake."""
        right = way(call, upstream)
        return self.made(right) if self.where(call) else right.gradients()


class _Attend(torch.autograd.Function):
    """The formula with a backward pass of its own, which can be differentiated in turn."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, call: Call, gradients: Any) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.call, ctx.gradients = call, gradients
        return RIGHT(replace(call, q=q, k=k, v=v))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        found = ctx.gradients(replace(ctx.call, q=q, k=k, v=v), upstream[0])
        return found.q.to(q.dtype), found.k.to(k.dtype), found.v.to(v.dtype), None, None


def with_backward(call: Call, gradients: Callable[[Call, Tensor], Gradients]) -> Tensor:
    """The right result, whose gradients are what a function of the call and the upstream gradient says."""
    found: Tensor = _Attend.apply(call.q, call.k, call.v, call, gradients)  # type: ignore[no-untyped-call]
    return found
