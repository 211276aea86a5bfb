"""Files that a user names, read within bounds: what is no file, or larger than any real one, is refused in words.

`/dev/zero` has no end and a pipe without a writer has no beginning; neither may hang a command. A text that is nested
without end is refused as well, and not met with a traceback.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
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
            refuse_what_is_no_file(name, os.fstat(file.fileno()))
            content = file.read(most + 1)
    except OSError as error:
        raise Unreadable(f"{shown(name)} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a null character, or ours
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"{shown(name)} cannot be read: {error}") from error
    if len(content) > most:
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


def parse_json(text: str | bytes, name: str) -> Any:
    """What a text in JSON says.

    Raises:
        Unreadable: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Unreadable(f"{shown(name)} is nested too deeply to be read") from error
    except ValueError as error:
        raise Unreadable(f"{shown(name)} is no JSON: {_short(error)}") from error


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """What a text in TOML says.

    Raises:
        Unreadable: it is no TOML, or nested too deeply.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise Unreadable(f"{shown(name)} is nested too deeply to be read") from error
    except ValueError as error:
        raise Unreadable(f"{shown(name)} is no TOML: {_short(error)}") from error


def shown(name: str) -> str:
    """A path that someone gave, short enough for a message."""
    return name if len(name) <= 300 else f"{name[:200]}…{name[-90:]}"


def _short(error: Exception) -> str:
    said = str(error)
    return said if len(said) <= 300 else f"{said[:300]}…"


def _size(most: int) -> str:
    return f"{most / MEGABYTE:g} MB"
