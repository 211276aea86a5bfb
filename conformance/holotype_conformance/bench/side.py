"""One side of a benchmark, seen from the process that decides: it is asked, and answers. No torch here."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import msgspec

from holotype_conformance.bench.protocol import (
    PROTOCOL,
    Answer,
    AnyAnswer,
    AnyAsk,
    Open,
    Opened,
    Refused,
    Role,
    Sample,
    Sampled,
)

STARTING = 300.0  # seconds for our own imports and the target's
PATIENCE = 600.0  # seconds for any other answer
KEPT = 4000  # characters of what the code under test printed, told where it died

A = TypeVar("A", bound=Answer)


class BenchError(Exception):
    """A side that cannot be benchmarked; `details` is a traceback or what it printed."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class BadRequest(BenchError):
    """What was asked for makes no sense."""


class Unrunnable(BenchError):
    """The code under test could not be run at all."""


class Wrong(BenchError):
    """It runs, and what it computes is wrong."""


class Broken(RuntimeError):
    """A mistake of ours."""


_ERRORS: dict[str, Callable[[str, str], Exception]] = {
    "bad-input": BadRequest,
    "unrunnable": Unrunnable,
    "wrong": Wrong,
    "broken": Broken,
}


class Answering(Protocol):
    """Whatever answers one line with one line."""

    def answer(self, ask: AnyAsk) -> Answer: ...


class Side:
    """One side.

    Args:
        start: gives what answers, a `Process` or a `holotype_conformance.bench.bench.Server` in this one; called
            again where it died.
        target: what it opens.

    Raises:
        BenchError: it cannot be opened.
    """

    def __init__(self, start: Callable[[], Answering], target: Open) -> None:
        self.start = start
        self.target = target
        self.open()

    def open(self) -> None:
        """Start, or start again after a death.

        Raises:
            BenchError: it cannot be opened.
        """
        self.server = self.start()
        self.opened = self.ask(self.target, Opened)
        if self.opened.protocol != PROTOCOL:
            raise BadRequest(
                f"that version of holotype speaks protocol {self.opened.protocol} of benchmarks, this one"
                f" {PROTOCOL}: they cannot be compared"
            )

    def ask(self, ask: AnyAsk, expected: type[A]) -> A:
        """The answer.

        Raises:
            BenchError: it did not work.
        """
        answer = self.server.answer(ask)
        if isinstance(answer, Refused):
            raise _ERRORS[answer.kind](answer.message, answer.details)
        assert isinstance(answer, expected), f"{ask} was answered by {answer}"
        return answer

    def sample(self, role: Role, calls: int, number: int) -> float:
        """Seconds of a sample."""
        return self.ask(Sample(role=role, calls=calls, number=number), Sampled).seconds


class Process:
    """A worker process.

    Args:
        paths: folders that come first when it imports.
        folder: where it runs; by default here.
    """

    def __init__(self, paths: Sequence[Path] = (), folder: Path | None = None) -> None:
        before = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join([*map(str, paths), *([before] if before else [])])
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
        self.printed = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "holotype_conformance.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.printed,
            env=os.environ | threads,
            cwd=folder,
            start_new_session=True,  # an interrupt is for the parent
        )
        self.lines: Queue[bytes | None] = Queue()
        self.decoder: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def answer(self, ask: AnyAsk) -> Answer:
        """The process' answer.

        Raises:
            Unrunnable: it died, or did not answer in time.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(ask) + b"\n")
            self.process.stdin.flush()
            line = self.lines.get(timeout=STARTING if isinstance(ask, Open) else PATIENCE)
        except BrokenPipeError:
            line = None
        except Empty:
            raise Unrunnable(f"no answer within {PATIENCE:g} s", self._said()) from None
        if line is None:
            code = self.process.wait()
            raise Unrunnable(f"its process ended with {_ending(code)}", self._said())
        return self.decoder.decode(line)

    def _said(self) -> str:
        self.printed.seek(0)
        return self.printed.read()[-KEPT:].decode("utf-8", "replace").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.printed):
            if stream is not None:
                _close(stream)


def _close(stream: Any) -> None:
    with suppress(BrokenPipeError):
        stream.close()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
