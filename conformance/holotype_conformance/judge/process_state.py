"""Changes that a candidate makes in the process that judges it: put back, and named in the result.

A candidate shares its process with the reference and with our own arithmetic. A default device that it sets, a function
mode that it leaves on the stack or gradients that it switches off would falsify what we compute next, so that such
settings are put back as soon as its code returns (`settled`). What matters to nobody but a later property, as the
working directory does, is put back when the property ends (`undisturbed`). A sound model that leaves something behind
is none the worse for it: it is told what it changed.
"""

from __future__ import annotations

import locale
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.modules import module as hooked

from holotype_conformance.judge.precision import arithmetic

_HOOKS = tuple(
    found
    for name in (
        "_global_buffer_registration_hooks",
        "_global_module_registration_hooks",
        "_global_parameter_registration_hooks",
        "_global_backward_pre_hooks",
        "_global_backward_hooks",
        "_global_forward_pre_hooks",
        "_global_forward_hooks",
        "_global_forward_hooks_always_called",
        "_global_forward_hooks_with_kwargs",
    )
    if isinstance(found := getattr(hooked, name, None), dict)
)
_TIMERS = tuple(
    found
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")
    if (found := getattr(signal, name, None)) is not None
)
_SIGNALS = tuple(
    found
    for name in [
        "HUP",
        "INT",
        "QUIT",
        "TERM",
        "PIPE",
        "CHLD",
        "ALRM",
        "VTALRM",
        "PROF",
        "XCPU",
        "USR1",
        "USR2",
    ]
    if (found := getattr(signal, f"SIG{name}", None)) is not None
)
_DEVICE = getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None)
_AUTOCAST = ("cpu", "cuda")
_SMALLEST = 5e-324  # no longer greater than zero where denormal numbers are flushed
_KEPT: list[Any] = []  # guards that hold as long as they live


class Setting(NamedTuple):
    """One thing about a process: its name in a sentence, how it is read and set, and how a change is said.

    `said` is given the value before and the one that was left.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    said: Callable[[Any, Any], str] | None = lambda _, left: str(left)


_CHANGED: ContextVar[dict[str, None] | None] = ContextVar("changed", default=None)


@contextmanager
def changes() -> Iterator[dict[str, None]]:
    """The names of all settings that are put back inside, with what they were left at; a dictionary for its order."""
    found: dict[str, None] = {}
    token = _CHANGED.set(found)
    try:
        yield found
    finally:
        _CHANGED.reset(token)


def note_changes(names: Iterable[str]) -> None:
    """Name what was changed, and put back, in another process."""
    changed = _CHANGED.get()
    if changed is not None:
        changed.update(dict.fromkeys(names))


@contextmanager
def settled() -> Iterator[None]:
    """Around each call of candidate code: what would falsify the arithmetic that follows is put back at once."""
    before = [read() for read in _READ]
    try:
        yield
    finally:
        if [read() for read in _READ] != before:
            _put_back(ARITHMETIC, before)


@contextmanager
def undisturbed() -> Iterator[dict[str, None]]:
    """Around a property: what a candidate sets for the whole process is put back, and its warnings stay its own.

    Inside, torch has one thread (probes are tiny: more threads cost more than they give) and computes in full
    precision. Yields the names of what was changed, complete once the body has ended.
    """
    everything = (*ARITHMETIC, *PROCESS)
    threads = torch.get_num_threads()
    with changes() as found, warnings.catch_warnings(), arithmetic():
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        before = [setting.read() for setting in everything]
        try:
            yield found
        finally:
            _put_back(everything, before)
            torch.set_num_threads(threads)


def _put_back(settings: Sequence[Setting], values: Sequence[Any]) -> None:
    changed = _CHANGED.get()
    for setting, value in zip(settings, values, strict=True):
        left = setting.read()
        if left is value or left == value:
            continue
        with suppress(Exception):  # what cannot be put back is at least named
            setting.write(value)
        if changed is not None:
            said = "" if setting.said is None else f" ({setting.said(value, left)})"
            changed[f"{setting.name}{said}"] = None


# Each setting -------------------------------------------------------------------------------------------------------


def _device() -> Any:
    """The object that stands for torch's default device; None where there is none."""
    return getattr(_DEVICE, "device_context", None)


def _set_device(context: Any) -> None:
    torch.set_default_device(None if context is None else context.device)


def _function_modes() -> list[Any]:
    return [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())]


def _set_function_modes(modes: list[Any]) -> None:
    while torch._C._len_torch_function_stack():
        torch._C._pop_torch_function_stack()
    for mode in modes:
        torch._C._push_on_torch_function_stack(mode)


def _dispatch_modes() -> list[Any]:
    return [torch._C._get_dispatch_stack_at(i) for i in range(torch._C._len_torch_dispatch_stack())]


def _set_dispatch_modes(modes: list[Any]) -> None:
    while torch._C._len_torch_dispatch_stack():
        torch._C._pop_torch_dispatch_stack(None)
    for mode in modes:
        torch._C._push_on_torch_dispatch_stack(mode)


def _modes_said(before: list[Any], modes: list[Any]) -> str:
    added = [type(mode).__name__ for mode in modes if mode not in before]
    return ", ".join(added) or "taken off"


def _on_or_off(_: Any, on: bool) -> str:
    return "on" if on else "off"


