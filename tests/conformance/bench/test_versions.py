"""The same target at an earlier version: found in commits, wheels and folders, and run side by side."""

from __future__ import annotations

import subprocess
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from holotype_conformance.bench.side import BadRequest
from holotype_conformance.bench.versions import earlier

pytestmark = pytest.mark.slow

OLD, NEW = "def attention(q, k, v): return 1\n", "def attention(q, k, v): return 2\n"


def git(folder: Path, *arguments: str) -> None:
    name = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(folder), *name, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a kernel at two versions, in a folder that is on the import path."""
    top = tmp_path / "repository"
    kernel = top / "src" / "kernels.py"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(OLD)
    git(top, "init", "-q")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "old")
    kernel.write_text(NEW)
    git(top, "commit", "-qam", "new")
    monkeypatch.chdir(top)
    monkeypatch.syspath_prepend(str(top / "src"))
    return top


@pytest.mark.usefixtures("repository")
def test_a_file_at_a_commit_is_that_commits_file() -> None:
    with ExitStack() as stack:
        place = earlier("HEAD~1", "src/kernels.py:attention", stack)
        name, _, attribute = place.target.rpartition(":")
        assert Path(name).read_text() == OLD
        assert attribute == "attention"
        assert place.title == "src/kernels.py:attention of HEAD~1"
    assert not Path(name).exists()


@pytest.mark.usefixtures("repository")
def test_a_module_is_looked_for_in_the_same_folders_of_the_earlier_version() -> None:
    with ExitStack() as stack:
        place = earlier("HEAD~1", "kernels:attention", stack)
        assert place.target == "kernels:attention"
        assert (place.paths[1] / "kernels.py").read_text() == OLD
        assert place.paths[0] == place.folder


def test_a_wheel_is_unpacked_and_comes_first(tmp_path: Path) -> None:
    wheel = tmp_path / "kernels-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("kernels.py", OLD)
    with ExitStack() as stack:
        place = earlier(str(wheel), "kernels:attention", stack)
        assert (place.paths[0] / "kernels.py").read_text() == OLD


def test_a_folder_is_used_as_it_is(repository: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "kernels.py").write_text(OLD)
    with ExitStack() as stack:
        place = earlier(str(before), "src/kernels.py:attention", stack)
        assert place.target == f"{before / 'kernels.py'}:attention"
    assert before.exists()


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("version", "target", "said"),
    [
        ("no-such-commit", "src/kernels.py:attention", "no commit of"),
        ("--all", "src/kernels.py:attention", "no commit of"),
        ("HEAD~1", "src/others.py:attention", "has no file src/others.py"),
        ("missing.whl", "kernels:attention", "cannot be read as a wheel"),
    ],
)
def test_a_version_that_is_not_there_is_said_to(version: str, target: str, said: str) -> None:
    with ExitStack() as stack, pytest.raises(BadRequest, match=said):
        earlier(version, target, stack)


def test_without_a_repository_only_a_folder_or_a_wheel_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack, pytest.raises(BadRequest, match="in no git repository"):
        earlier("HEAD", "kernels:attention", stack)


def test_a_suite_without_benchmarks_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "holotype_conformance").mkdir()
    with ExitStack() as stack, pytest.raises(BadRequest, match="has no benchmarks yet"):
        earlier(str(tmp_path), "reference:fused", stack)
