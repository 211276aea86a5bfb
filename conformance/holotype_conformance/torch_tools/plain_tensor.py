"""Plain tensors made of what a candidate hands over, before anything of it is compared.

A subclass of `torch.Tensor` may answer every operation as it likes: one whose differences are zero and whose
comparisons are true would agree with anything. What is compared is therefore the numbers in its memory, looked at as
a plain tensor; it stays part of the candidate's graph, so that it can be differentiated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.torch_tools.fake_device import ElsewhereTensor

_GRADIENT: Any = Tensor.grad  # a subclass may have a `grad` of its own


def plain_tensor(found: Any, what: str) -> Any:
    """`found` as a plain tensor in the same memory and graph; what is no tensor at all is handed back as it is.

    Args:
        found: what a candidate returned, a gradient, or a parameter.
        what: names it, for the message: "the logits".

    Raises:
        Violation: it is a wrapper without numbers of its own, as distributed, fake and lazy tensors are, so that there
            is nothing to look at but what its own code answers.
    """
    kind = type(found)
    if kind is Tensor or kind is ElsewhereTensor or not issubclass(kind, Tensor):
        return found  # what lies on the simulated device is our own
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise Violation(
            f"{what} came as a {kind.__name__}, which answers every operation by code of its own; expected a plain"
            " torch.Tensor: convert it in the adapter (a distributed tensor with full_tensor())"
        )
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor.as_subclass(found, Tensor)


def plain_gradient(parameter: Tensor) -> Tensor | None:
    """The gradient that has gathered in a parameter, as a plain tensor; None where there is none.

    Raises:
        Violation: it is a wrapper without numbers of its own.
    """
    with torch._C.DisableTorchFunctionSubclass():
        gradient = _GRADIENT.__get__(parameter)
    plain: Tensor | None = plain_tensor(gradient, "a gradient")
    return plain
