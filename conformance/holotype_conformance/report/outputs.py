"""Outputs of reports: each output is written whatever becomes of the others, and none over another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holotype_conformance.report.terminal import BadInput, hush

if TYPE_CHECKING:
    from holotype_conformance.judge.records import Report

Writer = Callable[[list["Report"]], str]


class Outputs:
    """The files that were asked for.

    Args:
        paths: json, junit or html -> where it goes; "-" is standard output, None nowhere.
        inputs: files that are read, which nothing may be written over.

    Raises:
        BadInput: one cannot be written, two are one file, or one is an input.
    """

    def __init__(self, paths: Mapping[str, str | None], inputs: Iterable[str | None] = ()) -> None:
        self.paths = {kind: path for kind, path in paths.items() if path is not None}
        taken = {_real(path): path for path in inputs if path is not None and Path(path).exists()}
        for kind, path in self.paths.items():
            require_writable(path)
            if (other := taken.get(_real(path))) is not None:
                raise BadInput(
                    f"--{kind} {path} is the same file as {other}: each needs one of its own"
                )
            taken[_real(path)] = f"--{kind} {path}"

    @property
    def on_screen(self) -> bool:
        """Whether standard output is taken."""
        return "-" in self.paths.values()

    @property
    def journal(self) -> Path | None:
        """The journal that keeps results as they come; none if no file was asked for."""
        kept = (Path(path) for path in self.paths.values() if path != "-")
        path = next((path for path in kept if path.is_file() or not path.exists()), None)
        return None if path is None else path.with_name(path.name + ".partial")

    def write(self, reports: list[Report]) -> list[str]:
        """Write them all; what went wrong, a sentence each."""
        complaints = []
        for kind, path in self.paths.items():
            try:
                write_text(path, _writer(kind)(reports))
            except BadInput as error:
                complaints.append(error.message)
        return complaints


def require_writable(path: str | None) -> None:
    """Say before the work, not after it, that its result has nowhere to go."""
    if path is None or path == "-":
        return
    try:
        folder = Path(path).parent
        if not folder.is_dir():
            raise BadInput(f"cannot write {path}: there is no folder {folder}")
        if not os.access(path if Path(path).exists() else folder, os.W_OK):
            raise BadInput(f"cannot write {path}: no permission")
    except (OSError, ValueError) as error:  # a name that is too long, or holds what no name can
        raise BadInput(f"cannot write {path[:200]!r}: {error}") from error


def write_text(path: str, text: str) -> None:
    """Write a text to a file; - is standard output.

    Raises:
        BadInput: it cannot be written.
    """
    try:
        if path == "-":
            click.echo(text, nl=False)
        else:
            Path(path).write_text(text, encoding="utf-8")
    except BrokenPipeError:
        hush()  # whoever read it has had enough
    except OSError as error:
        if path == "-":
            hush()
        raise BadInput(f"cannot write {path}: {error.strerror}") from error


def _real(path: str) -> str:
    return path if path == "-" else os.path.realpath(path)


def _writer(kind: str) -> Writer:
    if kind == "json":
        return as_json
    if kind == "junit":
        from holotype_conformance.report.junit import junit

        return junit
    from holotype_conformance.report.html import html

    return html


def as_json(reports: list[Report]) -> str:
    """One report as an object, several as a list of them."""
    import msgspec

    encoded = msgspec.json.encode(reports[0] if len(reports) == 1 else reports)
    return msgspec.json.format(encoded, indent=2).decode() + "\n"
