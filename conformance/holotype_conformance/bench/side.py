"""One side of a benchmark, seen from the process that decides: it is asked, and answers. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from holotype_conformance.bench.protocol import (
    PROTOCOL,
    Answer,
    AnyAsk,
    Draw,
    Drawn,
    Go,
    Open,
    Opened,
    Refused,
    Role,
    Sampled,
)

A = TypeVar("A", bound=Answer)


class BenchError(Exception):
    """A side that cannot be benchmarked; `details` is a traceback or what it printed."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class BadRequest(BenchError):
    """A request that makes no sense."""


class Unrunnable(BenchError):
    """The code under test could not be run at all."""


class Late(BenchError):
    """It did not answer in time: nothing is known of it."""


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

    def processor_time(self) -> float | None:
        """Seconds of processor time that it has used so far, by the system; None where the system does not tell."""


class Side:
    """One side.

    Args:
        start: gives what answers, a `holotype_conformance.bench.process.Process` or a
            `holotype_conformance.bench.server.Server` in this one; called again where it died.
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
        """Seconds of a sample: processor time, which this process reads and not the one that runs the code under test.

        What passes between the two readings besides is the sending of two lines, about 0.1 ms. A GPU has its own clock.
        """
        self.ask(Draw(role=role, calls=calls, number=number), Drawn)
        before = self.server.processor_time()
        sampled = self.ask(Go(), Sampled)
        after = self.server.processor_time()
        if before is None or after is None or self.target.device.startswith("cuda"):
            return sampled.seconds
        return max(after - before, 1e-9)
