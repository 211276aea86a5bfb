"""The parent of the process that runs the candidate. Imports no torch, and nothing of the candidate.

One worker does everything while all goes well. When it dies or does not answer in time, the property under way has
failed, and a new worker goes on with what is left: a candidate can end its process, but not the run.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hmac import compare_digest
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

import msgspec

from holotype_conformance.judge.expected_failures import expect, expectation
from holotype_conformance.judge.records import (
    AnyEvent,
    Broken,
    Counterexample,
    Done,
    Finished,
    Job,
    Judged,
    Left,
    Ready,
    Rejected,
    Request,
    Resolved,
    Result,
    Smoke,
    Started,
    Stopped,
    Trying,
    Unusable,
    signed,
)
from holotype_conformance.judge.time_limit import Account
from holotype_conformance.run.interrupts import Interrupted, Interrupts, interrupts
from holotype_conformance.run.orphans import Orphans, adopted
from holotype_conformance.run.run_record import Record as Record
from holotype_conformance.run.run_record import blank

STARTING = 300.0  # seconds for our own imports, on however slow a disk
GRACE = 5.0  # seconds after the limit within which the worker may still end a property by itself
LEAVING = 10.0  # seconds from the last event to the end of the process
_OUT_OF_TIME = tuple(
    -getattr(signal, name) for name in ("SIGALRM", "SIGXCPU") if hasattr(signal, name)
)
CUT_OFF = 70  # the status of a worker that cannot say what it found
KEPT = 200  # lines of the candidate's output

Watch = Callable[[AnyEvent, Record], None]


class RequestRejected(Exception):
    """The request makes no sense; `details` is a traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class CandidateUnrunnable(RequestRejected):
    """The candidate could not be run at all."""


def supervise(request: Request, watch: Watch) -> Record:
    """Run `request` to its end; `watch` sees every event.

    Raises:
        RequestRejected: it makes no sense.
        CandidateUnrunnable: the candidate's import ended or blocked the process.
    """
    record = Record()
    with adopted() as orphans, interrupts() as signals:
        try:
            _work_off(request, record, watch, _Surroundings(orphans, signals))
        except Interrupted as stop:
            record.take(stopped := Stopped(signal=stop.signal))
            watch(stopped, record)
            return record
    record.settle(request.expected)
    return record


@dataclass(frozen=True)
class _Surroundings:
    """The means by which a worker is tidied up."""

    orphans: Orphans
    signals: Interrupts


def _work_off(request: Request, record: Record, watch: Watch, surroundings: _Surroundings) -> None:
    """One worker after the other, until nothing is open or nothing gets done."""
    while True:
        before = len(record.results) + len(record.unusable)
        with _Worker(request, record, surroundings) as worker:
            complete = worker.run(watch)
        if worker.left:
            record.take(left := Left(processes=tuple(worker.left)))
            watch(left, record)
        if complete or (record.plan and not record.open):
            return
        if len(record.results) + len(record.unusable) == before:
            return  # no progress: `Record.of` says so of the rest


def ending(status: int) -> str:
    """The end of a process, by the status that `subprocess` gives, in words that follow "the process"."""
    if status >= 0:
        shells = _signal_name(status - 128) if status > 128 else None
        told = f", as a shell tells of one that {shells} ended" if shells else ""
        if status == CUT_OFF:
            told = ", as ours does when its way to us is cut: what the candidate closes is its own affair alone"
        return f"exited with status {status}{told}"
    name = _signal_name(-status) or f"signal {-status}"
    whys = {
        "SIGKILL": "killed from outside, as systems do when memory runs out",
        "SIGABRT": "it gave up by itself, as C++ does of an exception that nobody catches",
        "SIGILL": "an instruction that this processor does not have",
        "SIGALRM": "the alarm of its limit, for which it had taken our handler away",
        "SIGXCPU": "the system's limit of processor time",
    }
    return f"crashed ({': '.join([name, *([whys[name]] if name in whys else [])])})"


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


