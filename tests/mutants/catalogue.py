"""The catalogue of edits: one-line changes of `transformers`' own files, each a bug that the suite must catch.

They stand in the TOML files beside this one, a family or a shared file each. What a file says before its first entry
holds for all of its entries. The keys of an entry:

id           a permanent name
file         the file that is edited, relative to the package
old, new     the text that is replaced, within one line, and what replaces it
after        where to look for `old`: its first place after the first of this text; without it, `old` stands there once
specs        the specs on which the edit changes something, each of which must show it
title        what the edited model does, a sentence
why          what kind of mistake that is, and where it shows
report       the entry of the collected public reports of such a mistake, if there is one
observable   false for an edit that changes no behaviour: the suite must not flag it
survives     why the suite does not catch it yet; the test then expects that, strictly
fast         whether it belongs to the subset that CI runs
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION = "5.23.0"  # the release whose text the edits quote
FOLDER = Path(__file__).parent


class DoesNotApply(ValueError):
    """The text that an edit replaces is not there, or not once."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One entry; the keys are those of the TOML files."""

    id: str
    file: str
    old: str
    new: str
    specs: tuple[str, ...]
    title: str
    why: str
    after: str = ""
    report: str = ""
    observable: bool = True
    survives: str = ""
    fast: bool = False

    @property
    def module(self) -> str:
        """The module that the edited file is."""
        return "transformers." + self.file.removesuffix(".py").replace("/", ".")

    def apply(self, source: str) -> str:
        """The text of the file with the edit in it.

        Raises:
            DoesNotApply: `old` or `after` is not there, or `old` is there more than once.
        """
        start = source.find(self.after)
        found = source.find(self.old, start) if start >= 0 else -1
        if found < 0:
            raise DoesNotApply(f"{self.id}: {self.file} has no {self.old!r} after {self.after!r}")
        if not self.after and source.count(self.old) > 1:
            raise DoesNotApply(f"{self.id}: {self.file} has {self.old!r} more than once")
        return source[:found] + self.new + source[found + len(self.old) :]

    def mutated(self) -> str:
        """The text of the installed file with the edit in it."""
        return self.apply((package() / self.file).read_text(encoding="utf-8"))


def package() -> Path:
    """The folder of the installed `transformers`, found without importing it."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("transformers is not installed")
    return Path(found.origin).parent


def installed() -> str:
    """The version of the installed `transformers`; empty when there is none."""
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ""


def edits() -> tuple[Edit, ...]:
    """Every entry of every file, in the order of the files' names."""
    return tuple(edit for path in sorted(FOLDER.glob("*.toml")) for edit in _read(path))


def _read(path: Path) -> Iterator[Edit]:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    entries = table.pop("edits")
    for entry in entries:
        values = table | entry
        yield Edit(**(values | {"specs": tuple(values["specs"])}))
