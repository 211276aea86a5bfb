"""The subject of a run: one kernel, called under guard.

Whatever its code does — raise, exit, return the wrong shape, dtype, device or NaN — becomes a `Violation` of the
property that was being checked. It is always given copies, so that one which writes into them harms no one else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holotype_conformance.judge import subject as judged
from holotype_conformance.judge.guard import CandidateUnusable, candidate_code
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import REFUSES, DType
from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.candidate import Call, KernelCandidate, KernelCapability
from holotype_conformance.kernels.capabilities import (
    ATTEMPTS,
    LARGER,
    UNTRIED,
    WORDS,
    Attempt,
)
from holotype_conformance.kernels.cases import (
    DTYPES,
    AttentionCase,
    Problem,
    problem,
)
from holotype_conformance.kernels.fitting import fitted
from holotype_conformance.kernels.returned import checked as checked
from holotype_conformance.kernels.returned import checked_gradient
from holotype_conformance.kernels.returned import copied as copied
from holotype_conformance.torch_tools.float64 import Float64Throughout, default_dtype
from holotype_conformance.torch_tools.plain_tensor import plain_gradient


@dataclass(frozen=True, kw_only=True)
class KernelContract:
    """The counterpart of a model's spec: the promise that every kernel is held to."""

    name: str = "attention"


@dataclass(frozen=True, kw_only=True)
class Returned:
    """A kernel's result and its gradients by q, k and v."""

    output: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


PLAINEST = AttentionCase(queries=16, keys=16, heads=2, kv_heads=2, head_dim=16, dtype="float32")


