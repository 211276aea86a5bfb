"""The variants of a spec file as whole trees: each laid over its family's part, or over the model it derives from.

A variant with ``derives_from`` starts from that model's tree, found in the same file or in the catalogue, and says
only what differs. Any other starts from its file's ``[architecture]`` or ``[network]``.

Nothing here trusts the shape of a document, so that all mistakes of a file can be reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from holotype_spec.errors import Problem, nearest

Tree = dict[str, Any]

WHOLES = ("architecture", "network")
OWN = ("name", "aliases", "parameters", "derives_from", "rumour", "stated")  # never inherited
INHERITED_HEAD = ("checkpoint", "transformers")  # what a family takes over from that of the parent


@dataclass(frozen=True)
class Place:
    """A variant: its document, its index there, and how errors call the file."""

    document: Tree
    index: int
    file: str

    @property
    def variant(self) -> Tree:
        found: Tree = self.document["variants"][self.index]
        return found

    @property
    def id(self) -> tuple[str, int]:
        return self.file, self.index


Finder = Callable[[str], Place | None]


class Lost(Exception):
    """The line of descent ends nowhere; `expected` and `mend` are those of the `Problem`."""

    def __init__(self, expected: str, mend: str) -> None:
        self.expected, self.mend = expected, mend


def trees(document: Tree, file: str, find: Finder) -> tuple[dict[int, Tree], list[Problem]]:
    """The whole tree of each variant by its index, and what is wrong with the descent of the others.

    Args:
        document: the parsed file.
        file: how errors call it.
        find: where the catalogue has a model, by name or alias.
    """
    whole: dict[int, Tree] = {}
    problems = []
    for index, variant in variants(document):
        try:
            whole[index] = _tree(Place(document, index, file), find, ())
        except Lost as lost:
            name = variant.get("name")
            problems.append(
                Problem(
                    file=file,
                    key=f"variants[{name if isinstance(name, str) else index}].derives_from",
                    value=variant["derives_from"],
                    expected=lost.expected,
                    mend=lost.mend,
                )
            )
    return whole, problems


def variants(document: Tree) -> Iterator[tuple[int, Tree]]:
    """The variants that are tables, each with its index."""
    rows = document.get("variants")
    for index, variant in enumerate(rows if isinstance(rows, list) else []):
        if isinstance(variant, dict):
            yield index, variant


def local(document: Tree, file: str, name: str) -> Place | None:
    """The place of the model called `name` in the document itself."""
    for index, variant in variants(document):
        aliases = variant.get("aliases")
        if name == variant.get("name") or (isinstance(aliases, list) and name in aliases):
            return Place(document, index, file)
    return None


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


def _tree(place: Place, find: Finder, line: tuple[Place, ...]) -> Tree:
    """The whole tree of a variant; `line` are its descendants on the way here, the one that was asked for first."""
    document, variant = place.document, place.variant
    family = document.get("family")
    if "derives_from" not in variant:
        base = {whole: document[whole] for whole in WHOLES if whole in document}
    else:
        parent = _tree(_parent(place, find, (*line, place)), find, (*line, place))
        base = {key: value for key, value in parent.items() if key not in OWN}
        if isinstance(family, dict) and isinstance(base.get("family"), dict):
            head = {key: base["family"][key] for key in INHERITED_HEAD if key in base["family"]}
            family = {**head, **family}
    tree = {"aliases": [], **base, **variant, "family": family}
    for whole in WHOLES:
        if isinstance(base.get(whole), dict) and isinstance(variant.get(whole), dict):
            tree[whole] = overlaid(base[whole], variant[whole])
    return tree


def _parent(place: Place, find: Finder, line: tuple[Place, ...]) -> Place:
    name = place.variant["derives_from"]
    if not isinstance(name, str):
        raise Lost("the name of a model", "write the name of the model that it was trained from")
    found = local(place.document, place.file, name) or find(name)
    if found is None:
        known = [str(each.get("name")) for _, each in variants(place.document)]
        raise Lost(
            "the name of a model of this file or of the catalogue",
            nearest(name, known) or "`holotype list` names all",
        )
    if found.id in [each.id for each in line]:
        names = [str(each.variant.get("name")) for each in line]
        raise Lost(
            f"a line of descent that ends: {' → '.join([*names, str(found.variant.get('name'))])}",
            "let one of them derive from no other",
        )
    return found
