"""Other processes, as Linux tells of them: who descends from whom, what each has used and what it is called.

Elsewhere there is no `/proc`; what cannot be told is None or nothing, and whoever asks does without.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_NAME = 200  # characters of a command line that are kept


@dataclass(frozen=True)
class Process:
    """One process at one moment.

    Attributes:
        pid: its number.
        parent: the number of its parent.
        group: its process group.
        seconds: processor time of its own and of the children that it has waited for.
        runs: whether it still does; one that has ended and that nobody has asked for does not.
    """

    pid: int
    parent: int
    group: int
    seconds: float
    runs: bool = True


def processor_time(pid: int) -> float | None:
    """Seconds of processor time that a process and all that descends from it have used so far.

    Compilers work in children that live on: they count while they run, too. None where that cannot be told.
    """
    process = of(pid)
    if process is None:
        return _own() if pid == os.getpid() else None
    return process.seconds + sum(each.seconds for each in descendants(pid))


def descendants(pid: int) -> list[Process]:
    """The children of a process, their children, and so on; nothing where that cannot be told."""
    found = children_of(pid)
    for process in found:  # grows on the way
        found += children_of(process.pid)
    return found


def children_of(pid: int) -> list[Process]:
    """The direct children of a process."""
    numbers = _listed_children(pid)
    found = [of(number) for number in (_numbers() if numbers is None else numbers)]
    return [process for process in found if process is not None and process.parent == pid]


def of(pid: int) -> Process | None:
    """One process, from proc(5), /proc/pid/stat; its name, in brackets, may hold anything."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        ticks = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
        seconds = ticks / os.sysconf("SC_CLK_TCK")
        return Process(pid, int(fields[1]), int(fields[2]), seconds, fields[0] not in "ZX")
    except (OSError, ValueError, IndexError):  # it has ended, or this is no Linux
        return None


def command_of(pid: int) -> str:
    """The command that started a process, for a reader; its number alone where that cannot be told."""
    try:
        with (PROC / str(pid) / "cmdline").open("rb") as file:
            words = file.read(4 * _NAME).split(b"\0")
    except OSError:
        words = []
    line = b" ".join(words).decode(errors="replace").strip()
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    shown = line if len(line) <= _NAME else line[: _NAME - 1] + "…"
    return f"{shown} (process {pid})" if shown else f"process {pid}"


def _listed_children(pid: int) -> list[int] | None:
    """As the system lists them for each thread; None where it was built to list none."""
    tasks = PROC / str(pid) / "task"
    found: list[int] = []
    try:
        for thread in os.listdir(tasks):
            found += map(int, (tasks / thread / "children").read_text().split())
    except FileNotFoundError:
        return None if (tasks / str(pid)).is_dir() else []
    except (OSError, ValueError):
        return []
    return found


def _numbers() -> list[int]:
    try:
        return [int(name) for name in os.listdir(PROC) if name.isdecimal()]
    except OSError:
        return []


def _own() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
