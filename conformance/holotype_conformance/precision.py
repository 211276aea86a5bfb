"""Lifting the float32 that is written into a model's code, so that a float64 probe is float64 throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Float64Throughout(TorchFunctionMode):
    """While active, every request for float32 is a request for float64.

    Published codes compute norms, softmax and rotary angles in float32 because their models are in half precision.
    In a float64 model the same lines *lower* the precision, to 1e-7, and a mask that is the lowest float64 becomes
    -inf on the way. This takes nothing away from a check: the code that runs is the candidate's own, and a cast to
    anything but float32 stays what it is. What these casts are for is checked in float32 and bfloat16, without it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()
        if torch.float32 in args[1:2]:  # tensor.to(dtype), tensor.type(dtype)
            args = (args[0], torch.float64, *args[2:])
        if kwargs and kwargs.get("dtype") is torch.float32:
            kwargs = kwargs | {"dtype": torch.float64}
        return func(*args, **(kwargs or {}))
