"""Reading a spec file: TOML, each variant laid over what it starts from, strict conversion."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from holotype_spec.broken_rules import broken_rules
from holotype_spec.descent import Finder, trees
from holotype_spec.errors import Problem, SpecError
from holotype_spec.networks import Network
from holotype_spec.reading import MEGABYTE, Unreadable, parse_toml, read_text
from holotype_spec.schema import Architecture, Spec, Strict
from holotype_spec.sketch import Sketch, checked, sketch

LARGEST = MEGABYTE // 3  # bytes of a spec or of the claims of a document; ours have up to 40,000
Tree = dict[str, Any]
Entry = Spec | Sketch | Network


class Outline(Strict):
    """The tables of a spec file; what stands in them is checked variant by variant."""

    family: Tree
    variants: Annotated[list[Tree], msgspec.Meta(min_length=1)]
    architecture: Tree = msgspec.field(default_factory=dict)
    network: Tree = msgspec.field(default_factory=dict)


def entries(document: Tree, file: str, find: Finder = lambda name: None) -> tuple[Entry, ...]:
    """The entries that the variants of a parsed file are.

    Args:
        document: the parsed file.
        file: how errors call it.
        find: where the catalogue has a model that a variant may derive from.

    Raises:
        SpecError: with all mistakes of the document.
    """
    whole, lost = trees(document, file, find)
    try:
        _check_shared(msgspec.convert(document, Outline))
        made = tuple(map(_entry, whole.values()))
    except msgspec.ValidationError as error:
        # msgspec stops at the first mistake; the slower second look finds them all.
        from holotype_spec.validation import problems_of

        raise SpecError(problems_of(document, whole, file, lost, first=str(error))) from None
    if problems := [*lost, *broken_rules(document, whole, file)]:
        raise SpecError(problems)
    return made


def _check_shared(outline: Outline) -> None:
    """The part that variants share must be sound even where each variant replaces some of it."""
    if not outline.architecture:
        return
    try:
        msgspec.convert(outline.architecture, Architecture)
    except msgspec.ValidationError:
        checked(outline.architecture, Architecture, ("architecture",))


def _entry(tree: Tree) -> Entry:
    if "network" in tree:
        return msgspec.convert(tree, Network)
    try:
        return msgspec.convert(tree, Spec)
    except msgspec.ValidationError:
        if (found := sketch(tree)) is None:
            raise
        return found


@cache
def parsed(path: Path) -> Tree:
    """The document at `path`.

    Raises:
        SpecError: it is no TOML file.
    """
    try:
        return parse_toml(read_text(path, most=LARGEST), str(path))
    except Unreadable as error:
        problem = Problem(
            file=str(path),
            key="",
            value=None,
            expected="a TOML file in UTF-8",
            mend=f"reading it failed: {error}",
        )
        raise SpecError([problem]) from None
