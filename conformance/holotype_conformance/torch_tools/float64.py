"""Lifting the float32 that is written into a model's code, so that a float64 probe is float64 throughout."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_OLD_NAMES = ("torch.FloatTensor", torch.FloatTensor)  # of float32, for tensor.type
_FLOAT, _TYPE = Tensor.float, Tensor.type  # as they are where no others stand in their places


class Float64Throughout(TorchFunctionMode):
    """While active, every request for float32 is a request for float64.

    Published codes compute norms, softmax and rotary angles in float32 because their models are in half precision.
    In a float64 model the same lines *lower* the precision, to 1e-7, and a mask that is the lowest float64 becomes
    -inf on the way. This takes nothing away from a check: the code that runs is the candidate's own, and a cast to
    anything but float32 stays what it is. What these casts are for is checked in float32 and bfloat16, without it.

    Attributes:
        lifted: whether there was such a request.
    """

    lifted = False

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
        found = _in_float64(func, args, kwargs or {})
        if found is None:
            return func(*args, **(kwargs or {}))
        self.lifted = True
        func, args, kwargs = found
        return func(*args, **kwargs)


def _in_float64(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None:
    """A call that asks for float32 as the one that asks for float64; None for a call that does not."""
    if func is _FLOAT:
        return Tensor.double, args, kwargs
    if func is _TYPE and len(args) > 1 and args[1] in _OLD_NAMES:
        return Tensor.double, args[:1], kwargs
    by_name = kwargs.get("dtype") is torch.float32
    # By position too: tensor.to(dtype), softmax(x, dim, dtype), tensor.sum(dim, keepdim, dtype).
    if not by_name and not any(each is torch.float32 for each in args):
        return None
    args = tuple(torch.float64 if each is torch.float32 else each for each in args)
    return func, args, kwargs | {"dtype": torch.float64} if by_name else kwargs


# At less cost ---------------------------------------------------------------------------------------------------
#
# A mode is asked at every call of torch, which takes two or three times a small model's own time, and few calls ask for
# float32. Only the functions that can are replaced, for as long as the candidate's code runs. It may hold a function
# that it imported before, which nobody can replace: the first call of each kind therefore runs under the mode too, and
# where the mode had something left to lift, it stays.

_TENSOR = (
    "cumprod cumsum float log_softmax mean nanmean nansum new_empty new_full new_ones new_tensor new_zeros norm prod"
    " softmax sum to type"
)
_FUNCTIONS = (
    "arange as_tensor asarray cumprod cumsum empty empty_like empty_strided eye full full_like linspace log_softmax"
    " logspace mean nanmean nansum norm normal ones ones_like prod rand rand_like randint randint_like randn randn_like"
    " range scalar_tensor softmax sum tensor zeros zeros_like"
)
_PLACES: tuple[tuple[Any, str], ...] = (
    (Tensor, _TENSOR),
    (torch, _FUNCTIONS),
    (torch.nn.functional, "log_softmax softmax softmin"),
    (torch.special, "log_softmax softmax"),
    (torch.linalg, "matrix_norm norm vector_norm"),
)


def _lifting(func: Callable[..., Any]) -> Callable[..., Any]:
    """A function of torch that is asked for float64 where it is asked for float32."""

    @wraps(func)
    def lifted(*args: Any, **kwargs: Any) -> Any:
        found = _in_float64(func, args, kwargs) if _Replaced.depth else None
        if found is None:
            return func(*args, **kwargs)
        func_, args, kwargs = found
        return func_(*args, **kwargs)

    return lifted


def _unreplaced(func: Callable[..., Any]) -> Callable[..., Any]:
    """A function that looks into torch itself, where it must find what torch put there."""

    @wraps(func)
    def called(*args: Any, **kwargs: Any) -> Any:
        if not _Replaced.depth:
            return func(*args, **kwargs)
        _put(_BEFORE)
        try:
            return func(*args, **kwargs)
        finally:
            _put(_INSTEAD)

    return called


def _put(functions: Iterable[tuple[Any, str, Any]]) -> None:
    """Put functions in their places; None takes away what hides one that is inherited."""
    for place, name, func in functions:
        if func is not None:
            setattr(place, name, func)
        elif name in vars(place):
            delattr(place, name)


class _Replaced:
    """Within how much of candidates' code those in their places are; at 0, one that is still held lifts nothing."""

    depth = 0


_INSTEAD: tuple[tuple[Any, str, Any], ...] = (
    *(
        (place, name, _lifting(getattr(place, name)))
        for place, names in _PLACES
        for name in names.split()
    ),
    (torch.jit, "script", _unreplaced(torch.jit.script)),
    (torch, "FloatTensor", torch.DoubleTensor),
)
_BEFORE = tuple((place, name, vars(place).get(name)) for place, name, _ in _INSTEAD)


@contextmanager
def _replaced() -> Iterator[None]:
    if not _Replaced.depth:
        _put(_INSTEAD)
    _Replaced.depth += 1
    try:
        yield
    finally:
        _Replaced.depth -= 1
        if not _Replaced.depth:
            _put(_BEFORE)


class Lifter:
    """Keeps the code of one candidate in float64 throughout, at as little cost as that takes.

    It remembers of each kind of call whether it asks for float32 by a function that could not be replaced.
    """

    def __init__(self) -> None:
        self._escapes: dict[Hashable, bool] = {}

    @contextmanager
    def throughout(self, kind: Hashable) -> Iterator[None]:
        """A guard around calls of a kind, in which the same code runs; None for those of which that is not known."""
        escapes = self._escapes.get(kind)
        if kind is not None and escapes is None:
            with _replaced(), Float64Throughout() as watching:
                yield
            self._escapes[kind] = watching.lifted
        elif kind is None or escapes:
            with Float64Throughout():
                yield
        else:
            with _replaced():
                yield


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
