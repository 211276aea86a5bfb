"""The inputs of a kernel, in copies, and its results, held to what was promised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.torch_tools.fake_device import ElsewhereTensor
from holotype_conformance.torch_tools.plain_tensor import plain_tensor


def copied(x: Tensor) -> Tensor:
    """A tensor of one's own with the same contents, and lying in memory in the same way."""
    if type(x) is ElsewhereTensor:
        return x.detach().clone()  # it has no storage of its own
    storage = x.detach().untyped_storage().clone()  # type: ignore[no-untyped-call]
    own = torch.empty(0, dtype=x.dtype, device=x.device)
    return own.set_(storage, x.storage_offset(), x.shape, x.stride())


def checked(result: Any, call: Call, *, finite: bool = True) -> Tensor:
    """The result of a call, if it is what was promised.

    Raises:
        Violation: it is not.
    """
    if not issubclass(type(result), Tensor):  # `__class__` may say what it likes
        raise Violation(
            f"attention returned {type(result).__name__}; expected a tensor: for arrays of another library write a"
            " KernelCandidate that converts them"
        )
    if type(result) is not ElsewhereTensor:
        result = plain_tensor(result, "the result")
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
    return result  # type: ignore[no-any-return]


def checked_gradient(name: str, gradient: Tensor | None) -> Tensor:
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
