"""What is shipped, how it installs, and which package may import which."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "holotype_spec": ROOT / "spec" / "holotype_spec",
    "holotype_reference": ROOT / "reference" / "holotype_reference",
    "holotype_conformance": ROOT / "conformance" / "holotype_conformance",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAY_IMPORT = {
    "holotype_spec": set(),
    "holotype_reference": {"holotype_spec"},
    "holotype_conformance": {"holotype_spec", "holotype_reference"},
}


def build(hook: str, source: Path, output: Path) -> Path:
    """Call one hook of the build backend in the folder `source`, as installers do."""
    pytest.importorskip("hatchling")
    code = f"import sys; from hatchling.build import {hook} as h; print(h(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(output)],
        cwd=source,
        check=True,
        capture_output=True,
        text=True,
    )
    return output / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("build_sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel_names(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel that was built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    # Python 3.11.3 and older have no filters, newer ones warn where none is named.
    filtered = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **filtered)
    (source,) = folder.iterdir()
    wheel = build("build_wheel", source, tmp_path_factory.mktemp("wheel"))
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def files_of(folder: Path) -> set[str]:
    """Every file of a package, as a wheel names it."""
    return {
        path.relative_to(folder.parent).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_carries_every_file_of_the_three_packages_and_nothing_else(
    wheel_names: set[str],
) -> None:
    expected = set().union(*(files_of(folder) for folder in PACKAGES.values()))
    assert {name for name in wheel_names if ".dist-info/" not in name} == expected


@pytest.mark.parametrize(
    "name",
    [
        "holotype_spec/models/gpt2.toml",
        "holotype_spec/schema.json",
        "holotype_spec/py.typed",
        "holotype_reference/py.typed",
        "holotype_conformance/py.typed",
    ],
)
@pytest.mark.slow
def test_the_wheel_carries(wheel_names: set[str], name: str) -> None:
    assert name in wheel_names


@pytest.mark.slow
def test_the_sdist_carries_tests_examples_and_licence(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "tox.ini",
        "constraints.txt",
        "tests/test_packaging.py",
        "examples/third_party_gpt2/adapter.py",
    } <= names


def test_an_editable_install_is_three_plain_paths(tmp_path: Path) -> None:
    wheel = build("build_editable", ROOT, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        (pth,) = (name for name in archive.namelist() if name.endswith(".pth"))
        lines = archive.read(pth).decode().splitlines()
    assert sorted(lines) == sorted(str(folder.parent) for folder in PACKAGES.values())


def imports(path: Path) -> set[str]:
    """The top-level names of all that a file imports, in functions and type-checking blocks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_from_conformance_to_reference_to_spec_only(package: str) -> None:
    forbidden = PACKAGES.keys() - MAY_IMPORT[package] - {package}
    if package == "holotype_spec":
        forbidden = forbidden | {"torch"}
    for path in PACKAGES[package].rglob("*.py"):
        assert not imports(path) & forbidden, path


@pytest.mark.parametrize("library", ["transformers", "trl", "peft"])
@pytest.mark.slow
def test_only_adapters_import(library: str) -> None:
    for folder in PACKAGES.values():
        for path in folder.rglob("*.py"):
            assert library not in imports(path) or "adapters" in path.parts, path


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    report = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code + report], check=True, capture_output=True, text=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_loading_a_spec_imports_neither_torch_nor_numpy() -> None:
    loaded = loaded_after("import holotype_spec; holotype_spec.load('gpt2')")
    assert not loaded & {"torch", "numpy", "hypothesis", "pytest"}


def test_the_pytest_plugin_imports_neither_torch_nor_hypothesis_until_it_is_used() -> None:
    assert not loaded_after("import holotype_conformance.pytest_plugin.plugin") & {
        "torch",
        "hypothesis",
    }


def requirements() -> list[str]:
    """Everything that CI installs by name."""
    project = PROJECT["project"]
    named = [*PROJECT["build-system"]["requires"], *project["dependencies"], "tox", "editables"]
    # `dev` is these groups together, and what a person runs by hand.
    groups = {name: each for name, each in PROJECT["dependency-groups"].items() if name != "dev"}
    for group in (*project["optional-dependencies"].values(), *groups.values()):
        named += group
    return named


def closure(names: list[str]) -> set[str]:
    """These requirements and all that they require in turn, as far as it is installed here."""
    waiting, seen = [Requirement(name) for name in names], {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras}
        if extras <= seen.get(name, set()):
            continue
        seen[name] = extras | seen.get(name, set())
        try:
            further = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in further:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(child)
    return set(seen)


def test_the_constraints_pin_everything_that_ci_installs() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    assert closure(requirements()) <= {canonicalize_name(pin.name) for pin in pins}