class _Worker:
    """One worker process, and what it is doing."""

    def __init__(self, request: Request, record: Record, surroundings: _Surroundings) -> None:
        self.request = request
        self.surroundings = surroundings
        self.left: list[str] = []  # running when it was ended
        self.record = record
        self.key = secrets.token_hex(32)
        self.events: Queue[AnyEvent | None] = Queue()
        self.printed: deque[str] = deque(maxlen=KEPT)
        self.account: Account | None = None
        self.doing: Ready | Smoke | Started | None = None
        self.case: dict[str, Any] | None = None
        self.broken: Result | None = None
        self.judged: Result | None = None
        self.late = False
        self.had = ""  # in words, when it was late: of a dead process nobody can tell
        self.since = time.monotonic()
        self.rejected: Rejected | None = None
        self.done = False

    def __enter__(self) -> _Worker:
        self.scratch = tempfile.TemporaryDirectory(prefix="holotype-")
        environment = os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": self.scratch.name}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "holotype_conformance.run.worker", self.request.kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # an interrupt is for the parent, and a kill for all of the candidate's children
        )
        Thread(target=self._read_events, args=(self.process.stdout,), daemon=True).start()
        self.printing = Thread(target=self._read_printed, args=(self.process.stderr,), daemon=True)
        self.printing.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.surroundings.signals.held():
            self._kill()
            if self.process.stdin is not None:
                self.process.stdin.close()
            self.scratch.cleanup()

    def run(self, watch: Watch) -> bool:
        """Whether the worker did all that it was asked for."""
        self._begin(None, STARTING)
        self._send_job()
        while (event := self._next()) is not None:
            self._take(event)
            watch(event, self.record)
        if self.done and self.rejected is None:
            return True
        self._mourn(watch)
        return False

    def _send_job(self) -> None:
        job = Job(
            request=self.request,
            finished=tuple(self.record.results)
            + tuple(
                (entry.spec, entry.property)
                for entry in self.record.plan
                if entry.spec in self.record.unusable
            ),
            smoked=tuple(self.record.smoked),
            key=self.key,
        )
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(job) + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead already, which is noticed soon

    # Listening --------------------------------------------------------------------------------------------------

    def _read_events(self, stream: IO[bytes]) -> None:
        decoder = msgspec.json.Decoder(AnyEvent)
        number, key = 1, self.key.encode()
        with stream:
            for written in stream:
                line = written.rstrip(b"\n").partition(b" ")[2]
                if not compare_digest(written.rstrip(b"\n"), signed(key, number, line)):
                    continue  # cut short by a death, or not the worker's: a candidate may find the way to us
                number += 1
                self.events.put(decoder.decode(line))
        self.events.put(None)

    def _read_printed(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := stream.read1(65536):  # type: ignore[attr-defined]
                self.printed.extend(chunk.decode(errors="replace")[-20_000:].splitlines()[-KEPT:])

    def _next(self) -> AnyEvent | None:
        """The next event; None when the worker is dead, was killed for being late, or is done."""
        while not self.done:
            dead = self.process.poll() is not None
            try:
                return self.events.get(timeout=0.2 if dead else min(0.25, self._left()))
            except Empty:
                if dead:
                    return None
                if self._left() <= 0.01:
                    self.late = True
                    self.had = self.account.told() if self.account else ""
                    return None
        return None

    def _left(self) -> float:
        return 0.25 if self.account is None else max(0.01, self.account.left())

    def _take(self, event: AnyEvent) -> None:
        limit = self.request.limit
        self.record.take(event)
        match event:
            case Ready() | Smoke() | Started():
                self._begin(event, limit)
            case Resolved() | Unusable() | Finished():
                self._begin(None, STARTING)
            case Trying(case=case):
                self.case = case
            case Broken(result=result):
                self.broken = result
            case Judged(result=result):
                self._begin(self.doing, limit)
                self.judged = result
            case Rejected():
                self.rejected = event
            case Done():
                self.done = True

    def _begin(self, doing: Ready | Smoke | Started | None, limit: float) -> None:
        self.doing, self.case, self.since = doing, None, time.monotonic()
        self.broken = self.judged = None
        self.account = Account(limit + GRACE, self.process.pid) if limit else None

    # After its death --------------------------------------------------------------------------------------------

    def _mourn(self, watch: Watch) -> None:
        if not self.late:
            self._wait()
        self._kill()
        if self.rejected is not None and (not self.record.plan or self.request.case is not None):
            kind = CandidateUnrunnable if self.rejected.unrunnable else RequestRejected
            raise kind(self.rejected.message, self.rejected.details)
        how = self._how()
        match self.doing:
            case Started() as started:
                self._blame(started, how, watch)
            case Smoke(spec=spec):
                reason = f"its process {how} while one small model was built and run"
                self.record.unusable[spec] = reason
                watch(Unusable(spec=spec, reason=reason), self.record)
                self._require_plan(reason)
            case Ready():
                raise CandidateUnrunnable(
                    f"its process {how} while it was imported",
                    self._output(),
                )
            case None:
                imported = self.record.environment is not None
                before = "anything was judged" if imported else "the target was imported"
                self._require_plan(f"the process that runs the candidate {how}, before {before}")

    def _require_plan(self, reason: str) -> None:
        if not self.record.plan:
            raise CandidateUnrunnable(reason, self._output())

    def _blame(self, started: Started, how: str, watch: Watch) -> None:
        spec, slug = started.spec, started.property
        entry = next(
            entry for entry in self.record.plan if (entry.spec, entry.property) == (spec, slug)
        )
        result = self._seen_before(how) or blank(
            entry,
            f"the candidate's process {how} during this property",
            outcome="undecided" if self._out_of_time else "failed",
            ended=not self._out_of_time,
            seconds=round(time.monotonic() - self.since, 3),
            details=self._output() or None,
            counterexample=Counterexample(
                case=self.case or {}, facts={}, rerun=self.request.rerun(spec, slug, self.case)
            ),
        )
        result = expect(result, expectation(self.request.expected, spec, slug))
        self.record.results[spec, slug] = result
        watch(Finished(spec=spec, result=result), self.record)

    @property
    def _out_of_time(self) -> bool:
        """Whether it was ended for its time, by us or by the alarm that was set for it."""
        return self.late or self.process.returncode in _OUT_OF_TIME

    def _seen_before(self, how: str) -> Result | None:
        """The failure that was seen before the process went: only what was looked for after it is lost."""
        if self.judged is not None:
            said = f"the candidate's process {how} during the search for a diagnosis"
            return msgspec.structs.replace(self.judged, undiagnosed=said)
        if self.broken is not None:
            reason = f"{self.broken.reason} (after that its process {how})"
            ended = self.broken.ended or not self._out_of_time
            return msgspec.structs.replace(self.broken, reason=reason, ended=ended)
        return None

    def _how(self) -> str:
        """The cause of the end of the process, in words that follow "the process"."""
        if self.late:
            assert self.account is not None
            limit = self.account.limit - GRACE
            told = f" ({self.had})" if self.had else ""
            return f"did not answer within {limit:g} s and had to be killed{told}"
        return ending(self.process.returncode)

    def _output(self) -> str:
        """The last lines that the candidate, or Python on its behalf, printed."""
        self.printing.join(timeout=1.0)
        return "\n".join(self.printed)

    def _wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVING)

    def _kill(self) -> None:
        """End the worker and everything that it has started."""
        if self.done:
            self._wait()
        orphans = self.surroundings.orphans
        self.left += [name for name in orphans.outside(self.process.pid) if name not in self.left]
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        orphans.end(self.process.pid)
