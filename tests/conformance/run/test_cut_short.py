"""Runs that are cut short: what was judged is written, nothing is left running, and nothing is left lying about."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from holotype_conformance.run.interrupts import Interrupted, interrupts

PATIENT = Path(__file__).parents[1] / "patient.py"
MADE_UP = PATIENT.with_name("made_up_suite")  # makes the worker know the patient properties
# These tests may run where signals are ignored, as they are in a shell's background: a person's terminal ignores none.
HOLOTYPE = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " signal.signal(signal.SIGTERM, signal.SIG_DFL); signal.signal(signal.SIGHUP, signal.SIG_DFL);"
    " from holotype_conformance.cli import main; main()",
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
]


class Run:
    """A run of the patient candidate that is under way, in a folder of its own."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        (folder / "tmp").mkdir()
        command = [*HOLOTYPE, "check", f"{PATIENT}:build", "--spec", "gpt2", *arguments]
        path = os.pathsep.join([str(MADE_UP), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ
            | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": path, "MADE_UP_SUITE": PATIENT.name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, number):
        """Send a signal once the patient property is under way; what the run has said then."""
        while not (self.folder / "waiting").exists():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        time.sleep(0.2)  # for the events that are on their way
        self.process.send_signal(number)
        self.out, self.err = self.process.communicate(timeout=120)
        return self.process.returncode


def gone(pid):
    """Whether a process has ended, or does within a while."""
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
            return True
        time.sleep(0.05)
    return False


OUTPUTS = ("--json", "out.json", "--junit", "out.xml", "--html", "out.html")


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)], ids=str
)
def test_a_signal_ends_a_run_with_its_partial_reports(tmp_path, name, code):
    run = Run(tmp_path, *OUTPUTS)
    assert run.end(getattr(signal, name)) == code
    report = json.loads((tmp_path / "out.json").read_text())
    outcomes = {each["property"]: each["outcome"] for each in report["results"]}
    assert outcomes == {
        "first.holds": "passed",
        "first.fails": "failed",
        "second.daemon": "passed",
        "second.waits": "not-run",
        "third.holds": "not-run",
    }
    assert (report["interrupted"], report["counts"]["not-run"]) == (name, 2)
    assert report["verdict"] == "does-not-conform"
    suite = ElementTree.parse(tmp_path / "out.xml").getroot()[0]
    assert [each.get("type") for each in suite.iter("error")] == ["not-run", "not-run"]
    assert f"cut short by {name}" in (tmp_path / "out.html").read_text()
    assert "first.fails" in run.out
    assert run.err == f"interrupted by {name}: 2 properties were not run\n"
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "out.json.partial").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="orphans are found on Linux only")
def test_a_daemon_that_a_candidate_left_is_ended_and_named(tmp_path):
    run = Run(tmp_path, "--timeout", "1", "--json", "out.json")
    out, _ = run.process.communicate(timeout=300)
    daemon = int((tmp_path / "daemon").read_text())
    assert gone(daemon)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["left"] == [f"sleep 3211 (process {daemon})"]
    assert f"had left a process running, which was ended: sleep 3211 (process {daemon})" in (
        " ".join(out.split())
    )


def test_what_a_killed_run_had_judged_is_read_by_holotype_report(tmp_path):
    run = Run(tmp_path, *OUTPUTS)
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    assert not (tmp_path / "out.json").exists()
    command = [*HOLOTYPE, "report", "out.json.partial", "--json", "told.json"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 1, told.stderr
    report = json.loads((tmp_path / "told.json").read_text())
    assert [each["outcome"] for each in report["results"]] == (
        ["passed", "failed", "passed", "not-run", "not-run"]
    )
    assert report["interrupted"] == "the end of its process"
    assert "first.fails (must)" in told.stdout
    again = subprocess.run(
        [*HOLOTYPE, "report", "told.json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (again.returncode, again.stdout) == (1, told.stdout)
    if (tmp_path / "daemon").exists():  # nobody was left to end it
        os.kill(int((tmp_path / "daemon").read_text()), signal.SIGKILL)
    shutil.rmtree(tmp_path / "tmp")


def test_only_the_first_signal_counts_and_none_while_something_is_tidied_up():
    told = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def tidied(signals):
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            told.append("tidied")
        told.append("never")

    with interrupts() as signals:
        with pytest.raises(Interrupted) as caught:
            tidied(signals)
        os.kill(os.getpid(), signal.SIGINT)
        told.append("goes on")
    assert caught.value.signal == signal.SIGTERM
    assert told == ["tidied", "goes on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
