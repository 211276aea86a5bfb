"""The catalogue: the spec files that ship with the package, found by name.

An entry is one of three:

- a `Spec`: a Transformer of which everything is known that its arithmetic and its reference model need;
- a `Sketch`: one of which something was not disclosed; what was is in `Sketch.known`;
- a `Network`: something else than a stack of attention, with sizes of its own kind.

`find` gives any of them by name, `load` only a `Spec`; `entries` gives all, `complete` all specs, `originals` the names
of those that derive from no other. What runs, builds or compares models loops over specs; what lists and counts loops
over `entries`. `count_parameters`, `parameter_table` and `costs` take any entry, and raise `UndisclosedValue` where
what they are asked for depends on something undisclosed.

Finding a name does not parse the files: the names of the variants are read off their own lines
(``name = "…"`` and ``aliases = […]``), and only the file that has the one wanted is parsed, with those of the models
that it derives from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from holotype_spec import descent, files
from holotype_spec.errors import NoSpec, UnknownSpec
from holotype_spec.files import Entry
from holotype_spec.networks import Network
from holotype_spec.schema import Spec

MODELS = Path(__file__).parent / "models"
NAME = re.compile(r'^name = "([^"]+)"', re.MULTILINE)
GENERIC = re.compile(r"^binding = \[", re.MULTILINE)
ALIASES = re.compile(r"^aliases = \[(.*?)\]", re.MULTILINE | re.DOTALL)


class Place(NamedTuple):
    """The place of an entry in the files."""

    name: str
    family: str
    aliases: tuple[str, ...]
    path: Path
    generic: bool


def find(name: str) -> Entry:
    """The entry called `name`.

    Args:
        name: a name or an alias of the catalogue ("gpt2-xl"), or the path of a spec file of your own: as it
            is where the file has one variant ("mine.toml"), else with the variant's name ("mine.toml:small").

    Raises:
        UnknownSpec: nothing is called so; the message and `nearest` have the names most like it.
        SpecError: the file is malformed; the message and `errors` have all its mistakes.
    """
    if name.endswith(".toml") or ".toml:" in name:
        return _find_in_file(name)
    place = _by_name().get(name.lower())
    if place is None:
        raise UnknownSpec(name, _nearest(name, list(_by_name())))
    return _pick(_read(place.path), place.name)


def load(name: str) -> Spec:
    """The spec called `name`, as `find` finds it.

    Raises:
        UnknownSpec: nothing is called so; the message and `nearest` have the names most like it.
        NoSpec: the catalogue has it, but it is a `Sketch` or a `Network`; an `UnknownSpec` too.
        SpecError: the file is malformed; the message and `errors` have all its mistakes.
    """
    entry = find(name)
    if isinstance(entry, Spec):
        return entry
    if isinstance(entry, Network):
        raise NoSpec(entry.name, f"it is no Transformer but a {entry.network.structure} network")
    first, *others = entry.undisclosed
    more = f", and {len(others)} more of its fields" if others else ""
    raise NoSpec(entry.name, f"{first} is undisclosed{more} (see `holotype show {entry.name}`)")


def names(family: str | None = None) -> list[str]:
    """The name of every entry of the catalogue, or of one family, families in the order of the alphabet.

    The generic specs are no models: `generics` has them, and their family.

    Raises:
        UnknownSpec: there is no such family.
    """
    if family is not None and family not in families():
        raise UnknownSpec(family, _nearest(family, families()), what="family")
    if family is None:
        return [place.name for place in places() if not place.generic]
    return [place.name for place in places() if place.family == family]


def generics() -> list[str]:
    """The name of every generic spec: a kind of model, for implementations of what is in no catalogue."""
    return [place.name for place in places() if place.generic]


def entries(family: str | None = None) -> list[Entry]:
    """Every entry of the catalogue, or of one family, in the order of `names`.

    Raises:
        UnknownSpec: there is no such family.
    """
    return [find(name) for name in names(family)]


def complete(family: str | None = None) -> list[Spec]:
    """Every `Spec` of the catalogue, or of one family, in the order of `names`.

    Raises:
        UnknownSpec: there is no such family.
    """
    return [entry for entry in entries(family) if isinstance(entry, Spec)]


def originals(family: str | None = None) -> list[str]:
    """The name of every `Spec` that derives from no other, in the order of `names`."""
    return [spec.name for spec in complete(family) if spec.derives_from is None]


def line_of_descent(entry: Entry) -> list[str]:
    """The names of the models that an entry derives from, its parent first."""
    line: list[str] = []
    parent = entry.derives_from
    while parent is not None:
        place = _by_name().get(parent)
        line.append(place.name if place else parent)
        parent = find(place.name).derives_from if place else None
    return line


def families() -> list[str]:
    """The name of every family of the catalogue, the generic one included."""
    return list(dict.fromkeys(place.family for place in places()))


def aliases() -> dict[str, str]:
    """Every alias of the catalogue, and the name that it stands for."""
    return {alias: place.name for place in places() for alias in place.aliases}


@cache
def places() -> tuple[Place, ...]:
    """The entries of the catalogue, by the lines of its files alone."""
    paths = sorted(MODELS.glob("*.toml"), key=lambda path: path.stem)
    return tuple(place for path in paths for place in _scan(path))


def _scan(path: Path) -> Iterator[Place]:
    head, *variants = path.read_text(encoding="utf-8").split("[[variants]]")
    family = _first(NAME, head)
    for variant in variants:
        yield Place(
            name=_first(NAME, variant),
            family=family,
            aliases=tuple(re.findall(r'"([^"]+)"', _first(ALIASES, variant))),
            path=path,
            generic=GENERIC.search(head) is not None,
        )


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""


@cache
def _by_name() -> dict[str, Place]:
    return {key: place for place in places() for key in (place.name, *place.aliases)}


@cache
def _read(path: Path) -> tuple[Entry, ...]:
    return files.entries(files.parsed(path), str(path), _parent)


def _parent(name: str) -> descent.Place | None:
    place = _by_name().get(name)
    if place is None:
        return None
    return descent.local(files.parsed(place.path), str(place.path), place.name)


def _find_in_file(name: str) -> Entry:
    stem, _, variant = name.partition(".toml")
    found = _read(Path(f"{stem}.toml").resolve())
    return _pick(found, variant.removeprefix(":") or None)


def _pick(found: tuple[Entry, ...], name: str | None) -> Entry:
    called = {key: entry for entry in found for key in (entry.name, *entry.aliases)}
    if name in called:
        return called[name]
    if name is None and len(found) == 1:
        return found[0]
    raise UnknownSpec(name or "", list(called), what="variant")


def _nearest(name: str, known: list[str]) -> list[str]:
    from difflib import get_close_matches

    own = name.lower().rpartition("/")[2]  # hubs put the organisation in front
    return [own] if own in known else get_close_matches(own, known, n=3)
