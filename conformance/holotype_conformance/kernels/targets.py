"""From a target on the command line to a kernel."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, get_args

from holotype_conformance.judge.importing import TargetError, find, let_through, said
from holotype_conformance.kernels.adapters.reference import ReferenceKernel
from holotype_conformance.kernels.adapters.torch import OneBackEnd, flex, sdpa
from holotype_conformance.kernels.candidate import FunctionKernel, KernelCandidate, Required
from holotype_conformance.torch_tools.backends import BACK_ENDS


def _of_transformers(name: str) -> KernelCandidate:
    """Imported when it is asked for: it takes seconds, and need not be installed."""
    from holotype_conformance.kernels.adapters.hf import TransformersKernel

    return TransformersKernel(name)


DEVIATION = "deviation:"


KERNELS: dict[str, Callable[[], KernelCandidate]] = {
    "sdpa": lambda: FunctionKernel(sdpa, "sdpa"),
    **{f"sdpa:{name}": partial(OneBackEnd, name) for name in BACK_ENDS},
    "flex": lambda: FunctionKernel(flex, "flex"),
    "reference:fused": lambda: ReferenceKernel("fused"),
    "reference:blocks": lambda: ReferenceKernel("blocks"),
    "reference:eager": lambda: ReferenceKernel("eager"),
    "hf:sdpa": partial(_of_transformers, "sdpa"),
    "hf:eager": partial(_of_transformers, "eager"),
}

EXPECTED = (
    "expected package.module:attribute or path/to/file.py:attribute, where the attribute is a function"
    " attention(q, k, v, *, mask=None, causal=False, window=None, scale=None) or a KernelCandidate; or one of "
    + ", ".join(KERNELS)
)


def resolve_kernel(target: str) -> KernelCandidate:
    """The kernel that `target` names. Imports it.

    Raises:
        TargetError: it names nothing, does not import, or is not something that can be checked.
    """
    if target in KERNELS:
        try:
            return KERNELS[target]()
        except ModuleNotFoundError as error:
            raise TargetError(
                f"the target {target!r} needs the module {error.name!r}, which is not installed:"
                " try pip install 'holotype[hf]'"
            ) from error
    if target.startswith(DEVIATION):
        from holotype_conformance.kernels.deviations.candidate import candidate  # with all others

        return candidate(target.removeprefix(DEVIATION))
    name, _, path = target.partition(":")
    if not path and Path(name).is_file():
        raise TargetError(
            f"{target!r} is a file: say what of it is to be checked, {name}:attention, where attention is a function"
            " attention(q, k, v, …) or a KernelCandidate"
        )
    if not name or not path or any(name == known.partition(":")[0] for known in KERNELS):
        near = get_close_matches(target, KERNELS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise TargetError(f"{target!r} is not a kernel: {EXPECTED}{hint}")
    return as_kernel(find(target, EXPECTED), target)


def as_kernel(found: Any, title: str) -> KernelCandidate:
    """A `KernelCandidate` made from a function, a `KernelCandidate` object or a `KernelCandidate` class.

    Raises:
        TargetError: it is none of these, or it does not take q, k and v.
    """
    if isinstance(found, type) and issubclass(found, KernelCandidate):
        try:
            found = found()
        except BaseException as error:
            let_through(error)
            raise TargetError(
                f"{title} is a KernelCandidate class, but calling it without arguments raised"
                f" {said(error)}; expected one that can be, or name an instance"
            ) from error
    if isinstance(found, KernelCandidate):
        own = type(found)
        if own.attention is KernelCandidate.attention and own.function is KernelCandidate.function:
            raise TargetError(
                f"{title} is a KernelCandidate that does not define attention(self, q, k, v)"
            )
        _check_signature(found.function, title, tuple(found.required))
        return found
    if isinstance(found, type) or not callable(found):
        raise TargetError(f"{title} is {found!r:.60}; {EXPECTED}")
    _check_signature(found, title)
    return FunctionKernel(found, title)


def _check_signature(function: Any, title: str, required: tuple[str, ...] = ()) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some C functions have none; then the call will tell
        return
    try:
        signature.bind("q", "k", "v", **dict.fromkeys(required))
    except TypeError as error:
        if not required and _binds(signature, *get_args(Required)):
            raise TargetError(
                f"{title} has the signature {signature}, which wants more than q, k and v in every call: a"
                ' KernelCandidate declares that, required = {"window": "why"}'
            ) from error
        raise TargetError(
            f"{title} has the signature {signature}; expected a function that can be called as"
            " attention(q, k, v): for other arguments write a KernelCandidate, which calls it"
        ) from error


def _binds(signature: inspect.Signature, *names: str) -> bool:
    """Whether what it wants beyond q, k and v is among `names`."""
    wanted = [name for name in names if name in signature.parameters]
    try:
        signature.bind("q", "k", "v", **dict.fromkeys(wanted))
    except TypeError:
        return False
    return True
