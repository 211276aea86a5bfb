"""The catalogue: the spec files that ship with the package, found by name.

Finding a name does not parse the files: the names of the variants are read off their own lines
(``name = "…"`` and ``aliases = […]``), and only the file that has the one wanted is parsed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from holotype_spec.errors import UnknownSpec
from holotype_spec.files import read
from holotype_spec.schema import Spec

MODELS = Path(__file__).parent / "models"
NAME = re.compile(r'^name = "([^"]+)"', re.MULTILINE)
GENERIC = re.compile(r"^binding = \[", re.MULTILINE)
ALIASES = re.compile(r"^aliases = \[(.*?)\]", re.MULTILINE | re.DOTALL)


class Entry(NamedTuple):
    """Where a spec stands."""

    name: str
    family: str
    aliases: tuple[str, ...]
    path: Path
    generic: bool


def load(name: str) -> Spec:
    """The spec called `name`.

    Args:
        name: a name or an alias of the catalogue ("gpt2-xl"), or the path of a spec file of your own: as it
            is where the file has one variant ("mine.toml"), else with the variant's name ("mine.toml:small").

    Raises:
        UnknownSpec: nothing is called so; the message and `nearest` have the names most like it.
        SpecError: the file is malformed; the message and `errors` have all its mistakes.
    """
    if name.endswith(".toml") or ".toml:" in name:
        return _load_from_file(name)
    entry = _by_name().get(name.lower())
    if entry is None:
        raise UnknownSpec(name, _nearest(name, list(_by_name())))
    return _pick(read(entry.path), entry.name)


def names(family: str | None = None) -> list[str]:
    """The name of every model of the catalogue, or of one family, families in the order of the alphabet.

    The generic specs are no models: `generics` has them, and their family.

    Raises:
        UnknownSpec: there is no such family.
    """
    if family is not None and family not in families():
        raise UnknownSpec(family, _nearest(family, families()), what="family")
    if family is None:
        return [entry.name for entry in entries() if not entry.generic]
    return [entry.name for entry in entries() if entry.family == family]


def generics() -> list[str]:
    """The name of every generic spec: a kind of model, for implementations of what is in no catalogue."""
    return [entry.name for entry in entries() if entry.generic]


def families() -> list[str]:
    """The name of every family of the catalogue, the generic one included."""
    return list(dict.fromkeys(entry.family for entry in entries()))


def aliases() -> dict[str, str]:
    """Every alias of the catalogue, and the name that it stands for."""
    return {alias: entry.name for entry in entries() for alias in entry.aliases}


@cache
def entries() -> tuple[Entry, ...]:
    """What the catalogue has, by the lines of its files alone."""
    paths = sorted(MODELS.glob("*.toml"), key=lambda path: path.stem)
    return tuple(entry for path in paths for entry in _scan(path))


def _scan(path: Path) -> list[Entry]:
    head, *variants = path.read_text(encoding="utf-8").split("[[variants]]")
    family = _first(NAME, head)
    return [
        Entry(
            name=_first(NAME, variant),
            family=family,
            aliases=tuple(re.findall(r'"([^"]+)"', _first(ALIASES, variant))),
            path=path,
            generic=GENERIC.search(head) is not None,
        )
        for variant in variants
    ]


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""


@cache
def _by_name() -> dict[str, Entry]:
    return {key: entry for entry in entries() for key in (entry.name, *entry.aliases)}


def _load_from_file(name: str) -> Spec:
    stem, _, variant = name.partition(".toml")
    specs = read(Path(f"{stem}.toml").resolve())
    return _pick(specs, variant.removeprefix(":") or None)


def _pick(specs: tuple[Spec, ...], name: str | None) -> Spec:
    called = {key: spec for spec in specs for key in (spec.name, *spec.aliases)}
    if name in called:
        return called[name]
    if name is None and len(specs) == 1:
        return specs[0]
    raise UnknownSpec(name or "", list(called), what="variant")


def _nearest(name: str, known: list[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name.lower(), known, n=3)