def _set_inference(on: bool) -> None:
    guard = torch._C._InferenceMode(on)
    guard.__enter__()  # type: ignore[no-untyped-call]
    _KEPT.append(guard)


def _autocast() -> list[str]:
    """The kinds of device for which it is on."""
    if not torch._C._is_any_autocast_enabled():
        return []
    return [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]


def _set_autocast(on: list[str]) -> None:
    for kind in _AUTOCAST:
        torch.set_autocast_enabled(kind, kind in on)


def _products() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # told through the newer interface what the older has no word for
        return "mixed"


def _deterministic() -> tuple[bool, bool]:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warn_only


def _set_deterministic(values: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(values[0], warn_only=values[1])


def _flushes() -> bool:
    return not _SMALLEST > 0.0


def _hooks() -> list[tuple[Any, ...]]:
    return [tuple(each.items()) if each else () for each in _HOOKS]


def _set_hooks(values: list[tuple[Any, ...]]) -> None:
    for each, value in zip(_HOOKS, values, strict=True):
        each.clear()
        each.update(value)


def _set_onednn(on: bool) -> None:
    torch._C._set_mkldnn_enabled(on)


# What a comparison, the reference or our own code would suffer from; read around every call, in a few microseconds.
ARITHMETIC: tuple[Setting, ...] = (
    Setting(
        "the default device",
        _device,
        _set_device,
        lambda _, context: "none" if context is None else str(context.device),
    ),
    Setting("torch's function modes", _function_modes, _set_function_modes, _modes_said),
    Setting("torch's dispatch modes", _dispatch_modes, _set_dispatch_modes, _modes_said),
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting(
        "inference mode",
        torch.is_inference_mode_enabled,
        _set_inference,
        _on_or_off,
    ),
    Setting(
        "whether gradients are computed",
        torch.is_grad_enabled,
        torch._C._set_grad_enabled,
        _on_or_off,
    ),
    Setting("autocast", _autocast, _set_autocast, lambda _, on: ", ".join(on) or "off"),
    Setting("the precision of float32 products", _products, torch.set_float32_matmul_precision),
    Setting(
        "deterministic algorithms",
        _deterministic,
        _set_deterministic,
        lambda _, values: _on_or_off(_, values[0]),
    ),
    Setting(
        "flushing of denormal numbers",
        _flushes,
        torch.set_flush_denormal,
        _on_or_off,
    ),
    Setting(
        "the use of oneDNN",
        torch._C._get_mkldnn_enabled,
        _set_onednn,
        _on_or_off,
    ),
    Setting("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("hooks of all modules", _hooks, _set_hooks, None),
    Setting("Python's recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("Python's trace function", sys.gettrace, sys.settrace, None),
    Setting("Python's profile function", sys.getprofile, sys.setprofile, None),
)
_READ = tuple(setting.read for setting in ARITHMETIC)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""  # it is no longer there


def _environment() -> dict[str, str]:
    return dict(os.environ)


def _set_environment(variables: dict[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _variables_said(before: dict[str, str], left: dict[str, str]) -> str:
    names = {name for name, _ in before.items() ^ left.items()}
    return ", ".join(sorted(names)) if len(names) <= 3 else f"{len(names)} of them"


def _handlers() -> dict[int, Any]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {int(number): signal.getsignal(number) for number in _SIGNALS}


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) != handler:
            with suppress(OSError, ValueError):
                signal.signal(number, handler)


def _blocked() -> set[Any]:
    return (
        signal.pthread_sigmask(signal.SIG_BLOCK, [])
        if hasattr(signal, "pthread_sigmask")
        else set()
    )


def _timers() -> tuple[int, ...]:
    """The timers that run; how much is left of them changes by itself."""
    return tuple(int(each) for each in _TIMERS if signal.getitimer(each)[0] > 0)


def _set_timers(running: tuple[int, ...]) -> None:
    for each in _TIMERS:
        if int(each) not in running:
            signal.setitimer(each, 0)


def _streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _set_streams(streams: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = streams


def _filters() -> list[Any]:
    """Those for warnings of Python's own; a library that torch imports on its way may add some for its own warnings."""
    return [each for each in warnings.filters if each[2].__module__ == "builtins"]


def _set_filters(filters: list[Any]) -> None:
    others = [each for each in warnings.filters if each[2].__module__ != "builtins"]
    warnings.filters[:] = [*filters, *others]  # type: ignore[index]


# What only a later property would suffer from.
PROCESS: tuple[Setting, ...] = (
    Setting("NumPy's handling of errors", np.geterr, lambda told: np.seterr(**told), None),
    Setting("the working directory", _folder, os.chdir),
    Setting("environment variables", _environment, _set_environment, _variables_said),
    Setting("signal handlers", _handlers, _set_handlers, None),
    Setting(
        "blocked signals",
        _blocked,
        lambda blocked: signal.pthread_sigmask(signal.SIG_SETMASK, blocked),
        None,
    ),
    Setting("timers", _timers, _set_timers, None),
    Setting("the standard streams of Python", _streams, _set_streams, None),
    Setting("filters of warnings", _filters, _set_filters, None),
    Setting(
        "the locale",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda name: locale.setlocale(locale.LC_ALL, name),
    ),
)
