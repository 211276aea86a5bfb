"""A second device that is not there: tensors that lie elsewhere, computed with on the CPU.

A model that has run on the CPU alone is not known to run anywhere else, and the commonest mistakes need no accelerator
to show: a table that is a plain attribute stays behind when the model is moved, and a tensor made without ``device=``
is made on the CPU. Here a tensor lies *elsewhere* if it was moved there or computed from tensors that were. Its numbers
are real, and an operation on tensors of both places raises, as it does on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from holotype_conformance.judge.property import Skip, Violation

# A type of device that torch knows by name and whose driver nobody is asked for.
ELSEWHERE = torch.device("maia", 0)
# What torch's compiled code takes these tensors for: it asks the driver of any other device, and there is none.
_SHELL = torch.device("meta")
_CPU = torch.device("cpu")

_aten = torch.ops.aten
# These carry numbers from one place to the other. An index may lie on the CPU, as it may for a tensor on a GPU.
_CARRIERS = {_aten.copy_.default, _aten._to_copy.default, _aten._local_scalar_dense.default}
_INDEXING = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}
# These copy Python numbers to a device below everything that can be intercepted.
_FROM_PYTHON = (torch.tensor, torch.as_tensor, torch.asarray)
_SUBSCRIPTS = (Tensor.__getitem__, Tensor.__setitem__)  # with a list, as in x[:, [-1]]


class TwoDevices(RuntimeError):
    """An operation was given tensors of both places."""


class ElsewhereTensor(Tensor):
    """A tensor that lies elsewhere; `held` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> ElsewhereTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=_SHELL,
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The device that Python code sees."""
        return ELSEWHERE

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        """It is not without numbers."""
        return False

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Making(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tensors that are made elsewhere without one that lies there: torch would ask for the device's own kernel."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first call imports the compiler, which takes a second

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _run(func, args, kwargs or {})


class _FromPython(TorchFunctionMode):
    """Python numbers become a tensor on the CPU first, and are moved then."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _FROM_PYTHON and _is_elsewhere(given.get("device")):
            del given["device"]
            return func(*args, **given).to(ELSEWHERE)
        if func is Tensor.new_tensor and isinstance(args[0], ElsewhereTensor):
            return args[0].held.new_tensor(*args[1:], **given).to(ELSEWHERE)
        if func is Tensor.tolist and isinstance(args[0], ElsewhereTensor):
            return args[0].held.tolist()
        if func in _SUBSCRIPTS and isinstance(args[0], ElsewhereTensor):
            return func(args[0], _listless(args[1]), *args[2:], **given)
        return func(*args, **given)


@contextmanager
def places() -> Iterator[None]:
    """While active, `ELSEWHERE` is a device to which tensors and modules can be moved."""
    with _Making(), _FromPython():  # type: ignore[no-untyped-call]
        yield


def here(tensor: Tensor) -> Tensor:
    """The tensor on the CPU."""
    return tensor.held if isinstance(tensor, ElsewhereTensor) else tensor


@contextmanager
def told_apart(**facts: Any) -> Iterator[None]:
    """Two devices that meet are the candidate's fault; whatever else is raised may be the simulation's.

    Raises:
        Violation: two devices met.
        Skip: something else was raised.
    """
    try:
        yield
    except Violation as violation:
        cause = violation.__cause__
        if isinstance(cause, TwoDevices):
            raise Violation(str(cause), **facts) from cause
        if cause is None:
            raise
        said = " ".join(str(cause).split())[:120]
        raise Skip(f"the simulated device cannot run it: {said}") from violation
    except (RuntimeError, TypeError) as error:  # while something was moved there
        said = " ".join(str(error).split())[:120]
        raise Skip(f"the simulated device cannot hold it: {said}") from error


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operation on the numbers, and its result in the place where a device would have it."""
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    if any(x.is_meta for x in given):
        raise RuntimeError(
            f"{func.overloadpacket.__name__} was given a tensor that holds no numbers"
        )
    away = any(isinstance(x, ElsewhereTensor) for x in given)
    if away and func not in _CARRIERS:
        _demand_one_place(func, given[:1] if func.overloadpacket in _INDEXING else given)
    if kwargs.get("device") is not None:
        away = _is_elsewhere(kwargs["device"])
        kwargs = kwargs | {"device": _CPU}
    held = {id(here(x)): x for x in given}  # what is changed in place is handed back itself
    result = func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
    return tree_map(lambda x: held.get(id(x)) if id(x) in held else _placed(x, away), result)


def _demand_one_place(func: Any, given: Sequence[Tensor]) -> None:
    """Refuse tensors of the CPU among those from elsewhere; one without axes is a number, and may lie anywhere."""
    for x in given:
        if not isinstance(x, ElsewhereTensor) and x.ndim:
            raise TwoDevices(
                f"{func.overloadpacket.__name__} was given tensors on two devices, the model's and the CPU"
                f" (there, one of shape {tuple(x.shape)})"
            )


def _listless(index: Any) -> Any:
    """A subscript with tensors of the CPU for its lists of numbers, as an index may lie there."""
    if isinstance(index, tuple):
        return tuple(map(_listless, index))
    if not isinstance(index, list) or any(isinstance(x, Tensor) for x in tree_leaves(index)):
        return index
    return torch.tensor(index) if index else torch.tensor(index, dtype=torch.long)


def _is_elsewhere(device: Any) -> bool:
    return device is not None and torch.device(device).type in (ELSEWHERE.type, _SHELL.type)


def _numbers(x: Any) -> Any:
    return here(x) if isinstance(x, Tensor) else x


def _placed(x: Any, away: bool) -> Any:
    return ElsewhereTensor(x) if away and isinstance(x, Tensor) else x
