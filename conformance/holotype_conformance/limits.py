"""A limit on the time of one property, from inside the process.

It interrupts Python code and everything that lets signals through. What it cannot interrupt (a loop in C, a candidate
that blocks signals) is killed from outside by `holotype_conformance.supervisor`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimedOut(BaseException):
    """The time is up. Not an `Exception`, so that neither the candidate nor Hypothesis takes it for a failure."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimedOut` in the body once `seconds` of wall-clock time have passed; 0 for no limit.

    Only the main thread of a platform with alarms can be interrupted; elsewhere this does nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    if seconds <= 0 or not main or not hasattr(signal, "SIGALRM"):
        yield
        return

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimedOut(f"no end after {seconds:g} s")

    handler = signal.signal(signal.SIGALRM, expire)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)
