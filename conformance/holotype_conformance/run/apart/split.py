"""One process becomes two, just before the candidate is imported."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, NoReturn

from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Diagnosis, Environment, Rejected, Request
from holotype_conformance.judge.suite import Suite
from holotype_conformance.run.apart.judging import Half, Stated, SubjectThere
from holotype_conformance.run.apart.serving import Server, leave
from holotype_conformance.run.apart.wire import (
    AnyAnswer,
    AnyAsk,
    Open,
    Opened,
    Refused,
    Wire,
    inherited,
)
from holotype_conformance.run.session import Session


def possible(suite: Suite[Any]) -> bool:
    """Whether the process of a target of this suite can be split here.

    On macOS a copy of a process may not use its system's libraries, and Windows has no copies.
    """
    return sys.platform == "linux" and suite.apart


def split(suite: Suite[Any], forget: Callable[[], None]) -> Half:
    """Become two: only the half that judges returns.

    Args:
        suite: that of the kind of target.
        forget: closes, in the other half, what only this one may have.
    """
    here, there = socket.socketpair()
    gc.freeze()  # what both share is written to by nobody's collector
    process = os.fork()
    if not process:
        _serve(Server(suite), here, there, forget)
    inherited(there)
    half = Half(Wire(here, AnyAnswer, alarmed=True), process)

    def forget_both() -> None:
        forget()
        half.wire.socket.close()

    half.another = lambda: split(suite, forget_both)
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


class SessionHere(Session):
    """A session whose candidate is in the other half."""

    def __init__(self, half: Half, opened: Opened, request: Request, **options: Any) -> None:
        self.half = half
        self.opened = opened
        super().__init__(request, Stated(opened), **options)

    @property
    def subject_of(self) -> Callable[..., SubjectThere]:
        """Makes a subject whose models are in the other half."""
        return partial(SubjectThere, self.half)

    def diagnose(
        self, subject: SubjectThere, property_: Property, case: Any, violation: Violation
    ) -> Sequence[Diagnosis]:
        """The other half's finding, where the candidate can be called."""
        found: Sequence[Diagnosis] = subject.diagnose(property_, case, violation)
        return found

    @contextmanager
    def fresh(self, spec: Any, *, shared: bool = False) -> Iterator[Any]:
        """A subject whose candidate is imported anew, in another half of its own; or in one for all that may share."""
        request = self.request
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

    def _imported_anew(self) -> SessionHere:
        """A run like this one, in another half."""
        half = self.half.another()
        try:
            answer = half.ask(Open(request=self.request), (Opened, Refused))
            if isinstance(answer, Refused):
                raise RefusedThere(answer)
        except BaseException:
            half.end()
            raise
        assert isinstance(answer, Opened)
        return SessionHere(half, answer, self.request)

    @cached_property
    def environment(self) -> Environment:
        """That of the other half, which has imported what the candidate brings."""
        return self.opened.environment


def session_here(half: Half, request: Request, **options: Any) -> SessionHere:
    """The session of a candidate that the other half imports.

    Raises:
        RefusedThere: the target does not import, or the request makes no sense.
        TimedOut: importing it takes too long.
    """
    answer = half.ask(Open(request=request), (Opened, Refused))
    if isinstance(answer, Refused):
        raise RefusedThere(answer)
    assert isinstance(answer, Opened)
    return SessionHere(half, answer, request, **options)
