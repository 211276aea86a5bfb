"""The rules that a file of specs breaks, and its other mistakes beyond the types of its fields."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from holotype_spec.errors import Problem, nearest
from holotype_spec.rules import RULES, WORKED_OUT, Path, Tree

MISSING = object()


def broken_rules(
    document: Tree,
    trees: Mapping[int, Tree],
    file: str,
    *,
    damaged: Collection[Path] = (),
) -> list[Problem]:
    """Every rule that the document breaks.

    Args:
        document: the parsed file.
        trees: the trees of `Spec` of its variants, by their index in the file.
        file: how errors call the file.
        damaged: paths in the file that are known to be wrong; a rule that reads one is left out.
    """
    problems = list(_of_the_file(document, file))
    for index, tree in trees.items():
        sound = Sound(document, index, tree, damaged)
        problems += _of_a_variant(sound, file)
    return list({str(problem): problem for problem in problems}.values())


def key_of(document: Tree, path: Path) -> str:
    """The path inside a file as errors write it, a variant by its name."""
    parts: list[str] = []
    node: Any = document
    for part in path:
        node = _child(node, part)
        if isinstance(part, str):
            parts.append(part)
        else:
            name = node.get("name") if isinstance(node, dict) else None
            parts[-1] += f"[{name if isinstance(name, str) else part}]"
    return ".".join(parts)


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(part, MISSING)
    in_range = isinstance(node, list) and isinstance(part, int) and part < len(node)
    return node[part] if in_range else MISSING


def at(node: Any, path: Path) -> Any:
    """The value at the path, or `MISSING`."""
    for part in path:
        node = _child(node, part)
    return node


@cache
def _parts(dotted: str) -> Path:
    return tuple(dotted.split("."))


def _nodes(tree: Tree) -> dict[Path, Any]:
    """Everything that stands in the tree, tables included, by its path."""
    found: dict[Path, Any] = {}
    waiting: list[tuple[Path, Tree]] = [((), tree)]
    while waiting:
        path, table = waiting.pop()
        for key, value in table.items():
            found[*path, key] = value
            if isinstance(value, dict):
                waiting.append(((*path, key), value))
    return found


class Sound:
    """The values of one variant that are not known to be wrong, and where in the file they stand."""

    def __init__(
        self,
        document: Tree,
        index: int,
        tree: Tree,
        damaged: Collection[Path],
    ) -> None:
        self.document, self.index, self.tree, self.damaged = document, index, tree, damaged
        self._nodes = _nodes(tree)

    def place(self, path: Path) -> Path:
        """The place in the file that the value comes from: the variant, or the part that it shares with its family.

        What a variant inherits from a model that it derives from stands elsewhere, and is reported as its own.
        """
        if path[0] == "family":
            return path
        shared = path[0] in ("architecture", "network") and at(self._variant(), path) is MISSING
        derived = "derives_from" in self._variant()
        return path if shared and not derived else ("variants", self.index, *path)

    def values(self, reads: tuple[str, ...]) -> list[Any] | None:
        paths = [_parts(dotted) for dotted in reads]
        values = [self._nodes.get(path, "undisclosed") for path in paths]
        if "undisclosed" in values:
            return None
        return None if self.damaged and any(map(self.is_damaged, paths)) else values

    def _variant(self) -> Any:
        return self.document["variants"][self.index]

    def is_damaged(self, path: Path) -> bool:
        """Whether the value, a part of it or a table that it stands in is known to be wrong."""
        place = self.place(path)
        return any(
            place[: len(other)] == other or other[: len(place)] == place for other in self.damaged
        )


def _of_a_variant(sound: Sound, file: str) -> Iterator[Problem]:
    for rule in RULES:
        values = sound.values(rule.reads)
        if values is not None and not rule.holds(*values):
            named = {
                dotted.split(".")[-1]: value
                for dotted, value in zip(rule.reads, values, strict=True)
            }
            place = sound.place(_parts(rule.reads[-1]))
            yield Problem(
                file=file,
                key=key_of(sound.document, place),
                value=values[-1],
                expected=rule.expected.format(**named),
                mend=rule.mend.format(**named),
            )
    yield from _unknown_source(sound, file)
    yield from _unknown_paths(sound, file)
    yield from _differences_elsewhere(sound, file)


def _unknown_source(sound: Sound, file: str) -> Iterator[Problem]:
    sources = sound.values(("family.sources",))
    if sources is None:
        return
    ids = [source["id"] for source in sources[0]]
    for path in _cited(sound.tree):
        cited = at(sound.tree, path)
        if not sound.is_damaged(path) and cited not in ids:
            yield Problem(
                file=file,
                key=key_of(sound.document, sound.place(path)),
                value=cited,
                expected=f"the id of one of family.sources: {', '.join(ids)}",
                mend="correct the id or add the source",
            )


def _cited(tree: Tree) -> Iterator[Path]:
    """The paths of the ids of sources."""
    stated = tree.get("stated")
    parts = range(len(stated) if isinstance(stated, list) else 0)
    places: list[Path] = [("parameters",), *(("stated", part) for part in parts)]
    for place in places:
        if isinstance(at(tree, (*place, "source")), str):
            yield (*place, "source")


def _unknown_paths(sound: Sound, file: str) -> Iterator[Problem]:
    """The paths of our fields in ``family.transformers.fields`` must lead to a plain value."""
    values = sound.values(("family.transformers.fields",))
    if values is None:
        return
    inherited = at(sound.document, ("family", "transformers")) is MISSING
    known = [*_plain_paths(sound.tree), *WORKED_OUT]
    for key, path in values[0].items():
        if path in known or _is_undisclosed(sound.tree, path):
            continue
        if not sound.is_damaged(tuple(path.split("."))):
            yield Problem(
                file=file,
                key=f"family.transformers.fields.{key}",
                value=path,
                expected="the path of a field of the spec that has a plain value",
                mend='inherited; write the family\'s own, or transformers = "none"'
                if inherited
                else nearest(path, known) or "correct the path",
            )


def _differences_elsewhere(sound: Sound, file: str) -> Iterator[Problem]:
    """A stated difference of a class must be in a field of the spec."""
    for each in (sound.values(("family.transformers.differences",)) or [[]])[0]:
        parts = _parts(each["field"])
        if at(sound.tree, parts) is MISSING and not _is_undisclosed(sound.tree, each["field"]):
            yield Problem(
                file=file,
                key="family.transformers.differences.field",
                value=each["field"],
                expected="the path of a field of the spec",
                mend=nearest(each["field"], _dotted(sound.tree)) or "correct the path",
            )


def _dotted(tree: Tree) -> list[str]:
    return [".".join(map(str, path)) for path in _nodes(tree)]


def _is_undisclosed(tree: Tree, path: str) -> bool:
    """Whether the path leads into a mechanism that is undisclosed."""
    parts = _parts(path)
    return any(at(tree, parts[:end]) == "undisclosed" for end in range(1, len(parts)))


def _plain_paths(tree: Tree, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("family", "parameters"):
            yield from _plain_paths(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str) and prefix + key != "name":
            yield prefix + key


def _of_the_file(document: Tree, file: str) -> Iterator[Problem]:
    yield from _unused(document, file)
    yield from _repeated(document, file, ("family", "sources"), "id")
    yield from _repeated(document, file, ("variants",), "name", "aliases")
    yield from _infinite(document, document, file, ())
    yield from _told_twice(document, file)


def _unused(document: Tree, file: str) -> Iterator[Problem]:
    """Fields that variants share are of no use where each variant derives from another model."""
    rows = document.get("variants")
    derived = [
        isinstance(row, dict) and "derives_from" in row
        for row in (rows if isinstance(rows, list) else [])
    ]
    for whole in ("architecture", "network"):
        if derived and all(derived) and whole in document:
            yield Problem(
                file=file,
                key=whole,
                value=None,
                expected=f"no {whole} where every variant derives from another model",
                mend=f"move it into the variants, as variants.{whole}",
            )


def _repeated(document: Tree, file: str, path: Path, *keys: str) -> Iterator[Problem]:
    rows = at(document, path)
    seen: set[str] = set()
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        for key in keys:
            for value in _strings(_child(row, key)):
                if value in seen:
                    yield Problem(
                        file=file,
                        key=key_of(document, (*path, index, key)),
                        value=value,
                        expected=f"{' and '.join(keys)} that no other entry has",
                        mend="rename one of them",
                    )
                seen.add(value)


def _strings(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _infinite(document: Tree, node: Any, file: str, path: Path) -> Iterator[Problem]:
    if isinstance(node, float) and not math.isfinite(node):
        yield Problem(
            file=file,
            key=key_of(document, path),
            value=node,
            expected="a finite number",
            mend="write the number that the source gives",
        )
    children: list[tuple[str | int, Any]] = []
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        children = list(enumerate(node))
    for part, child in children:
        yield from _infinite(document, child, file, (*path, part))


def _told_twice(document: Tree, file: str) -> Iterator[Problem]:
    """A key of their configuration is a field, a constant or absent, and a plain value or a table."""
    told: list[str] = []
    for table in ("fields", "constants", "absent"):
        for key, value in _keys_told(at(document, ("family", "transformers", table))):
            clash = [other for other in told if _one_inside_the_other(key, other)]
            if clash:
                yield Problem(
                    file=file,
                    key=f"family.transformers.{table}.{key}",
                    value=value,
                    expected=f"a key that is not already given by {clash[0]}",
                    mend="delete one of the two",
                )
            told.append(key)


def _keys_told(entries: Any) -> list[tuple[str, Any]]:
    if isinstance(entries, dict):
        return list(entries.items())
    return [(key, None) for key in _strings(entries)]


def _one_inside_the_other(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
