"""Results, kept as they come: a file of JSON lines from which a report can be drawn, whatever ended the run.

Its first line says what was asked for, and each further one is an event (see `records`). It stands beside the first
output that was asked for, under that name with ``.partial``, until all outputs are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from holotype_conformance.judge.records import (
    AnyEvent,
    Collected,
    Event,
    Finished,
    Left,
    Ready,
    Report,
    Request,
    Resolved,
    Started,
    Stopped,
    Unusable,
)
from holotype_conformance.judge.verdict import reported
from holotype_conformance.run.run_record import Record
from holotype_spec.reading import MEGABYTE, Unreadable, read_bytes, shown

LARGEST = 500 * MEGABYTE  # of a report or a journal
_KEPT = (Ready, Resolved, Collected, Started, Finished, Unusable, Left, Stopped)


class Begun(Event, frozen=True, tag="begun"):
    """The head of a journal: the request, and by spec the exact number of parameters where there is one."""

    holotype: str
    request: Request
    parameters: dict[str, int | None]


class Ended(Event, frozen=True, tag="ended"):
    """The last line of a journal whose run came to its end."""


class Journal:
    """Writes one; into nothing without a path, or where that cannot be written."""

    def __init__(self, path: Path | None, begun: Begun) -> None:
        self.path = path
        self._file: int | None = None
        self._waiting: list[bytes] = [_line(begun)]  # until there is a result to keep

    def watch(self, event: AnyEvent, _record: Record) -> None:
        """Keep an event."""
        if self.path is None or not isinstance(event, _KEPT):
            return
        self._waiting.append(_line(event))
        if isinstance(event, (Finished, Unusable, Stopped)) or self._file is not None:
            self._write()

    def _write(self) -> None:
        assert self.path is not None
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                self._file = os.open(self.path, flags, 0o666)
            rest = memoryview(b"".join(self._waiting))
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._waiting.clear()
        except OSError:
            self.path = (
                None  # the outputs themselves will say that there is no room, or no permission
            )

    def end(self) -> None:
        """The run has come to its end."""
        if self._file is not None and self.path is not None:
            self._waiting.append(_line(Ended()))
            self._write()

    def remove(self) -> None:
        """All is written elsewhere."""
        if self._file is not None and self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    def close(self) -> None:
        """No more comes."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def journal(path: Path | None, begun: Begun) -> Iterator[Journal]:
    """A journal that is closed in the end, and stays where it is unless it was removed."""
    kept = Journal(path, begun)
    try:
        yield kept
    finally:
        kept.close()


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


# Reports from what was kept ---------------------------------------------------------------------------------------


def reports_of(begun: Begun, record: Record, *, complete: bool = True) -> list[Report]:
    """One report a spec, in the order in which they were asked for."""
    request = begun.request
    return [
        reported(
            request,
            record.of(spec, complete=complete),
            spec=spec,
            parameters=begun.parameters.get(spec),
            unusable=record.unusable.get(spec),
            suite=record.suite,
            holotype=begun.holotype,
            candidate=record.title or request.target,
            environment=record.environment,
            declared=record.declared.get(spec, ()),
            interrupted=record.interruption if complete else "the end of its process",
            left=tuple(record.left),
        )
        for spec in request.specs
    ]


def read_reports(path: str) -> list[Report]:
    """The reports in a file that ``--json`` wrote, or that can be drawn from a journal.

    Raises:
        Unreadable: it is neither.
    """
    content = read_bytes(path, most=LARGEST)
    first, _, rest = content.partition(b"\n")
    try:
        if first.startswith(b'{"event":"begun"'):
            return _from_journal(msgspec.json.decode(first, type=Begun), rest)
        found = msgspec.json.decode(content, type=Report | list[Report])
    except RecursionError as error:
        raise Unreadable(f"{shown(path)} is nested too deeply to be read") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(
            f"{shown(path)} is no report of this version of holotype ({error}): expected what"
            " `check --json FILE` wrote, or a FILE.partial that a run left behind"
        ) from error
    if not found:
        raise Unreadable(f"{shown(path)} holds no report")
    return found if isinstance(found, list) else [found]


def _from_journal(begun: Begun, lines: bytes) -> list[Report]:
    record = Record()
    decoder = msgspec.json.Decoder(AnyEvent | Ended)
    complete = False
    for line in lines.splitlines():
        try:
            event = decoder.decode(line)
        except msgspec.DecodeError:
            continue  # cut short, in the last line
        if isinstance(event, Ended):
            complete = True
        else:
            record.take(event)
    if complete and record.stopped is None:
        record.settle(begun.request.expected)
    return reports_of(begun, record, complete=complete or record.stopped is not None)
