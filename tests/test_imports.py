"""Imports run one way: from the command line down to the spec, and never back.

Every import counts: at the head of a module, inside a function, for the type checker alone, and by a string that is
handed to `importlib`, to another process, or to an entry point.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "holotype_spec": ROOT / "spec" / "holotype_spec",
    "holotype_reference": ROOT / "reference" / "holotype_reference",
    "holotype_conformance": ROOT / "conformance" / "holotype_conformance",
}
# The rooms from the ground up; a module may import from its own room, and from those of lower floors.
FLOORS = (
    ("spec",),
    ("reference.oracle",),
    ("reference",),
    ("judge",),
    ("torch_tools",),
    ("models", "kernels"),
    ("mutation", "suites"),
    ("run",),
    ("report",),
    ("bench", "pytest_plugin"),
    ("commands",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Names that moved and stay for one release hand on what is above them, and nothing of ours imports them.
MOVED = ("adapters", "attention", "candidate", "parametrize", "plugin")
DOTTED = re.compile(r"holotype_(?:spec|reference|conformance)(?:\.\w+)+")


def modules() -> dict[str, Path]:
    """Dotted name -> file, of the three packages."""
    return {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for package, folder in PACKAGES.items()
        for path in sorted(folder.rglob("*.py"))
    }


MODULES = modules()
STANDARD = set(sys.stdlib_module_names)


def room(module: str) -> str | None:
    """The room that a module stands in; None at the door, where names of all rooms are handed out."""
    package, _, rest = module.partition(".")
    if package == "holotype_spec":
        return "spec"
    if package == "holotype_reference":
        return "reference.oracle" if rest.partition(".")[0] == "oracle" else "reference"
    first = rest.partition(".")[0]
    return None if not first or first in MOVED else first


def imported(name: str, source: str) -> Iterator[str]:
    """Every module of ours that `source` imports in any way, by the longest name that is one."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                parts = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*parts, *([module] if module else [])])
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Constant(value=str(text)) if DOTTED.fullmatch(text.partition(":")[0]):
                yield text.partition(":")[0]


def known_module(dotted: str) -> str | None:
    while dotted and dotted not in MODULES:
        dotted = dotted.rpartition(".")[0]
    return dotted or None


@cache
def arrows() -> dict[tuple[str, str], str]:
    """(importing module, imported module) -> what was written, between different modules of ours."""
    found = {}
    for name, path in MODULES.items():
        for dotted in imported(name, path.read_text(encoding="utf-8")):
            target = known_module(dotted)
            if target and target != name:
                found[name, target] = dotted
    return found


def test_every_module_stands_in_a_room() -> None:
    homeless = {name for name in MODULES if (r := room(name)) is not None and r not in FLOOR}
    assert not homeless


def test_imports_run_one_way() -> None:
    rooms = {(source, target): (room(source), room(target)) for source, target in arrows()}
    wrong = {
        arrow
        for arrow, (here, there) in rooms.items()
        if here and there and here != there and FLOOR[there] >= FLOOR[here]
    }
    assert not wrong


def test_the_oracle_shares_nothing_with_what_it_checks() -> None:
    allowed = {"__future__", "numpy", "holotype_spec", "holotype_reference"}
    for name in MODULES:
        if room(name) != "reference.oracle":
            continue
        named = set(imported(name, MODULES[name].read_text(encoding="utf-8")))
        packages = {dotted.partition(".")[0] for dotted in named}
        assert packages <= allowed | STANDARD, name
        ours = {dotted for dotted in named if dotted.startswith("holotype_reference")}
        assert all(dotted.startswith("holotype_reference.oracle") for dotted in ours), name


def test_no_modules_import_each_other() -> None:
    above: dict[str, set[str]] = {name: set() for name in MODULES}
    for source, target in arrows():
        above[source].add(target)
    reach = {name: _reached(above, name) for name in MODULES}
    circles = {
        frozenset({other for other in reach[name] if name in reach[other]})
        for name in MODULES
        if name in reach[name]
    }
    assert not circles


def test_the_tests_have_the_paths_of_the_source() -> None:
    for package, source in PACKAGES.items():
        tests = ROOT / "tests" / package.removeprefix("holotype_")
        folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
        assert not {each for each in folders if not (source / each).is_dir()}, package


def _reached(above: dict[str, set[str]], name: str) -> set[str]:
    """All modules that `name` imports, and those that they import."""
    found: set[str] = set()
    left = list(above[name])
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += above[each]
    return found
