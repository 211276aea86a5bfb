"""Reading a spec file: TOML, the differences of each variant laid over its family, strict conversion."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from holotype_spec.errors import Problem, SpecError
from holotype_spec.rules import broken_rules
from holotype_spec.schema import Spec, SpecFile

Tree = dict[str, Any]


@cache
def read(path: Path) -> tuple[Spec, ...]:
    """Every variant of the file at `path`, in its order.

    Raises:
        SpecError: with all mistakes of the file.
    """
    return specs(_parse(path), str(path))


def specs(document: Tree, file: str) -> tuple[Spec, ...]:
    """The specs of a parsed file; `file` is how errors call it.

    Raises:
        SpecError: with all mistakes of the document.
    """
    try:
        msgspec.convert(document, SpecFile)
        trees = spec_trees(document)
        made = tuple(msgspec.convert(tree, Spec) for tree in trees)
    except msgspec.ValidationError as error:
        # msgspec stops at the first mistake; the slower second look finds them all.
        from holotype_spec.validation import problems_of

        raise SpecError(problems_of(document, file, first=str(error))) from None
    if problems := broken_rules(document, dict(enumerate(trees)), file):
        raise SpecError(problems)
    return made


def spec_trees(document: Tree) -> list[Tree]:
    """The document's variants as trees of `Spec`: the family's architecture and what differs laid over it."""
    return [
        {
            "aliases": [],
            **variant,
            "family": document["family"],
            "architecture": overlaid(document["architecture"], variant.get("architecture", {})),
        }
        for variant in document["variants"]
    ]


def overlaid(base: Tree, difference: Tree) -> Tree:
    """`base` with `difference` laid over it, key by key; a mechanism of another kind replaces the old one whole."""
    if "kind" in difference and difference["kind"] != base.get("kind"):
        return difference
    merged = dict(base)
    for key, value in difference.items():
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            value = overlaid(old, value)
        merged[key] = value
    return merged


def _parse(path: Path) -> Tree:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problem = Problem(
            file=str(path),
            key="",
            value=None,
            expected="a TOML file in UTF-8",
            mend=f"reading it failed: {error}",
        )
        raise SpecError([problem]) from None
