"""Lifting the float32 that is written into a model's code, so that a float64 probe is float64 throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_OLD_NAMES = ("torch.FloatTensor", torch.FloatTensor)  # of float32, for tensor.type


class Float64Throughout(TorchFunctionMode):
    """While active, every request for float32 is a request for float64.

    Published codes compute norms, softmax and rotary angles in float32 because their models are in half precision.
    In a float64 model the same lines *lower* the precision, to 1e-7, and a mask that is the lowest float64 becomes
    -inf on the way. This takes nothing away from a check: the code that runs is the candidate's own, and a cast to
    anything but float32 stays what it is. What these casts are for is checked in float32 and bfloat16, without it.
    """

    def __enter__(self) -> Self:
        # The old constructor, torch.FloatTensor(sizes), asks no mode.
        self._constructor = torch.FloatTensor
        torch.FloatTensor = torch.DoubleTensor  # type: ignore[assignment,misc]
        entered: Self = super().__enter__()  # type: ignore[no-untyped-call]
        return entered

    def __exit__(self, *error: object) -> None:
        torch.FloatTensor = self._constructor  # type: ignore[misc]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()
        if func is Tensor.type and len(args) > 1 and args[1] in _OLD_NAMES:
            return args[0].double()
        # By position too: tensor.to(dtype), softmax(x, dim, dtype), tensor.sum(dim, keepdim, dtype).
        args = tuple(torch.float64 if each is torch.float32 else each for each in args)
        if kwargs and kwargs.get("dtype") is torch.float32:
            kwargs = kwargs | {"dtype": torch.float64}
        return func(*args, **(kwargs or {}))


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Tensors that are made without a dtype are float64 in a float64 probe, and float32 in all others.

    For tables that a model computes when it is built, and for constants that it makes whenever it runs. Code that sets
    another default inside has it left as it was set, so that whoever looks for that finds it.
    """
    before, wanted = torch.get_default_dtype(), torch.promote_types(dtype, torch.float32)
    torch.set_default_dtype(wanted)
    try:
        yield
    finally:
        if torch.get_default_dtype() is wanted:
            torch.set_default_dtype(before)