class KernelSubject(judged.Subject):
    """One kernel.

    Args:
        kernel: what is under test.
        seed: shifts every number that is drawn.
        device: where tensors live.
        dtypes: those that were asked for; empty for all.
    """

    what = "kernel"

    def __init__(
        self,
        kernel: KernelCandidate,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtypes: Collection[DType] = (),
    ) -> None:
        self.kernel = kernel
        self.seed = seed
        self.device = torch.device(device)
        self.asked = tuple(dtype for dtype in DTYPES if dtype in (dtypes or DTYPES))
        self.spec = KernelContract()
        self.by_grad = False  # whether its gradients come by `torch.autograd.grad` alone
        self._elsewhere: dict[torch.device, KernelSubject] = {}

    def on(self, device: torch.device) -> KernelSubject:
        """The same kernel with the same numbers on another device; itself on its own."""
        if device == self.device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = KernelSubject(
                self.kernel, seed=self.seed, device=str(device), dtypes=self.asked
            )
        return self._elsewhere[device]

    # Problems ---------------------------------------------------------------------------------------------

    def fitted(self, case: AttentionCase) -> AttentionCase:
        """The nearest case that the kernel takes, by what it declares."""
        return fitted(case, self.kernel)

    def problem(self, case: AttentionCase, **options: Any) -> Problem:
        """The problem of a case, with this run's seed and device, with what the kernel must always be passed."""
        found = problem(case, seed=self.seed, device=str(self.device), **options)
        if not self.kernel.required:
            return found
        return self.told(found, found.call.mask, found.visible)

    def told(
        self, problem: Problem, mask: Tensor | None, visible: NDArray[np.bool_] | None
    ) -> Problem:
        """The problem with another mask, which shows what is `visible`, and what the kernel must always be passed."""
        call, required = replace(problem.call, mask=mask), self.kernel.required
        queries, keys = call.q.shape[2], call.k.shape[2]
        if "causal" in required:
            call, below = replace(call, causal=True), oracle.causal(queries, keys)
            if call.prefix is None:  # which shows more
                visible = below[None, None] if visible is None else visible & below
        if "window" in required and call.window is None:
            call = replace(call, window=queries + keys + 1)  # nothing lies that far away
        return replace(problem, call=call, visible=visible)

    def plainest(self, **changes: Any) -> Problem:
        """A problem that any kernel can be expected to take, in a dtype that it takes."""
        if "dtype" not in changes:
            changes["dtype"] = self.dtype
        return self.problem(self.fitted(msgspec.structs.replace(PLAINEST, **changes)))

    # Calling ----------------------------------------------------------------------------------------------

    @contextmanager
    def guard(self, what: str, call: Call, *, lifted: bool = True) -> Iterator[None]:
        """A guard around the kernel's code: whatever it raises is a violation, and float64 is float64 throughout."""
        lift = lifted and self.kernel.lifted and call.q.dtype is torch.float64
        throughout = Float64Throughout() if lift else nullcontext()
        made = call.q.dtype if lift else torch.float32  # without a dtype
        with default_dtype(made), throughout, candidate_code(what):
            yield

    def raw(self, call: Call, *, lifted: bool = True) -> Any:
        """Whatever the kernel returns, given these very tensors; only its exceptions are caught."""
        with self.guard("attention", call, lifted=lifted):
            return self.kernel.call(call)

    def run_once(self, call: Call) -> None:
        """Call the kernel without gradients, whatever it returns."""
        with torch.no_grad():
            self.raw(call.with_tensors(copied))

    def output(self, call: Call, *, rows: Tensor | None = None, finite: bool = True) -> Tensor:
        """The result without gradients, of the promised shape, dtype and device, and finite.

        `rows` (batch or 1, heads or 1, queries, 1) are the queries that matter; the results of others become zero.
        """
        with torch.no_grad():
            result = self.raw(call.with_tensors(copied))
        result = checked(result, call, finite=False)
        # In memory of its own: a kernel that answers in one buffer would agree with its next answer.
        result = result.clone() if rows is None else result.masked_fill(~rows, 0.0)
        return checked(result, call, finite=finite)

    def differentiated(self, problem: Problem) -> Returned:
        """The result, and its gradients for the problem's upstream gradient, all of them finite."""
        output, found = self.gradients(problem)
        return Returned(output=output, **found)

    def gradients(self, problem: Problem, by: str = "qkv") -> tuple[Tensor, dict[str, Tensor]]:
        """The result, and its gradients, all of them finite, by some of q, k and v; the others require none."""
        call, inputs = self.leaves(problem, by)
        with torch.enable_grad():
            output = checked(self.raw(call), problem.call)
            gradients = self.backwards(call, output, copied(problem.upstream), inputs)
        found = {
            name: checked_gradient(name, gradient)
            for name, gradient in zip(by, gradients, strict=True)
        }
        return output.detach(), found

    def leaves(self, problem: Problem, by: str) -> tuple[Call, list[Tensor]]:
        """The call in tensors of their own, and those of them that require a gradient."""
        call = problem.call.with_tensors(copied)
        return call, [getattr(call, name).requires_grad_() for name in by]

    def backwards(
        self,
        call: Call,
        output: Tensor,
        upstream: Tensor,
        inputs: Sequence[Tensor],
        *,
        retain: bool = False,
    ) -> list[Tensor | None]:
        """The gradients by leaves, as training takes them: by a backward pass that gathers them there.

        `torch.autograd.grad`, and a backward pass with `inputs`, are refused by reentrant checkpoints. Only a kernel
        that refuses the backward pass and not these is judged by them.
        """
        if self.by_grad:
            with self.guard("the backward pass of attention", call):
                return list(
                    torch.autograd.grad(
                        output, inputs, upstream, retain_graph=retain, allow_unused=True
                    )
                )
        for leaf in inputs:
            leaf.grad = None
        with self.guard("the backward pass of attention", call):
            output.backward(upstream, retain_graph=retain)  # type: ignore[no-untyped-call]
        return [plain_gradient(leaf) for leaf in inputs]

    # What it can do ---------------------------------------------------------------------------------------

    @cached_property
    def capabilities(self) -> dict[KernelCapability, str | None]:
        """None for what the kernel can do, else the reason why it cannot."""
        found: dict[KernelCapability, str | None] = dict(self._refused_dtypes.items())
        for name, attempt in ATTEMPTS.items():
            found[name] = self._lack(name, attempt)
        return found | {name: self.kernel.lacks(name) for name in UNTRIED}

    @cached_property
    def _refused_dtypes(self) -> dict[DType, str | None]:
        def attempt(subject: KernelSubject, **changes: Any) -> None:
            subject.run_once(subject.plainest(**changes).call)

        return {
            dtype: self._lack(dtype, partial(attempt, dtype=dtype))
            if dtype in self.asked
            else "--dtype leaves it out"
            for dtype in DTYPES
        }

    def _lack(self, name: KernelCapability, attempt: Attempt) -> str | None:
        reason = self.kernel.lacks(name)
        if reason is not None:
            return reason
        refusals = []
        for changes in ({}, *LARGER):
            try:
                attempt(self, **changes)
            except Violation as refusal:
                refusals.append(refusal.summary)
            else:
                return None  # what it takes of some sizes only, it refuses at others, unless it declares these
        return f"{REFUSES}{WORDS.get(name, name)}: {refusals[0]}"

    def has(self, capability: KernelCapability) -> bool:
        """Whether the kernel can do this."""
        return self.capabilities[capability] is None

    @cached_property
    def dtypes(self) -> tuple[DType, ...]:
        """Those that it takes."""
        return tuple(dtype for dtype, reason in self._refused_dtypes.items() if reason is None)

    @property
    def dtype(self) -> DType:
        """The most precise that it takes."""
        return self.dtypes[0]

    def smoke(self) -> None:
        """Run the kernel once in each dtype.

        Raises:
            CandidateUnusable: it takes none.
        """
        if not self.dtypes:
            raise CandidateUnusable(f"in no dtype: {self._refused_dtypes[self.asked[0]]}")
