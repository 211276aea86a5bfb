"""The process that runs the code under test, seen from the one that decides. No torch here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import IO, Self

import msgspec

from holotype_conformance.bench.protocol import Answer, AnyAnswer, AnyAsk, Open
from holotype_conformance.bench.side import Late, Unrunnable
from holotype_conformance.judge import processes
from holotype_conformance.judge.time_limit import Account
from holotype_conformance.run.orphans import Orphans

TIMEOUT = 600.0  # seconds of processor time for an answer
OPENING = (30.0, 300.0)  # the same for our own imports and the target's: at least, and at most
KEPT = 4000  # characters of what the code under test printed, told where it died
LONGEST = 1 << 24  # bytes of an answer


class Process:
    """A worker process.

    Args:
        paths: folders that come first when it imports.
        folder: where it runs; by default here.
        timeout: seconds of processor time for an answer; 0 for no limit.
        orphans: finds what it has started and left, to be ended with it.
    """

    def __init__(
        self,
        paths: Sequence[Path] = (),
        folder: Path | None = None,
        *,
        timeout: float = TIMEOUT,
        orphans: Orphans | None = None,
    ) -> None:
        before = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join([*map(str, paths), *([before] if before else [])])
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
        self.timeout = timeout
        self.orphans = orphans
        self.printed: deque[str] = deque(maxlen=KEPT)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "holotype_conformance.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | threads,
            cwd=folder,
            start_new_session=True,  # an interrupt is for the parent, and a kill for all that it has started
        )
        if orphans is not None:
            orphans.known.add(self.process.pid)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.streams: tuple[IO[bytes], ...] = (
            self.process.stdin,
            self.process.stdout,
            self.process.stderr,
        )
        self.lines: Queue[bytes | None] = Queue()
        self.decoder: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
        Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        self.printing = Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self.printing.start()

    def _read(self, stream: IO[bytes]) -> None:
        while line := stream.readline(LONGEST):
            self.lines.put(line)
        self.lines.put(None)

    def _listen(self, stream: IO[bytes]) -> None:
        while chunk := stream.read1(65536):  # type: ignore[attr-defined]
            self.printed.extend(chunk.decode("utf-8", "replace")[-KEPT:])

    def processor_time(self) -> float | None:
        """Seconds of processor time, by the system: of all threads to the nanosecond (clock_getcpuclockid(3)), and of
        what it has started to the hundredth."""
        if sys.platform != "linux":
            return None
        try:
            own = time.clock_gettime((~self.process.pid << 3) | 2)
        except OSError:
            return None
        return own + sum(each.seconds for each in processes.descendants(self.process.pid))

    def answer(self, ask: AnyAsk) -> Answer:
        """The process' answer.

        Raises:
            Unrunnable: it died, or what it said was no answer.
            Late: it did not answer in time.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(ask) + b"\n")
            self.process.stdin.flush()
            line = self._line(ask)
        except BrokenPipeError:
            line = None
        if line is None:
            code = self.process.wait()
            raise Unrunnable(f"its process ended with {_ending(code)}", self._said())
        try:
            return self.decoder.decode(line)
        except msgspec.MsgspecError as error:
            self.end()
            raise Unrunnable(
                "its process wrote what is no answer of ours: the code under test has found the way to us",
                self._said(),
            ) from error

    def _line(self, ask: AnyAsk) -> bytes | None:
        limit = self.timeout
        if limit and isinstance(ask, Open):
            limit = max(OPENING[0], min(limit, OPENING[1]))
        account = Account(limit, self.process.pid) if limit else None
        while True:
            left = 1.0 if account is None else account.left()
            if account is not None and left <= 0:
                told = account.told()
                self.end()
                raise Late(
                    f"no answer within {limit:g} s{f' ({told})' if told else ''}", self._said()
                )
            with suppress(Empty):
                return self.lines.get(timeout=min(left, 1.0))

    def _said(self) -> str:
        self.printing.join(timeout=1.0)
        return "".join(self.printed).strip()

    def end(self) -> None:
        """End it, with all that it has started."""
        with suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()
        if self.orphans is not None:
            self.orphans.end(self.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
        for stream in self.streams:
            with suppress(BrokenPipeError):
                stream.close()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
