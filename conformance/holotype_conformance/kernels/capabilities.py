"""Capabilities of a kernel, found out by trying: each is asked for once, at the plainest of shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.candidate import Call, KernelCapability
from holotype_conformance.kernels.cases import Problem
from holotype_conformance.kernels.returned import checked

WORDS: dict[KernelCapability, str] = {
    "boolean-mask": "a boolean mask",
    "additive-mask": "an additive mask",
    "band": "a window without causal",
    "prefix": "a prefix",
    "prefix-rows": "a prefix for each row of the batch",
    "documents": "the lengths of documents",
    "documents-rows": "the lengths of documents for each row of the batch",
    "masks-together": "a mask together with causal",
    "scale": "a scale",
    "grouped-heads": "fewer key-value heads than query heads",
    "gradients": "a backward pass",
}


class Called(Protocol):
    """A kernel that is called under guard, as far as an attempt needs it; see `holotype_conformance.kernels.subject`.

    Attributes:
        by_grad: whether its gradients come by `torch.autograd.grad` alone.
    """

    by_grad: bool

    def plainest(self, **changes: Any) -> Problem: ...

    def run_once(self, call: Call) -> None: ...

    def leaves(self, problem: Problem, by: str) -> tuple[Call, list[Tensor]]: ...

    def raw(self, call: Call) -> Any: ...

    def backwards(
        self, call: Call, output: Tensor, upstream: Tensor, inputs: Sequence[Tensor]
    ) -> list[Tensor | None]: ...


# Asks for a capability once, at the plainest shape with what is given changed; raises a Violation where it is refused.
Attempt = Callable[..., None]


def _try(**asked: Any) -> Attempt:
    def attempt(subject: Called, **changes: Any) -> None:
        subject.run_once(subject.plainest(**asked | changes).call)

    return attempt


def _try_scale(subject: Called, **changes: Any) -> None:
    subject.run_once(replace(subject.plainest(**changes).call, scale=0.3))


def _try_together(subject: Called, **changes: Any) -> None:
    masked = subject.plainest(mask="right-padding", form="boolean", size=9, **changes).call
    subject.run_once(replace(masked, causal=True))


def _try_backward(subject: Called, **changes: Any) -> None:
    """By a backward pass; where that is refused, by `torch.autograd.grad`."""
    try:
        _differentiate(subject, **changes)
    except Violation:
        subject.by_grad = True
        try:
            _differentiate(subject, **changes)
        except Violation:
            subject.by_grad = False
            _differentiate(subject, **changes)


def _differentiate(subject: Called, **changes: Any) -> None:
    call, leaves = subject.leaves(subject.plainest(**changes), "qkv")
    with torch.enable_grad():
        result = checked(subject.raw(call), call)
        if not result.requires_grad:
            raise Violation("its result is not connected to its inputs")
        # The gradient of a sum is expanded, which is for contract.strides to try.
        subject.backwards(call, result, torch.ones_like(result), leaves)


ATTEMPTS: Mapping[KernelCapability, Attempt] = {
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
# Where the plainest shape is refused, larger ones are tried: blocks, and vectors, of a customary size.
LARGER: tuple[dict[str, Any], ...] = (
    {"queries": 64, "keys": 64},
    {"queries": 128, "keys": 128},
    {"head_dim": 64},
    {"head_dim": 128},
    {"queries": 64, "keys": 64, "head_dim": 64},
    {"queries": 128, "keys": 128, "head_dim": 128},
)
# Of these no attempt tells: what refuses them fails, and is told how to declare it.
UNTRIED: tuple[KernelCapability, ...] = (
    "unequal-lengths",
    "batches",
    "unmasked",
    "any-length",
    "any-head-dim",
)
