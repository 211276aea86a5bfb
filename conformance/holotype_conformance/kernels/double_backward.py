"""A kernel that is differentiated twice, as penalties on gradients and second-order methods do.

What is asked for is the gradient of the product of its gradients with a direction. A kernel may refuse that by raising;
silence is what harms: a backward pass that computes from detached tensors gives zeros or a part of the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.cases import Problem, as_array
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.second_derivatives import Along, Curved, curvature
from holotype_conformance.kernels.subject import KernelSubject, checked, copied
from holotype_conformance.kernels.tolerance import sighted

NAMES = ("q", "k", "v", "upstream")
# By name; None where autograd knows of no dependence.
Found = Mapping[str, Tensor | None]
Gradients = Callable[[Call, Tensor], tuple[Tensor | None, ...]]


@dataclass(frozen=True, kw_only=True)
class Bent:
    """The input of a second derivative: a problem and a direction.

    Attributes:
        problem: no gradient arrives at its queries that see no key.
        along: three tensors, shaped as q, k and v.
        rows: the queries that see a key; the results of others may be anything.
    """

    problem: Problem
    along: tuple[Tensor, ...]
    rows: Tensor

    def expected(self) -> tuple[Curved, Curved]:
        """By the formula, and the unit of rounding."""
        call = self.problem.call
        q, k, v, upstream = (as_array(x) for x in (call.q, call.k, call.v, self.problem.upstream))
        dq, dk, dv = (as_array(x) for x in self.along)
        return curvature(
            q,
            k,
            v,
            upstream,
            Along(q=dq, k=dk, v=dv),
            visible=self.problem.visible,
            scale=q.shape[-1] ** -0.5 if call.scale is None else call.scale,
        )

    def exact(self) -> Bent:
        """The same in float64."""
        call = self.problem.call.with_tensors(lambda x: x.double() if x.is_floating_point() else x)
        problem = replace(self.problem, call=call, upstream=self.problem.upstream.double())
        return replace(self, problem=problem, along=tuple(x.double() for x in self.along))

    def filled(self, x: Tensor | None, name: str) -> Tensor:
        """A second derivative: zeros where autograd knows of no dependence, and for queries that see no key."""
        like = self.problem.upstream if name == "upstream" else getattr(self.problem.call, name)
        x = torch.zeros_like(like) if x is None else x
        return x.masked_fill(~self.rows, 0.0) if name == "upstream" else x

    def of_kernel(self, subject: KernelSubject) -> Found:
        """The kernel's second derivatives.

        Raises:
            Violation: it refuses, or is wrong before it comes to that.
        """
        with torch.enable_grad(), subject.guard("differentiated twice it", self.problem.call):
            return self._of(lambda call: checked(subject.raw(call), call))

    def of_plain(self) -> Found:
        """The plain implementation's, in the dtype of the problem."""
        return self._of(lambda call: plain(self.problem.changed(q=call.q, k=call.k, v=call.v)))

    def _of(self, attention: Callable[[Call], Tensor]) -> Found:
        def gradients(call: Call, upstream: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(
                attention(call),
                (call.q, call.k, call.v),
                upstream,
                create_graph=True,
                allow_unused=True,
            )

        return self.of_gradients(gradients)

    def of_gradients(self, gradients: Gradients) -> Found:
        """The second derivatives, from a function that gives the first, in the graph, of a call and an upstream one.

        They are collected by `backward`: a request for those by some inputs alone would pass by nodes that are there
        to raise, as `once_differentiable` makes them.
        """
        leaves = self.problem.call.with_tensors(copied)
        inputs = (leaves.q, leaves.k, leaves.v, self.problem.upstream.clone())
        for leaf in inputs:
            leaf.requires_grad_()
        with torch.enable_grad():
            first = gradients(leaves, inputs[3])
            pairs = zip(first, self.along, strict=True)
            total = torch.stack([(x * d).sum() for x, d in pairs if x is not None]).sum()
            if total.requires_grad:
                total.backward()  # type: ignore[no-untyped-call]
        return dict(zip(NAMES, (leaf.grad for leaf in inputs), strict=True))


def bent(problem: Problem, *, seed: Any) -> Bent:
    """A problem with a direction of normal numbers."""
    rng = np.random.default_rng(seed)
    call, rows = problem.call, sighted(problem)
    along = tuple(
        torch.from_numpy(rng.standard_normal(x.shape)).to(x) for x in (call.q, call.k, call.v)
    )
    upstream = problem.upstream.masked_fill(~rows, 0.0)
    return Bent(
        problem=replace(problem, upstream=upstream),
        along=along,
        rows=rows,
    )
