"""Files that a user names, read within bounds: what is no file, or larger than any real one, is refused in words.

`/dev/zero` has no end and a pipe without a writer has no beginning; neither may hang a command. A text that is nested
without end is refused as well, and not met with a traceback.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
DEEPEST = 60  # levels of tables and lists in each other
ENTRIES = 20_000  # keys and values, as read; a spec has some hundreds
LONGEST = 100_000  # characters of one text
_PARTS = re.compile(r"\.(?!\d)")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class Unreadable(ValueError):
    """A file that cannot be read, or not as what it should be; the message says why and what was expected."""


def read_bytes(path: str | Path, *, most: int = MEGABYTE) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        Unreadable: there is none, it is something else, or it is larger.
    """
    name = str(path)
    try:
        refuse_what_is_no_file(name)
        descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            refuse_what_is_no_file(name, found)
            content = file.read(most + 1) if found.st_size <= most else None
    except OSError as error:
        raise Unreadable(f"{shown(name)} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a null character, or ours
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{shown(name)} cannot be read: {error}") from error
    if content is None or len(content) > most:
        raise Unreadable(
            f"{shown(name)} is larger than {_size(most)}, and is not read: expected a file of at most"
            " that"
        )
    return content


def read_text(path: str | Path, *, most: int = MEGABYTE) -> str:
    """The same as text in UTF-8."""
    try:
        return read_bytes(path, most=most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"{shown(str(path))} is no text in UTF-8: {error}") from error


def refuse_what_is_no_file(name: str, found: os.stat_result | None = None) -> None:
    """Refuse what has no end, or blocks, before it is opened.

    Raises:
        Unreadable: it is something else than a regular file.
        OSError: it cannot be looked at.
    """
    mode = (os.stat(name) if found is None else found).st_mode
    if stat.S_ISREG(mode):
        return
    kind = next((said for is_kind, said in _KINDS if is_kind(mode)), "no file")
    raise Unreadable(f"{shown(name)} is {kind}: expected a regular file")


def parse_json(text: str | bytes, name: str, *, entries: int = ENTRIES) -> Any:
    """The value of a text in JSON.

    Raises:
        Unreadable: it is no JSON, nested too deeply, or has more than so many entries.
    """
    try:
        return within_bounds(json.loads(text), name, entries=entries)
    except RecursionError as error:
        raise Unreadable(f"{shown(name)} is nested too deeply to be read") from error
    except ValueError as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{shown(name)} is not JSON: {_short(error)}") from error


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The value of a text in TOML.

    Raises:
        Unreadable: it is no TOML, nested too deeply, or has too many entries.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        # The parser takes the square of the parts of a key.
        if line.count(".") > 100 and len(_PARTS.findall(line)) > 100:
            raise Unreadable(f"{shown(name)} has a key of more than 100 parts in line {number}")
    try:
        found: dict[str, Any] = within_bounds(tomllib.loads(text), name)
    except RecursionError as error:
        raise Unreadable(f"{shown(name)} is nested too deeply to be read") from error
    except ValueError as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{shown(name)} is not TOML: {_short(error)}") from error
    return found


def within_bounds(value: Any, name: str, *, entries: int = ENTRIES) -> Any:
    """`value`, made of dictionaries, lists and plain values, if it is not deeper, larger or longer than real ones are.

    Raises:
        Unreadable: it is.
    """
    level, number = [value], 0
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str) and len(each) > LONGEST:
                raise Unreadable(
                    f"{shown(name)} has a text of {len(each):,} characters: expected at most {LONGEST:,}"
                )
            if isinstance(each, dict):
                below += [*each, *each.values()]
            elif isinstance(each, list):
                below += each
        number += len(below)
        if number > entries:
            raise Unreadable(f"{shown(name)} has more than {entries:,} entries, and is not read")
        if not below:
            return value
        level = below
    raise Unreadable(f"{shown(name)} is nested too deeply: expected at most {DEEPEST} levels")


def shown(name: str) -> str:
    """A path that someone gave, short enough for a message."""
    return name if len(name) <= 300 else f"{name[:200]}…{name[-90:]}"


def _short(error: Exception) -> str:
    said = str(error)
    return said if len(said) <= 300 else f"{said[:300]}…"


def _size(most: int) -> str:
    return f"{most / MEGABYTE:g} MB"
