"""Processes that outlive the one that started them: made ours, found, named and ended.

A process that forks twice and takes a session of its own is out of reach of its group's signals, and its parent is the
system. On Linux we ask to be that parent in its stead (prctl(2), PR_SET_CHILD_SUBREAPER). Elsewhere such a process
cannot be found and is left.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holotype_conformance.judge import processes

_SET, _GET = 36, 37  # PR_SET_CHILD_SUBREAPER and PR_GET_CHILD_SUBREAPER
_ROUNDS = 100  # of waiting for the last to go, 10 ms each
# Helpers that torch starts for itself and that end by themselves.
_KNOWN = ("torch/_inductor/compile_worker", "multiprocessing.resource_tracker")


class Orphans:
    """The children that we have not started ourselves.

    Args:
        known: process numbers that are no orphans.
    """

    def __init__(self, known: set[int]) -> None:
        self.known = known

    def outside(self, worker: int) -> list[str]:
        """Processes that have left the group of a worker and still run, by the command that each was started with."""
        everyone = [*processes.descendants(worker), *self._found(worker)]
        named = [
            processes.command_of(each.pid)
            for each in everyone
            if each.group != worker and each.runs
        ]
        return [name for name in named if not any(word in name for word in _KNOWN)]

    def end(self, worker: int) -> None:
        """Kill and bury everything that came from a worker, now that it has ended itself."""
        for _ in range(_ROUNDS):
            found = self._found(worker)
            if not found:
                return
            for each in found:
                _kill(each.pid)
            time.sleep(0.01)

    def _found(self, worker: int) -> list[processes.Process]:
        """The orphans and all that descends from them."""
        children = [
            each
            for each in processes.children_of(os.getpid())
            if each.pid not in self.known and each.pid != worker
        ]
        return [
            *children,
            *(below for each in children for below in processes.descendants(each.pid)),
        ]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@contextmanager
def adopted() -> Iterator[Orphans]:
    """While active, orphaned descendants become children of this process, where the system can do that."""
    known = {each.pid for each in processes.children_of(os.getpid())}
    before = _subreaper()
    if before is not None:
        _prctl(_SET, 1)
    try:
        yield Orphans(known)
    finally:
        if before is not None:
            _prctl(_SET, before)


def _subreaper() -> int | None:
    """Whether we are one already; None where there is no such thing."""
    found = ctypes.c_int(0)
    if not sys.platform.startswith("linux") or _prctl(_GET, ctypes.byref(found)) != 0:
        return None
    return found.value


def _prctl(option: int, value: object) -> int:
    try:
        result: int = ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        return -1
    return result
