"""A run whose candidate lives in a process of its own, for pytest.

``holotype check`` has its worker; a test file of one's own has the candidate in pytest's process, where it may be
anything, a closure too. One that leaves with ``os._exit(0)`` would end pytest there, with the exit code of success. So
the process is forked before the candidate is first called, and the copy judges; when it dies, the property under way
has failed, and another copy goes on. Where a copy would not work (no fork, a GPU that is in use already) the candidate
is judged in pytest's own process, in which `os._exit` then raises.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn
from unittest.mock import patch

import msgspec
import torch

from holotype_conformance.judge.expected_failures import expect, expectation
from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.property import Property
from holotype_conformance.judge.records import Counterexample, Result
from holotype_conformance.judge.time_limit import Account
from holotype_conformance.run.run_record import blank
from holotype_conformance.run.session import RequestError, Session, plan
from holotype_conformance.run.supervisor import GRACE
from holotype_spec.schema import Spec

READY = 20.0  # seconds for a copy to show that it can compute


class _Asked(msgspec.Struct, frozen=True):
    """The task of a copy: judge a property under a spec, or, without one, run the candidate once."""

    spec: str
    slug: str | None


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Its answer: a result, or why the candidate is unusable or the request makes no sense."""

    result: Result | None = None
    unusable: str | None = None
    refused: str | None = None


class _Died(Exception):
    """The copy is no more; the message completes "the candidate's process …"."""


class IsolatedRun:
    """Does what a `Session` does, in a copy of this process; to be used like one.

    Args:
        run: the run; nothing of its candidate has been called yet.
    """

    def __init__(self, run: Session) -> None:
        self.run = run
        self._copy: _Copy | None = None
        self._alone: bool | None = None  # whether copies work here is found out with the first

    def __getattr__(self, name: str) -> Any:
        return getattr(self.run, name)

    def smoke(self, spec: Spec) -> None:
        """Run the candidate once.

        Raises:
            CandidateUnusable: it could not be run at all.
        """
        try:
            answer = self._ask(_Asked(spec.name, None))
        except _Died as died:
            raise CandidateUnusable(
                f"its process {died} while one small model was built and run"
            ) from None
        if answer is None:
            with exit_raises():
                self.run.smoke(spec)
        elif answer.unusable is not None:
            raise CandidateUnusable(answer.unusable)

    def judge(self, spec: Spec, property_: Property) -> Result:
        """The verdict on one property, expected failures taken into account.

        Raises:
            RequestError: the case that was asked for is none that the property would draw for this candidate.
        """
        start = time.monotonic()
        try:
            answer = self._ask(_Asked(spec.name, property_.slug))
        except _Died as died:
            return self._lost(spec, property_, died, time.monotonic() - start)
        if answer is None:
            with exit_raises():
                return self.run.judge(spec, property_)
        if answer.refused is not None:
            raise RequestError(answer.refused)
        assert answer.result is not None
        return answer.result

    def _lost(self, spec: Spec, property_: Property, died: _Died, seconds: float) -> Result:
        """The result of a property during which the candidate ended its process, or had to be ended."""
        late = isinstance(died, _Late)
        request = self.run.request
        result = blank(
            plan(spec.name, property_),
            f"the candidate's process {died} during this property",
            outcome="undecided" if late else "failed",
            ended=not late,
            seconds=round(seconds, 3),
            counterexample=Counterexample(
                case={}, facts={}, rerun=request.rerun(spec.name, property_.slug, None)
            ),
        )
        return expect(result, expectation(request.expected, spec.name, property_.slug))

    def _ask(self, asked: _Asked) -> _Answer | None:
        """The answer of a copy; None where none can be made here."""
        if self._copy is None and not self._begin():
            return None
        assert self._copy is not None
        try:
            return self._copy.ask(asked)
        except _Died:
            self._copy = None
            raise

    def _begin(self) -> bool:
        if self._alone:
            return False
        if self._alone is None and not _can_fork(self.run.request.device):
            self._alone = True
            return False
        copy = _Copy(self.run)
        if not copy.ready():
            self._alone = True
            return False
        self._alone, self._copy = False, copy
        return True


