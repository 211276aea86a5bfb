"""One process becomes two, just before the candidate is imported."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NoReturn

from holotype_conformance.judge.records import Environment, Kind, Rejected, Request
from holotype_conformance.run.apart.judging import Half, Stated, SubjectThere
from holotype_conformance.run.apart.serving import Resolve, Server, leave
from holotype_conformance.run.apart.wire import (
    AnyAnswer,
    AnyAsk,
    Open,
    Opened,
    Refused,
    Wire,
    inherited,
)
from holotype_conformance.run.session import Run


def possible(kind: Kind = "model") -> bool:
    """Whether the process of such a target can be split here.

    On macOS a copy of a process may not use its system's libraries, and Windows has no copies. What kernels are given
    and return lies in memory in ways that are a part of what is checked: they are judged where they run.
    """
    return sys.platform == "linux" and kind == "model"


def split(resolve: Resolve, run_class: type[Run], forget: Callable[[], None]) -> Half:
    """Become two: only the half that judges returns.

    Args:
        resolve, run_class: of the kind of target, for the other half.
        forget: closes, in the other half, what only this one may have.
    """
    here, there = socket.socketpair()
    gc.freeze()  # what both share is written to by nobody's collector
    process = os.fork()
    if not process:
        _serve(Server(resolve, run_class), here, there, forget)
    inherited(there)
    half = Half(Wire(here, AnyAnswer, alarmed=True), process)

    def forget_both() -> None:
        forget()
        half.wire.socket.close()

    half.another = lambda: split(resolve, run_class, forget_both)
    return half


def _serve(
    server: Server, here: socket.socket, there: socket.socket, forget: Callable[[], None]
) -> NoReturn:
    inherited(here)
    forget()
    signal.signal(signal.SIGALRM, server.interrupt)
    leave(server, Wire(there, AnyAsk, alarmed=False))


class RefusedThere(Exception):
    """The target cannot be had, or the request makes no sense: as the other half tells it."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.told = Rejected(
            message=refused.message, details=refused.details, unrunnable=refused.unrunnable
        )


class _Here:
    """What differs in a run whose candidate is in the other half."""

    def __init__(self, half: Half, opened: Opened, request: Request, **options: Any) -> None:
        self.half = half
        self.opened = opened
        super().__init__(request, Stated(opened), **options)  # type: ignore[call-arg]

    def new_subject(self, spec: Any) -> Any:
        """The candidate under `spec`."""
        request: Request = self.request  # type: ignore[attr-defined]
        return SubjectThere(
            self.half,
            self.candidate,  # type: ignore[attr-defined]
            spec,
            seed=request.seed,
            device=request.device,
            dtypes=request.dtypes,
        )

    @contextmanager
    def fresh(self, spec: Any, *, shared: bool = False) -> Iterator[Any]:
        """A subject whose candidate is imported anew, in another half of its own; or in one for all that may share."""
        request: Request = self.request  # type: ignore[attr-defined]
        if request.device != "cpu":  # a copy of a process cannot use the GPU that the process uses
            yield self.new_subject(spec)
            return
        if shared:
            if self.half.shared is None:
                self.half.shared = self._imported_anew()
            yield self.half.shared.new_subject(spec)
            return
        run = self._imported_anew()
        try:
            yield run.new_subject(spec)
        finally:
            run.half.end()

    def _imported_anew(self) -> Any:
        """A run like this one, in another half."""
        request: Request = self.request  # type: ignore[attr-defined]
        half = self.half.another()
        try:
            answer = half.ask(Open(request=request), (Opened, Refused))
            if isinstance(answer, Refused):
                raise RefusedThere(answer)
        except BaseException:
            half.end()
            raise
        kind: Any = type(self)
        return kind(half, answer, request)

    @cached_property
    def environment(self) -> Environment:
        """That of the other half, which has imported what the candidate brings."""
        return self.opened.environment


def run_here(half: Half, run_class: type[Run], request: Request, **options: Any) -> Any:
    """The run of a candidate that the other half imports.

    Raises:
        RefusedThere: the target does not import, or the request makes no sense.
        TimedOut: importing it takes too long.
    """
    answer = half.ask(Open(request=request), (Opened, Refused))
    if isinstance(answer, Refused):
        raise RefusedThere(answer)
    kind: Any = type("RunHere", (_Here, run_class), {})
    return kind(half, answer, request, **options)
