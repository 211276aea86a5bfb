"""Standard streams that are closed, full or read no more: no traceback, and the exit code that it would have been."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from holotype_conformance.judge.records import Request, Result
from holotype_conformance.judge.verdict import reported

HOLOTYPE = f"{shlex.quote(sys.executable)} -c 'from holotype_conformance.cli import main; main()'"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="no such shell here"),
]


def shell(command, folder):
    """Run a line of the shell; its exit code is that of our part of it."""
    line = f"({HOLOTYPE} {command.replace('|', '; echo $? > code) |') if '|' in command else command + ')'}"
    # Python's own buffers, which a setting can take away, are what fails once more when a process ends.
    around = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    run = subprocess.run(["sh", "-c", line], cwd=folder, env=around, capture_output=True, text=True)
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr
    code = Path(folder, "code")
    return int(code.read_text()) if code.exists() else run.returncode


@pytest.fixture
def folder(tmp_path):
    """With reports of a candidate that conforms, one that does not and one of which that is undecided."""
    for name, outcome in {"good": "passed", "bad": "failed", "open": "undecided"}.items():
        facts = {"level": "must", "clause": "A clause.", "meaning": "A meaning. " * 2000}
        results = (
            Result(property="group.one", outcome="passed", seconds=0.0, **facts),
            Result(property="group.two", outcome=outcome, seconds=0.0, reason="why", **facts),
        )
        report = reported(
            Request(target="mine", specs=("gpt2",)),
            results,
            spec="gpt2",
            parameters=1,
            unusable=None,
            suite=2,
            holotype="1.0",
            candidate="mine",
            environment=None,
        )
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(report))
    return tmp_path


@pytest.mark.parametrize(("name", "code"), [("good", 0), ("bad", 1), ("open", 4)])
@pytest.mark.parametrize(
    "streams", [">&-", "2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-", "| head -c 1", "| true"]
)
def test_a_verdict_has_its_exit_code_whoever_reads_it(folder, name, code, streams):
    assert shell(f"report {name}.json {streams}", folder) == code


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("streams", [">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"])
def test_a_full_device_takes_the_text_and_not_the_verdict(folder, streams):
    assert shell(f"report bad.json {streams}", folder) == 1


def test_files_are_written_where_the_streams_are_closed(folder):
    assert shell("report bad.json --json out.json --junit out.xml >&- 2>&- <&-", folder) == 1
    assert json.loads((folder / "out.json").read_text())["verdict"] == "does-not-conform"
    assert "group.two" in (folder / "out.xml").read_text()


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&- 2>&-"])
@pytest.mark.parametrize(
    "command", ["show no-such-model", "check reference", "report none.json", "chekc"]
)
def test_bad_input_has_its_exit_code_where_it_cannot_be_told(folder, command, streams):
    if "full" in streams and not os.path.exists("/dev/full"):
        pytest.skip("no device that is always full")
    assert shell(f"{command} {streams}", folder) == 2


def test_a_page_that_nobody_reads_to_its_end_is_no_error(folder):
    assert shell("list | head -c 1", folder) in (0, 141)  # as fast as its reader is


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "import sys; from holotype_conformance.report.terminal import fill_closed_streams;"
        " fill_closed_streams(); sys.exit(open(sys.argv[1], 'w').fileno() <= 2)"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, "kept"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "kept").read_text() == ""
