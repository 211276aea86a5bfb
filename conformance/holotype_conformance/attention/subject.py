"""The subject of a run: one kernel, called under guard.

Whatever its code does — raise, exit, return the wrong shape, dtype, device or NaN — becomes a `Violation` of the
property that was being checked. It is always given copies, so that one which writes into them harms no one else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
import torch
from torch import Tensor

from holotype_conformance.attention.cases import (
    DTYPES,
    AttentionCase,
    Problem,
    problem,
)
from holotype_conformance.attention.kernel import Call, KernelCandidate, KernelCapability
from holotype_conformance.property import Violation
from holotype_conformance.records import DType
from holotype_conformance.subject import CandidateUnusable, candidate_code


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What stands in the place of a model's spec: the promise that every kernel is held to."""

    name: str = "attention"


@dataclass(frozen=True, kw_only=True)
class Returned:
    """A kernel's result and its gradients by q, k and v."""

    output: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


PLAINEST = AttentionCase(queries=16, keys=16, heads=2, kv_heads=2, head_dim=16, dtype="float32")


class KernelSubject:
    """One kernel.

    Args:
        kernel: what is under test.
        seed: shifts every number that is drawn.
        device: where tensors live.
        dtypes: those that were asked for; empty for all.
    """

    diagnosis = "holotype_conformance.attention.diagnosis"

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
        self.spec = Protocol()

    def on(self, device: torch.device) -> KernelSubject:
        """The same kernel with the same numbers on another device; itself on its own."""
        if device == self.device:
            return self
        return KernelSubject(self.kernel, seed=self.seed, device=str(device), dtypes=self.asked)

    def problem(self, case: AttentionCase, **options: Any) -> Problem:
        """The problem of a case, with this run's seed and device."""
        return problem(case, seed=self.seed, device=str(self.device), **options)

    # Calling ----------------------------------------------------------------------------------------------

    def raw(self, call: Call) -> Any:
        """Whatever the kernel returns, given these very tensors; only its exceptions are caught."""
        with candidate_code("attention"):
            return self.kernel.call(call)

    def output(self, call: Call, *, rows: Tensor | None = None, finite: bool = True) -> Tensor:
        """The result without gradients, of the promised shape, dtype and device, and finite.

        `rows` (batch or 1, heads or 1, queries, 1) are the queries that matter; the results of others become zero.
        """
        with torch.no_grad():
            result = self.raw(call.with_tensors(copied))
        result = checked(result, call, finite=False)
        result = result if rows is None else result.masked_fill(~rows, 0.0)
        return checked(result, call, finite=finite)

    def differentiated(self, problem: Problem) -> Returned:
        """The result, and its gradients for the problem's upstream gradient, all of them finite."""
        output, found = self.gradients(problem)
        return Returned(output=output, **found)

    def gradients(self, problem: Problem, by: str = "qkv") -> tuple[Tensor, dict[str, Tensor]]:
        """The result, and its gradients, all of them finite, by some of q, k and v; the others require none."""
        leaves = problem.call.with_tensors(copied)
        inputs = [getattr(leaves, name).requires_grad_() for name in by]
        with torch.enable_grad():
            output = checked(self.raw(leaves), problem.call)
            with candidate_code("the backward pass of attention"):
                gradients = torch.autograd.grad(
                    output, inputs, copied(problem.upstream), allow_unused=True
                )
        found = {
            name: _checked_gradient(name, gradient)
            for name, gradient in zip(by, gradients, strict=True)
        }
        return output.detach(), found

    # What it can do ---------------------------------------------------------------------------------------

    @cached_property
    def capabilities(self) -> dict[KernelCapability, str | None]:
        """None for what the kernel can do, else the reason why it cannot."""
        found: dict[KernelCapability, str | None] = {}
        for dtype, reason in self._refused_dtypes.items():
            found[dtype] = reason
        for name, attempt in _ATTEMPTS.items():
            found[name] = self._lack(name, attempt)
        return found

    @cached_property
    def _refused_dtypes(self) -> dict[DType, str | None]:
        return {
            dtype: self._lack(dtype, _try(dtype=dtype))
            if dtype in self.asked
            else "--dtype leaves it out"
            for dtype in DTYPES
        }

    def _lack(self, name: KernelCapability, attempt: Callable[[KernelSubject], None]) -> str | None:
        reason = self.kernel.lacks(name)
        if reason is not None:
            return reason
        try:
            attempt(self)
        except Violation as refusal:
            return f"it refuses {_WORDS.get(name, name)}: {refusal.summary}"
        return None

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

    def plainest(self, **changes: Any) -> Problem:
        """A problem that any kernel can be expected to take, in a dtype that it takes."""
        if "dtype" not in changes:
            changes["dtype"] = self.dtype
        return self.problem(msgspec.structs.replace(PLAINEST, **changes))

    def smoke(self) -> None:
        """Run the kernel once in each dtype.

        Raises:
            CandidateUnusable: it takes none.
        """
        if not self.dtypes:
            reason = self._refused_dtypes[self.asked[0]]
            raise CandidateUnusable(f"in no dtype: {reason}")


