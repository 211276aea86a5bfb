"""The parent of the process that runs the candidate. Imports no torch, and nothing of the candidate.

One worker does everything while all goes well. When it dies or does not answer in time, the property under way has
failed, and a new worker goes on with what is left: a candidate can end its process, but not the run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

import msgspec

from holotype_conformance.expected import expect, expectation, mark_stale, stale
from holotype_conformance.limits import Account
from holotype_conformance.records import (
    AnyEvent,
    Broken,
    Collected,
    Counterexample,
    Declaration,
    Done,
    Environment,
    Finished,
    Job,
    Judged,
    Planned,
    Ready,
    Rejected,
    Request,
    Resolved,
    Result,
    Smoke,
    Started,
    Trying,
    Unusable,
)

STARTING = 300.0  # seconds for our own imports, on however slow a disk
GRACE = 5.0  # seconds after the limit within which the worker may still end a property by itself
LEAVING = 10.0  # seconds from the last event to the end of the process
KEPT = 200  # lines of the candidate's output

Key = tuple[str, str]  # (spec, slug)


class RequestRejected(Exception):
    """The request makes no sense; `details` is a traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class CandidateUnrunnable(RequestRejected):
    """The candidate could not be run at all."""


@dataclass
class Record:
    """What a run has said so far."""

    title: str = ""
    environment: Environment | None = None
    plan: list[Planned] = field(default_factory=list)
    suite: int = 0
    results: dict[Key, Result] = field(default_factory=dict)
    declared: dict[str, tuple[Declaration, ...]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    smoked: set[str] = field(default_factory=set)

    @property
    def open(self) -> list[Planned]:
        """What has no result yet."""
        return [
            entry
            for entry in self.plan
            if (entry.spec, entry.property) not in self.results and entry.spec not in self.unusable
        ]

    def of(self, spec: str) -> tuple[Result, ...]:
        """The results of one spec, in reading order; those of an unusable one are errors."""
        return tuple(
            self.results.get((entry.spec, entry.property)) or self._not_run(entry)
            for entry in self.plan
            if entry.spec == spec
        )

    def _not_run(self, entry: Planned) -> Result:
        reason = self.unusable.get(entry.spec, "the process ended before this property")
        return blank(entry, f"could not be run: {reason}", outcome="error")


def blank(entry: Planned, reason: str, **facts: Any) -> Result:
    """A failed result that the worker could not write itself."""
    values: dict[str, Any] = {"outcome": "failed", "seconds": 0.0, **facts}
    return Result(
        property=entry.property,
        level=entry.level,
        clause=entry.clause,
        meaning=entry.meaning,
        reason=reason,
        **values,
    )


def supervise(request: Request, watch: Callable[[AnyEvent, Record], None]) -> Record:
    """Run `request` to its end; `watch` sees every event.

    Raises:
        RequestRejected: it makes no sense.
        CandidateUnrunnable: the candidate's import ended or blocked the process.
    """
    record = Record()
    while True:
        before = len(record.results) + len(record.unusable)
        with _Worker(request, record) as worker:
            complete = worker.run(watch)
        if complete or (record.plan and not record.open):
            break
        if len(record.results) + len(record.unusable) == before:
            break  # no progress: `Record.of` says so of the rest
    _settle_expected(request, record)
    return record


def _settle_expected(request: Request, record: Record) -> None:
    """Entries of the list of expected failures that nothing answered to are errors where they were skipped."""
    ran = [key for key, result in record.results.items() if result.ran]
    unanswered = stale(request.expected, ran)
    for (spec, slug), result in record.results.items():
        record.results[spec, slug] = mark_stale(spec, result, unanswered)


class _Worker:
    """One worker process, and what it is doing."""

    def __init__(self, request: Request, record: Record) -> None:
        self.request = request
        self.record = record
        self.events: Queue[AnyEvent | None] = Queue()
        self.printed: deque[str] = deque(maxlen=KEPT)
        self.account: Account | None = None
        self.doing: Ready | Smoke | Started | None = None
        self.case: dict[str, Any] | None = None
        self.broken: Result | None = None
        self.judged: Result | None = None
        self.late = False
        self.since = time.monotonic()
        self.rejected: Rejected | None = None
        self.done = False

    def __enter__(self) -> _Worker:
        self.scratch = tempfile.TemporaryDirectory(prefix="holotype-")
        environment = os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": self.scratch.name}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "holotype_conformance.worker"],
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
        self._kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.scratch.cleanup()

    def run(self, watch: Callable[[AnyEvent, Record], None]) -> bool:
        """Whether the worker did all that it was told."""
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
        for line in stream:
            try:
                self.events.put(decoder.decode(line))
            except ValueError:
                continue  # cut short by a death, or scribbled by a candidate that guessed the descriptor
        self.events.put(None)

    def _read_printed(self, stream: IO[bytes]) -> None:
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
                    return None
        return None

    def _left(self) -> float:
        return 0.25 if self.account is None else max(0.01, self.account.left())

    def _take(self, event: AnyEvent) -> None:
        record, limit = self.record, self.request.limit
        match event:
            case Ready(environment=environment):
                record.environment = record.environment or environment
                self._begin(event, limit)
            case Resolved(title=title):
                record.title = title
                self._begin(None, STARTING)
            case Collected(plan=plan, environment=environment, suite=suite, declared=declared):
                record.plan = record.plan or list(plan)
                record.suite = suite
                record.environment = environment
                record.declared = declared
            case Smoke():
                self._begin(event, limit)
            case Unusable(spec=spec, reason=reason):
                record.unusable[spec] = reason
                self._begin(None, STARTING)
            case Started(spec=spec):
                record.smoked.add(spec)
                self._begin(event, limit)
            case Trying(case=case):
                self.case = case
            case Broken(result=result):
                self.broken = result
            case Judged(result=result):
                self._begin(self.doing, limit)
                self.judged = result
            case Finished(spec=spec, result=result):
                record.results[spec, result.property] = result
                self._begin(None, STARTING)
            case Rejected():
                self.rejected = event
            case Done():
                self.done = True

    def _begin(self, doing: Ready | Smoke | Started | None, limit: float) -> None:
        self.doing, self.case, self.since = doing, None, time.monotonic()
        self.broken = self.judged = None
        self.account = Account(limit + GRACE, self.process.pid) if limit else None

    # After its death --------------------------------------------------------------------------------------------

    def _mourn(self, watch: Callable[[AnyEvent, Record], None]) -> None:
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

    def _blame(self, started: Started, how: str, watch: Callable[[AnyEvent, Record], None]) -> None:
        spec, slug = started.spec, started.property
        entry = next(
            entry for entry in self.record.plan if (entry.spec, entry.property) == (spec, slug)
        )
        result = self._seen_before(how) or blank(
            entry,
            f"the candidate's process {how} during this property",
            outcome="undecided" if self.late else "failed",
            ended=not self.late,
            seconds=round(time.monotonic() - self.since, 3),
            details=self._output() or None,
            counterexample=Counterexample(
                case=self.case or {}, facts={}, rerun=self.request.rerun(spec, slug, self.case)
            ),
        )
        result = expect(result, expectation(self.request.expected, spec, slug))
        self.record.results[spec, slug] = result
        watch(Finished(spec=spec, result=result), self.record)

    def _seen_before(self, how: str) -> Result | None:
        """The failure that was seen before the process went: only what was looked for after it is lost."""
        if self.judged is not None:
            said = f"the candidate's process {how} during the search for a diagnosis"
            return msgspec.structs.replace(self.judged, undiagnosed=said)
        if self.broken is not None:
            reason = f"{self.broken.reason} (after that its process {how})"
            ended = self.broken.ended or not self.late
            return msgspec.structs.replace(self.broken, reason=reason, ended=ended)
        return None

    def _how(self) -> str:
        """What ended the process, in words that follow "the process"."""
        if self.late:
            assert self.account is not None
            limit = self.account.limit - GRACE
            had = self.account.told()
            return f"did not answer within {limit:g} s and had to be killed{f' ({had})' if had else ''}"
        status = self.process.returncode
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = f"signal {-status}"
            lack = ": killed from outside, as systems do when memory runs out"
            return f"crashed ({name}{lack if name == 'SIGKILL' else ''})"
        return f"exited with status {status}"

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
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
