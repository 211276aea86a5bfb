"""``holotype identify``: which spec a configuration file is, or which it is nearest to and where it differs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from holotype_conformance.report.terminal import WIDTH, BadInput

if TYPE_CHECKING:
    from holotype_spec.identify import Difference, Identity, NotStated

NOT_FOUND = 1


@click.command("identify", short_help="Which spec a config.json or a GGUF file is.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def identify_file(file: Path, as_json: bool) -> None:
    """Which spec is FILE, a config.json of transformers (or a folder that holds one) or a GGUF file?

    If it is none, the nearest one is named, and every difference with what it does. Exit codes: 0 it is a spec of the
    catalogue, 1 it is none, 2 it cannot be read.
    """
    from holotype_spec.identify import UnreadableConfig, identify

    try:
        found = identify(file)
    except UnreadableConfig as error:
        raise BadInput(_printable(str(error))) from None
    text = json.dumps(facts(found), indent=2, default=str) if as_json else page(found)
    click.echo(_printable(text))
    if not found.names:
        sys.exit(NOT_FOUND)


def facts(found: Identity) -> dict[str, Any]:
    """The findings, for machines."""
    return {
        "format": found.format,
        "model": found.model,
        "known_model": found.known_model,
        "identified": list(found.names),
        "nearest": found.nearest.spec.name,
        "differences": [each._asdict() for each in found.nearest.differences],
        "not_stated": [each._asdict() for each in found.nearest.not_stated],
    }


def page(found: Identity) -> str:
    """The same for people."""
    nearest = found.nearest
    kind = f"{found.format}, {_shown(found.model)[1:-1]}"
    if found.names:
        first, *others = found.names
        lines = [f"{first} ({kind})"]
        if others:
            lines += _wrapped(f"As much as it says, it is also: {', '.join(others)}.")
    else:
        lines = [f"no spec of the catalogue ({kind}); the nearest is {nearest.spec.name}"]
        if not found.known_model:
            lines += _wrapped(f"No model of the catalogue is of the kind {_shown(found.model)}.")
        lines += ["", "Where it differs" if nearest.differences else _undiffering(found)]
        for each in nearest.differences:
            lines += _told(each)
    if nearest.not_stated:
        lines += ["", "Not stated by the file"]
        lines += _silent(found, nearest.not_stated)
    return "\n".join(lines)


def _undiffering(found: Identity) -> str:
    return (
        "It differs in nothing else."
        if not found.known_model
        else "It differs in nothing that it states, which is too little to name it."
    )


def _told(each: Difference) -> list[str]:
    field = "" if each.field in (None, each.key) else f" ({each.field})"
    what = "says" if each.stated else "does not say, and transformers takes"
    said = f"{each.key}{field}: the file {what} {_shown(each.theirs)}, the spec {_shown(each.ours)}; {each.effect}"
    return wrap(said, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _silent(found: Identity, entries: tuple[NotStated, ...]) -> list[str]:
    from holotype_spec.identify import defaults_version

    if found.format == "GGUF":
        return _wrapped(", ".join(each.field or each.key for each in entries), "  ")
    told = [
        each.key
        if each.default is None
        else f"{each.key}: transformers {defaults_version()} takes {_shown(each.default)}"
        for each in entries
    ]
    return [line for text in told for line in _wrapped(text, "  ")]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _printable(text: str) -> str:
    """A file may hold what no encoding can carry."""
    return text.encode("utf-8", "replace").decode()


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