def copied(x: Tensor) -> Tensor:
    """A tensor of one's own with the same contents, and lying in memory in the same way."""
    storage = x.detach().untyped_storage().clone()  # type: ignore[no-untyped-call]
    own = torch.empty(0, dtype=x.dtype, device=x.device)
    return own.set_(storage, x.storage_offset(), x.shape, x.stride())


def checked(result: Any, call: Call, *, finite: bool = True) -> Tensor:
    """The result of a call, if it is what was promised.

    Raises:
        Violation: it is not.
    """
    if not isinstance(result, Tensor):
        raise Violation(
            f"attention returned {type(result).__name__}; expected a tensor: for arrays of another library write a"
            " KernelCandidate that converts them"
        )
    if result.shape != call.q.shape:
        raise Violation(
            f"the result has the shape {tuple(result.shape)}; expected {tuple(call.q.shape)}, as q"
        )
    if result.dtype != call.q.dtype:
        raise Violation(f"the result is {result.dtype}; expected {call.q.dtype}, as q")
    if result.device != call.q.device:
        raise Violation(f"the result is on {result.device}; expected {call.q.device}, as q")
    if finite and not torch.isfinite(result).all():
        batch, head, row, _ = (~torch.isfinite(result)).nonzero()[0].tolist()
        raise Violation(
            f"the result is not finite at query {row} of head {head}, row {batch} of the batch",
            batch=batch,
            head=head,
            query=row,
        )
    return result


def _checked_gradient(name: str, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        raise Violation(f"the result has no gradient by {name}")
    if not torch.isfinite(gradient).all():
        _, head, place, _ = (~torch.isfinite(gradient)).nonzero()[0].tolist()
        raise Violation(
            f"the gradient by {name} is not finite at place {place} of head {head}",
            head=head,
            place=place,
        )
    return gradient


# Trying out what it can do -------------------------------------------------------------------------------------------

_WORDS: dict[KernelCapability, str] = {
    "boolean-mask": "a boolean mask",
    "additive-mask": "an additive mask",
    "band": "a window without causal",
    "prefix": "a prefix",
    "prefix-rows": "a prefix for each row of the batch",
    "documents": "the lengths of documents",
    "documents-rows": "the lengths of documents for each row of the batch",
    "masks-together": "a mask together with causal",
    "grouped-heads": "fewer key-value heads than query heads",
    "gradients": "a backward pass",
}


def _try(**changes: Any) -> Callable[[KernelSubject], None]:
    def attempt(subject: KernelSubject) -> None:
        with torch.no_grad():
            subject.raw(subject.plainest(**changes).call.with_tensors(copied))

    return attempt


def _try_scale(subject: KernelSubject) -> None:
    with torch.no_grad():
        subject.raw(replace(subject.plainest().call, scale=0.3).with_tensors(copied))


def _try_together(subject: KernelSubject) -> None:
    masked = subject.plainest(mask="right-padding", form="boolean", size=9).call
    with torch.no_grad():
        subject.raw(replace(masked, causal=True).with_tensors(copied))


def _try_backward(subject: KernelSubject) -> None:
    leaves = subject.plainest().call.with_tensors(copied)
    for leaf in (leaves.q, leaves.k, leaves.v):
        leaf.requires_grad_()
    with torch.enable_grad():
        result = subject.raw(leaves)
        if not isinstance(result, Tensor) or not result.requires_grad:
            raise Violation("its result is not connected to its inputs")
        with candidate_code("the backward pass"):
            # That of a sum is expanded, which is for contract.strides to try.
            result.backward(torch.ones_like(result))  # type: ignore[no-untyped-call]


_ATTEMPTS: dict[KernelCapability, Callable[[KernelSubject], None]] = {
    "gradients": _try_backward,
    "causal": _try(mask="causal"),
    "window": _try(mask="window", size=5),
    "band": _try(mask="band", size=5),
    "prefix": _try(mask="prefix", size=5),
    "prefix-rows": _try(mask="prefix", size=5, batch=2, by_row=True),
    "documents": _try(mask="documents", size=5),
    "documents-rows": _try(mask="documents", size=5, batch=2, by_row=True),
    "boolean-mask": _try(mask="random", form="boolean"),
    "additive-mask": _try(mask="random", form="additive"),
    "masks-together": _try_together,
    "scale": _try_scale,
    "grouped-heads": _try(heads=4, kv_heads=2),
}