class _Late(_Died):
    """It had to be ended."""


class _Copy:
    """A forked process that does what it is asked, and the two pipes to it."""

    def __init__(self, run: Session) -> None:
        self.limit = run.request.limit
        there, asked = os.pipe()
        answered, here = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: whether it can compute is tried
            self.pid = os.fork()
        if self.pid == 0:
            os.close(asked)
            os.close(answered)
            _serve(run, there, here)
        os.close(there)
        os.close(here)
        self.asked, self.answered = asked, answered
        self.rest = b""
        self._end = weakref.finalize(self, _end, self.pid, asked, answered)

    def ready(self) -> bool:
        """Whether it can compute."""
        try:
            return self._line(READY) == b"ready"
        except _Died:
            return False

    def ask(self, asked: _Asked) -> _Answer:
        """The answer.

        Raises:
            _Died: it ended, or did not answer within the limit.
        """
        with suppress(BrokenPipeError):
            os.write(self.asked, msgspec.json.encode(asked) + b"\n")
        return msgspec.json.decode(self._line(self.limit), type=_Answer)

    def _line(self, limit: float) -> bytes:
        account = Account(limit + GRACE, self.pid) if limit else None
        while b"\n" not in self.rest:
            left = 0.25 if account is None else account.left()
            if left <= 0:
                assert account is not None
                self._end()
                raise _Late(f"did not answer within {limit:g} s and had to be killed")
            if not select.select([self.answered], [], [], min(left, 0.25))[0]:
                continue
            chunk = os.read(self.answered, 1 << 16)
            if not chunk:
                raise _Died(self._how())
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def _how(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        self._end.detach()
        os.close(self.asked)
        os.close(self.answered)
        if os.WIFSIGNALED(status):
            return f"crashed ({signal.Signals(os.WTERMSIG(status)).name})"
        return f"exited with status {os.WEXITSTATUS(status)}"


def _end(pid: int, *pipes: int) -> None:
    for each in pipes:
        with suppress(OSError):
            os.close(each)
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _serve(run: Session, there: int, here: int) -> NoReturn:
    """The loop of a copy, until nobody asks any more."""
    try:
        torch.set_num_threads(1)
        x = torch.ones(64, 64, requires_grad=True)
        (x @ x).sum().backward()  # type: ignore[no-untyped-call]
        os.write(here, b"ready\n")
        with os.fdopen(there, "rb") as lines:
            for line in lines:
                answer = _answered(run, msgspec.json.decode(line, type=_Asked))
                text = memoryview(msgspec.json.encode(answer) + b"\n")
                while text:
                    text = text[os.write(here, text) :]
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(70)


def _answered(run: Session, asked: _Asked) -> _Answer:
    spec = next(each for each in run.specs if each.name == asked.spec)
    try:
        if asked.slug is None:
            run.smoke(spec)
            return _Answer()
        property_ = next(each for each in run.properties if each.slug == asked.slug)
        return _Answer(result=run.judge(spec, property_))
    except CandidateUnusable as error:
        return _Answer(unusable=str(error))
    except RequestError as error:
        return _Answer(refused=str(error))


def _can_fork(device: str) -> bool:
    """Whether a copy of this process can be expected to compute; macOS has libraries that do not survive it."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return sys.platform == "linux" and device == "cpu" and not used


@contextmanager
def exit_raises() -> Iterator[None]:
    """Inside, `os._exit` raises `SystemExit`: to leave pytest's process so would look like success."""

    def leave(status: int) -> NoReturn:
        raise SystemExit(f"os._exit({status})")

    with patch.object(os, "_exit", leave):
        yield
