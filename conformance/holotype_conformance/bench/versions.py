"""A target at an earlier version: a commit, a wheel or a folder, made ready to be imported by a process of its own.

What of the import path lies inside the repository (or here, where there is none) is replaced by the same folders of the
earlier version; everything else, torch among it, stays as it is. So both versions run side by side.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from holotype_conformance.bench.side import BadRequest

SUITE = Path("holotype_conformance")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of an earlier version.

    Attributes:
        title: what reports call it.
        target: the target there.
        paths: folders that come first when it is imported.
        folder: where its process runs.
    """

    title: str
    target: str
    paths: tuple[Path, ...]
    folder: Path


def earlier(version: str, target: str, stack: ExitStack) -> Place:
    """The target at that version; what must be unpacked for it is deleted with `stack`.

    Raises:
        BadRequest: there is no such version, or no such target in it.
    """
    given = Path(version)
    if given.is_dir():
        then, now = given.resolve(), _top(Path.cwd()) or Path.cwd()
    elif given.suffix == ".whl":
        then, now = _unpacked(given, stack), Path.cwd()
    else:
        now = _repository(version, target)
        then = _commit(version, now, stack)
    return _place(version, target, now, then)


def _place(version: str, target: str, now: Path, then: Path) -> Place:
    paths = [then, *(then / entry for entry in _inside(map(Path, sys.path), now))]
    paths = list(dict.fromkeys(path for path in paths if path.is_dir()))
    _check_suite(paths, version)
    here = next(iter(_inside([Path.cwd()], now)), Path())
    folder = then / here
    return Place(
        title=f"{target} of {version}",
        target=_moved(target, version, now, then),
        paths=tuple(paths),
        folder=folder if folder.is_dir() else then,
    )


def _moved(target: str, version: str, now: Path, then: Path) -> str:
    """The target there: a file at the same place, or anything else under the same name."""
    name, colon, attribute = target.rpartition(":")
    if not name.endswith(".py"):
        return target
    inside = list(_inside([Path(name)], now))
    places = [then / path for path in inside] + [then / Path(name).name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise BadRequest(f"{version} has no file {inside[0] if inside else Path(name).name}")
    return f"{found}{colon}{attribute}"


def _inside(paths: Iterable[Path], root: Path) -> list[Path]:
    """Those that lie in `root`, relative to it."""
    resolved = [path.resolve() for path in paths]
    return [path.relative_to(root.resolve()) for path in resolved if _is_own(path, root.resolve())]


def _is_own(path: Path, root: Path) -> bool:
    """Whether it is part of what is developed there; an environment that lies inside is not."""
    return path.is_relative_to(root) and "site-packages" not in path.parts


def _check_suite(paths: list[Path], version: str) -> None:
    """Where that version brings a suite of its own, it must have benchmarks."""
    suite = next((path / SUITE for path in paths if (path / SUITE).is_dir()), None)
    if suite is not None and not (suite / "bench" / "worker.py").is_file():
        raise BadRequest(f"the holotype of {version} has no benchmarks yet: choose a later version")


# Getting hold of it -----------------------------------------------------------------------------------------------


def _unpacked(wheel: Path, stack: ExitStack) -> Path:
    folder = _scratch(stack)
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise BadRequest(f"{wheel} cannot be read as a wheel: {error}") from error
    return folder


def _repository(version: str, target: str) -> Path:
    name = target.rpartition(":")[0]
    start = Path(name).resolve().parent if name.endswith(".py") else Path.cwd()
    top = _top(start)
    if top is None:
        raise BadRequest(
            f"there is no folder {version!r}, and {start} is in no git repository that could have a commit of"
            " that name; expected a commit, a wheel (.whl) or a folder"
        )
    return top


def _top(folder: Path) -> Path | None:
    found = _git(folder, "rev-parse", "--show-toplevel")
    return None if found is None else Path(found.decode().strip())


def _commit(version: str, top: Path, stack: ExitStack) -> Path:
    found = _git(
        top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{version}^{{commit}}"
    )
    if found is None:
        raise BadRequest(
            f"{version!r} is no commit of {top}, and no folder; expected a commit, a wheel (.whl) or a folder"
        )
    packed = _git(top, "archive", "--format=tar", found.decode().split()[-1])
    if packed is None:
        raise BadRequest(f"git could not give out the commit {version!r} of {top}")
    folder = _scratch(stack)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # Python 3.11.3 and older
            archive.extractall(folder)
    return folder


def _git(folder: Path, *arguments: str) -> bytes | None:
    """The output of git; None where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def _scratch(stack: ExitStack) -> Path:
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holotype-"))).resolve()
