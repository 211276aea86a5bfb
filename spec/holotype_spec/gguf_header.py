"""The metadata at the head of a GGUF file: names and values, and of an array only how long it is.

A reader of our own, because the header is small and simple, and the package `gguf` brings NumPy and keeps every
string of a vocabulary. The layout is that of the format's description (ggml-org/ggml, docs/gguf.md): magic, version,
the number of tensors, the number of pairs, then each pair as name, type and value, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MOST_PAIRS = 10_000
MOST_ENTRIES = 5_000_000  # a vocabulary has some hundred thousand
LONGEST = 2_000_000  # bytes of a text; a template for chats has some ten thousand
DEEPEST = 4  # arrays inside arrays; no file has two

Value = bool | int | float | str


class Length(NamedTuple):
    """An array of a header: its length alone."""

    entries: int


class GGUFError(ValueError):
    """A file that is no GGUF, or breaks off."""


def read_header(path: Path) -> dict[str, Value | Length]:
    """The metadata of a file, without reading its tensors.

    Raises:
        GGUFError: it is no GGUF, of a version that is not known, or it breaks off.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise GGUFError(f"{path} breaks off within the first 24 bytes of a GGUF header")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(content, len(content), str(path)).header()


class _Reader:
    """A place in the file, moving on as values are read."""

    def __init__(self, content: mmap.mmap | bytes, size: int, name: str) -> None:
        self.content, self.size, self.name, self.at = content, size, name, 0
        self.left = MOST_ENTRIES

    def header(self) -> dict[str, Value | Length]:
        if self.content[:4] != MAGIC:
            raise GGUFError(f"{self.name} is no GGUF file: it does not begin with the letters GGUF")
        self.at = 4
        version = self.plain("I")
        if version not in VERSIONS:
            raise GGUFError(f"{self.name} is GGUF of version {version}; expected 2 or 3")
        _, pairs = self.plain("Q"), self.plain("Q")
        found: dict[str, Value | Length] = {}
        if pairs > MOST_PAIRS:
            raise GGUFError(
                f"{self.name} promises {pairs:,} values; expected a few hundred at most"
            )
        for _ in range(int(pairs)):
            key = self.string()
            found[key] = self.value(int(self.plain("I")))
        return found

    def value(self, kind: int, depth: int = 0) -> Value | Length:
        if kind == STRING:
            return self.string()
        if kind == ARRAY and depth < DEEPEST:
            return self.array(depth + 1)
        if kind not in PLAIN:
            raise GGUFError(f"{self.name} has a value of the unknown type {kind} at byte {self.at}")
        return self.plain(PLAIN[kind])

    def array(self, depth: int) -> Length:
        kind, entries = int(self.plain("I")), int(self.plain("Q"))
        if kind in PLAIN:
            self.skip(entries * struct.calcsize(PLAIN[kind]))
            return Length(entries)
        self.demand(8 * entries)  # each has at least a length
        self.left -= entries
        if self.left < 0:
            raise GGUFError(f"{self.name} has more than {MOST_ENTRIES:,} texts in its lists")
        for _ in range(entries):
            if kind == STRING:
                self.skip(int(self.plain("Q")))
            else:
                self.value(kind, depth)
        return Length(entries)

    def string(self) -> str:
        length = int(self.plain("Q"))
        start = self.at
        self.skip(length)
        if length > LONGEST:
            raise GGUFError(
                f"{self.name} has a text of {length:,} bytes at byte {start}; expected at most {LONGEST:,}"
            )
        return self.content[start : self.at].decode("utf-8", "replace")

    def plain(self, code: str) -> bool | int | float:
        start = self.at
        self.skip(struct.calcsize(f"<{code}"))
        value: bool | int | float = struct.unpack_from(f"<{code}", self.content, start)[0]
        return value

    def skip(self, count: int) -> None:
        self.demand(count)
        self.at += count

    def demand(self, count: int) -> None:
        if count > self.size - self.at:
            raise GGUFError(
                f"{self.name} breaks off: at byte {self.at} it promises {count} more, and has {self.size - self.at}"
            )
