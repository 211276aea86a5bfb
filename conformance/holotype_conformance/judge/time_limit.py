"""A limit on the time of one property, in seconds of processor time, from inside the process.

A machine with other work gives a candidate less of its processors, and a sound candidate must not be called wrong for
that. So the time is up when the limit has passed on the wall *and* the process, with all that it has started, has used
as much processor time; before that only where it uses next to none (it waits for something that will not come), or
after `PATIENCE` times the limit on the wall.

It interrupts Python code and everything that lets signals through. What it cannot interrupt (a loop in C, a candidate
that blocks signals) is killed from outside by `holotype_conformance.run.supervisor`, by the same account.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from weakref import ref

from holotype_conformance.judge.processes import processor_time

PATIENCE = 20  # times the limit that may pass on the wall
IDLE = 0.005  # the share of a processor below which a process is taken to wait
LONGEST = 1e6  # seconds; eleven days
LARGEST_SEED = 2**32 - 1  # what every generator of random numbers takes


class TimedOut(BaseException):
    """The time is up. Not an `Exception`, so that neither the candidate nor Hypothesis takes it for a failure.

    The message says how much time was had, in words that follow "no end within 60 s".
    """


class Account:
    """The time that a process has had, and whether that was enough.

    Args:
        limit: seconds of processor time.
        pid: the process; its descendants count with it.
        clock: seconds on the wall.
        used: processor time of a process so far, None where that cannot be told: then the wall decides.
    """

    def __init__(
        self,
        limit: float,
        pid: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[int], float | None] = processor_time,
    ) -> None:
        self.limit = limit
        self.pid = pid
        self.clock = clock
        self.used = used
        self.began = self.looked = clock()
        self.at_first = used(pid)
        self.had = self.idle = self.asked = 0.0
        self.waits = False

    @property
    def passed(self) -> float:
        """Seconds on the wall."""
        return self.clock() - self.began

    def left(self) -> float:
        """Seconds after which to ask again; 0 when the time is up."""
        if (early := self.limit - self.passed) > 0:
            return early
        now = self.used(self.pid)
        if now is None or self.at_first is None:
            return 0.0
        had = max(self.had, now - self.at_first)  # what a killed child has used is forgotten
        self._note_idleness(had)
        if self.had >= self.limit or self.waits or self.passed >= PATIENCE * self.limit:
            return 0.0
        self.asked = min(max(self.limit - self.had, 0.05), self.window / 4)
        return self.asked

    @property
    def window(self) -> float:
        """Seconds of waiting after which nothing more is expected."""
        return min(max(self.limit / 2, 1.0), 30.0)

    def _note_idleness(self, had: float) -> None:
        """A look that comes much later than was asked for was kept from its processor itself: it proves nothing."""
        since = self.clock() - self.looked
        works = had - self.had >= IDLE * since
        self.idle = 0.0 if works else self.idle + min(since, 1.5 * self.asked)
        self.waits = self.idle >= self.window
        self.looked, self.had = self.clock(), had

    def told(self) -> str:
        """The time that it has had, in words that follow "no end within 60 s"."""
        if self.at_first is None or (now := self.used(self.pid)) is None:
            return ""
        had = max(self.had, now - self.at_first)
        said = f"it had {had:.3g} s of processor time in {self.passed:.3g} s"
        return f"{said}, and waited" if self.waits else said


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimedOut` in the body once it has had `seconds` of processor time (see above); 0 for no limit.

    Only the main thread of a platform with alarms can be interrupted; elsewhere this does nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    if seconds <= 0 or not main or not hasattr(signal, "SIGALRM"):
        yield
        return
    account = Account(seconds, os.getpid())

    def look(_signal: int, _frame: FrameType | None) -> None:
        left = account.left()
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, left)
            return
        raise time_up(account.told())

    handler = signal.signal(signal.SIGALRM, look)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


_RAISED: list[ref[TimedOut]] = []  # the last one that was raised here


def time_up(told: str = "") -> TimedOut:
    """The end of a limit, known from one that a candidate raises; `told` says how much time was had."""
    error = TimedOut(told)
    _RAISED[:] = [ref(error)]
    return error


def is_time_up(error: BaseException) -> bool:
    """Whether it was raised by a limit, and not by a candidate that imports `TimedOut`."""
    return any(raised() is error for raised in _RAISED)


# What may be asked for ------------------------------------------------------------------------------------------


def bad_limit(seconds: float) -> str | None:
    """Why a limit cannot be used, or None."""
    if math.isfinite(seconds) and 0 <= seconds <= LONGEST:
        return None
    return (
        f"a limit of {seconds} s: expected 0, for none, or up to {LONGEST:,.0f} s of processor time"
    )


def bad_seed(seed: int) -> str | None:
    """Why a seed cannot be used, or None."""
    if 0 <= seed <= LARGEST_SEED:
        return None
    return f"a seed of {seed}: expected a whole number from 0 to {LARGEST_SEED:,}"
