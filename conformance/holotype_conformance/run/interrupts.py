"""Signals by which a run is ended before its time, taken as what they are: a reason to tidy up and to report.

The first one raises `Interrupted` in the main thread, so that the worker is ended, temporary folders go and what was
judged is written; those that follow change nothing. A signal that whoever started us has us ignore (`nohup`) stays
ignored.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(BaseException):
    """The run is to end now; `signal` is the number of what said so."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


class Interrupts:
    """Whether one has come, and whether it has to wait."""

    def __init__(self) -> None:
        self._came: int | None = None
        self._told = False
        self._held = 0

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """As a handler of signals."""
        self._came = self._came or number
        self._tell()

    def _tell(self) -> None:
        if self._came is None or self._told or self._held:
            return
        self._told = True
        raise Interrupted(self._came)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Interrupts that come inside are raised at its end: tidying up is not to be interrupted."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._tell()


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """While active, the signals above raise `Interrupted`; only in the main thread, to which they come."""
    found = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before: dict[int, Any] = {}
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, found.handle)
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
