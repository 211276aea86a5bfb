"""The parent of the worker, with workers of a few lines in place of ours: what each can do, and what is made of it.

They speak the protocol by themselves, without a line of ours and without torch, so that each costs some hundredths of
a second.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holotype_conformance import supervisor
from holotype_conformance.records import AnyEvent, Request, Result
from holotype_conformance.supervisor import (
    CandidateUnrunnable,
    Record,
    RequestRejected,
    supervise,
)

SPEAKING = """#!{python} -IS
import hashlib, json, os, signal, subprocess, sys, time

HERE = {folder!r}
environment = {{
    "python": "3", "torch": "2", "platform": "here", "device": "cpu", "versions": {{}},
}}
number = 0

def line(event, fields):
    text = json.dumps({{"event": event, **fields}}).encode()
    signature = hashlib.blake2b(number.to_bytes(8, "big") + text, key=key, digest_size=16)
    return signature.hexdigest().encode() + b" " + text + b"\\n"

def write(text):
    os.write(1, text)

def say(event, **fields):
    global number
    number += 1
    write(line(event, fields))

def result(slug, outcome="passed", **fields):
    return {{"property": slug, "level": "must", "outcome": outcome, "seconds": 0.5, **fields}}

def planned(*slugs, spec="gpt2"):
    names = ("spec", "property", "level", "clause", "meaning")
    plan = [dict(zip(names, (spec, slug, "must", "A clause.", "A meaning."))) for slug in slugs]
    say("collected", plan=plan, environment=environment, suite=9, declared={{}})

def until_planned(*slugs):
    say("ready", environment=environment)
    say("resolved", title="mine")
    planned(*slugs)

def passes(slug, spec="gpt2"):
    say("started", spec=spec, property=slug)
    say("finished", spec=spec, result=result(slug))

def left_alone():
    time.sleep(8)  # whoever is not killed ends by itself
    os._exit(9)

def spin():
    end = time.process_time() + 8
    while time.process_time() < end:
        pass
    os._exit(9)

written = sys.stdin.readline()
job = json.loads(written)
with open(HERE + "/jobs", "a") as jobs:
    jobs.write(json.dumps(job) + "\\n")
key = job["key"].encode()
finished = [slug for spec, slug in job["finished"]]
"""
TARGET = "mine.py:build"


class Run:
    """One run with workers that do what `script` says, and what was told of it."""

    def __init__(self, folder: Path, script: str, request: Request) -> None:
        self.folder = folder
        path = folder / "worker"
        path.write_text(SPEAKING.format(python=sys.executable, folder=str(folder)) + script)
        path.chmod(0o755)
        self.request = request
        self.reactions: dict[str, Callable[[], None]] = {}  # to an event
        self.events: list[AnyEvent] = []
        self.record: Record | None = None

    def __call__(self) -> Record:
        def watch(event: AnyEvent, record: Record) -> None:
            self.events.append(event)
            self.record = record
            self.reactions.get(type(event).__name__, lambda: None)()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(self.folder / "worker"))
            return supervise(self.request, watch)

    @property
    def told(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "jobs").read_text().splitlines()]


Made = Callable[..., Run]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    def make(script: str, **request: Any) -> Run:
        return Run(tmp_path, script, Request(target=TARGET, specs=("gpt2",), **request))

    return make


def of(record: Record, slug: str, spec: str = "gpt2") -> Result:
    return record.results[spec, slug]


def two(doing: str) -> str:
    """A worker that does `doing` in the property a.b, and another one that finishes c.d."""
    indented = "\n".join(f"    {line}" for line in doing.splitlines())
    return f"""
until_planned("a.b", "c.d")
if "a.b" not in finished:
    say("started", spec="gpt2", property="a.b")
    say("trying", case={{"size": 7}})
{indented}
passes("c.d")
say("done")
"""


# All goes well --------------------------------------------------------------------------------------------------


def test_what_a_worker_says_is_kept_and_told_in_its_order(made: Made) -> None:
    run = made("""
until_planned("a.b", "c.d")
say("smoke", spec="gpt2")
passes("a.b")
say("started", spec="gpt2", property="c.d")
say("trying", case={"size": 3})
say("broken", spec="gpt2", result=result("c.d", "failed", reason="large"))
say("judged", spec="gpt2", result=result("c.d", "failed", reason="small"))
say("finished", spec="gpt2", result=result("c.d", "failed", reason="small, explained"))
say("done")
""")
    record = run()
    assert run.told == [
        *("Ready", "Resolved", "Collected", "Smoke", "Started", "Finished"),
        *("Started", "Trying", "Broken", "Judged", "Finished", "Done"),
    ]
    assert record.title == "mine"
    assert record.suite == 9
    assert [entry.property for entry in record.plan] == ["a.b", "c.d"]
    assert of(record, "a.b").outcome == "passed"
    assert of(record, "c.d").reason == "small, explained"
    assert (record.stopped, record.left, record.unusable) == (None, [], {})
    assert run.record is record
    assert len(run.jobs) == 1


def test_a_worker_is_our_interpreter_in_a_session_and_with_a_folder_of_its_own(made: Made) -> None:
    run = made(
        """
with open(HERE + "/seen", "w") as file:
    folder = os.environ["HYPOTHESIS_STORAGE_DIRECTORY"]
    assert os.path.isdir(folder) and "holotype-" in folder
    os.mkdir(folder + "/used")
    group, session = os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid()
    json.dump([sys.argv[1:], os.environ["OTHER"], folder, group, session], file)
until_planned("a.b")
passes("a.b")
say("done")
""",
        kind="attention",
        seed=3,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTHER", "kept")
        run()
    words, other, folder, group, session = json.loads((run.folder / "seen").read_text())
    assert words == ["-P", "-m", "holotype_conformance.worker", "attention"]
    assert other == "kept"
    assert (group, session) == (True, True)
    assert not Path(folder).exists()
    (job,) = run.jobs
    assert job["request"]["target"] == TARGET
    assert job["request"]["seed"] == 3
    assert (job["finished"], job["smoked"]) == ([], [])
    assert len(job["key"]) == 64


def test_each_run_signs_with_a_key_of_its_own(made: Made) -> None:
    run = made("until_planned('a.b')\npasses('a.b')\nsay('done')")
    run()
    run()
    first, second = run.jobs
    assert first["key"] != second["key"]


def test_events_that_are_not_the_workers_or_come_twice_are_none(made: Made) -> None:
    """A candidate finds the way to us, and what was said there; it has no key, and each number counts once."""
    run = made("""
until_planned("a.b")
say("started", spec="gpt2", property="a.b")
write(b"rubbish\\n\\n")
own, key = key, b"guessed"
forged = line("finished", {"spec": "gpt2", "result": result("a.b")})
write(forged)
write(forged.partition(b" ")[2])
key = own
number += 1
true = line("finished", {"spec": "gpt2", "result": result("a.b", "failed", reason="seen")})
write(true)
write(true)
number -= 1
write(line("finished", {"spec": "gpt2", "result": result("a.b")}))
number += 1
say("done")
""")
    record = run()
    assert run.told == ["Ready", "Resolved", "Collected", "Started", "Finished", "Done"]
    assert of(record, "a.b").reason == "seen"


def test_an_event_that_was_cut_short_is_none(made: Made) -> None:
    run = made(two('number += 1; write(line("done", {})[:-9]); os._exit(3)'))
    record = run()
    assert of(record, "a.b").reason == (
        "the candidate's process exited with status 3 during this property"
    )
    assert of(record, "c.d").outcome == "passed"


@pytest.mark.parametrize(("leaving", "stays"), [(10.0, 0.3), (0.1, 8.0)])
def test_whoever_is_done_has_time_to_leave_and_no_more(
    made: Made, monkeypatch: pytest.MonkeyPatch, leaving: float, stays: float
) -> None:
    monkeypatch.setattr(supervisor, "LEAVING", leaving)
    run = made(f"""
until_planned("a.b")
passes("a.b")
say("done")
time.sleep({stays})
open(HERE + "/left", "w").close()
""")
    assert of(run(), "a.b").outcome == "passed"
    assert (run.folder / "left").exists() == (stays < leaving)


def test_times_to_wait_fit_slow_disks_and_people() -> None:
    """Our own imports may take minutes, and nobody waits for hours."""
    assert 60 <= supervisor.STARTING <= 1200
    assert 1 <= supervisor.GRACE <= 30
    assert 1 <= supervisor.LEAVING <= 60


# It ends in the middle ------------------------------------------------------------------------------------------


def test_whoever_ends_the_process_has_failed_and_another_goes_on_with_the_rest(made: Made) -> None:
    run = made(
        two("""
os.write(2, b"first\\nsecond \\xff\\n")
time.sleep(0.05)
os._exit(3)
"""),
        seed=5,
    )
    record = run()
    found = of(record, "a.b")
    assert (found.outcome, found.ended, found.level) == ("failed", True, "must")
    assert found.reason == "the candidate's process exited with status 3 during this property"
    assert (found.clause, found.meaning) == ("A clause.", "A meaning.")
    assert found.details == "first\nsecond �"
    assert 0.05 <= found.seconds < 60
    assert found.seconds == round(found.seconds, 3)
    assert found.counterexample is not None
    assert found.counterexample.case == {"size": 7}
    assert found.counterexample.facts == {}
    assert found.counterexample.rerun == (
        "holotype check mine.py:build --spec gpt2 --property a.b --seed 5 --case '{\"size\":7}'"
    )
    assert of(record, "c.d").outcome == "passed"
    before, after = run.jobs
    assert (before["finished"], before["smoked"]) == ([], [])
    assert (after["finished"], after["smoked"]) == ([["gpt2", "a.b"]], ["gpt2"])
    assert before["key"] != after["key"]
    assert run.told[3:6] == ["Started", "Trying", "Finished"]


def test_what_printed_nothing_and_had_no_case_yet_has_neither(made: Made) -> None:
    run = made("""
until_planned("a.b", "c.d")
if not finished:
    passes("c.d")
    say("started", spec="gpt2", property="a.b")
    os._exit(0)
""")
    found = of(run(), "a.b")
    assert found.reason == "the candidate's process exited with status 0 during this property"
    assert found.details is None
    assert found.counterexample is not None
    assert found.counterexample.case == {}
    assert found.counterexample.rerun.endswith("--property a.b")


@pytest.mark.parametrize(
    ("name", "outcome"), [("SIGKILL", "failed"), ("SIGALRM", "undecided"), ("SIGXCPU", "undecided")]
)
def test_whom_the_alarm_of_its_limit_ends_is_undecided(made: Made, name: str, outcome: str) -> None:
    found = of(made(two(f"os.kill(os.getpid(), signal.{name})"))(), "a.b")
    assert (found.outcome, found.ended) == (outcome, outcome == "failed")
    assert f"the candidate's process crashed ({name}: " in (found.reason or "")


def test_what_was_seen_before_the_end_is_kept_and_only_the_search_is_lost(made: Made) -> None:
    seen = """
say("broken", spec="gpt2", result=result("a.b", "failed", reason="large"))
os._exit(3)
"""
    found = of(made(two(seen))(), "a.b")
    assert found.reason == "large (after that its process exited with status 3)"
    assert (found.outcome, found.ended, found.seconds) == ("failed", True, 0.5)
    judged = seen.replace(
        "os._exit(3)",
        'say("judged", spec="gpt2", result=result("a.b", "failed", reason="small"))\nos._exit(3)',
    )
    found = of(made(two(judged))(), "a.b")
    assert (found.outcome, found.reason, found.ended) == ("failed", "small", False)
    assert found.undiagnosed == (
        "the candidate's process exited with status 3 during the search for a diagnosis"
    )


@pytest.mark.parametrize("ended", [False, True])
def test_a_failure_seen_before_the_time_was_up_is_no_end_of_the_process(
    made: Made, ended: bool
) -> None:
    seen = f"""
say("broken", spec="gpt2", result=result("a.b", "failed", reason="large", ended={ended}))
os.kill(os.getpid(), signal.SIGALRM)
"""
    found = of(made(two(seen))(), "a.b")
    assert (found.outcome, found.ended) == ("failed", ended)
    assert (found.reason or "").startswith("large (after that its process crashed (SIGALRM: ")


def test_what_was_seen_in_one_property_says_nothing_of_the_next(made: Made) -> None:
    run = made("""
until_planned("a.b", "c.d", "e.f")
if not finished:
    say("started", spec="gpt2", property="c.d")
    say("trying", case={"size": 3})
    say("broken", spec="gpt2", result=result("c.d", "failed", reason="large"))
    say("judged", spec="gpt2", result=result("c.d", "failed", reason="small"))
    say("finished", spec="gpt2", result=result("c.d", "failed", reason="small"))
    passes("e.f")
    say("started", spec="gpt2", property="a.b")
    os._exit(4)
""")
    found = of(run(), "a.b")
    assert found.property == "a.b"
    assert found.reason == "the candidate's process exited with status 4 during this property"
    assert found.counterexample is not None
    assert found.counterexample.case == {}


def test_an_expected_failure_absorbs_no_end_of_the_process_but_what_was_seen(made: Made) -> None:
    expected = {"a.b": "issue 1", "gpt2.c.d": "issue 2", "e.f": "issue 3", "g.h": "issue 4"}
    run = made(
        """
until_planned("a.b", "c.d", "e.f")
if "a.b" not in finished:
    say("started", spec="gpt2", property="a.b")
    os._exit(3)
if "c.d" not in finished:
    say("started", spec="gpt2", property="c.d")
    say("judged", spec="gpt2", result=result("c.d", "failed", reason="small"))
    os._exit(3)
say("finished", spec="gpt2", result=result("e.f", "skipped", reason="it has none"))
say("done")
""",
        expected=expected,
    )
    record = run()
    assert of(record, "a.b").outcome == "failed"
    assert (of(record, "a.b").reason or "").endswith(
        "(listed as an expected failure, which is never one of these)"
    )
    assert of(record, "c.d").outcome == "expected-failure"
    assert of(record, "c.d").reason == "issue 2 (seen: small)"
    assert of(record, "e.f").outcome == "error"  # nothing answered to the entry
    assert len(run.jobs) == 3


def test_only_the_last_lines_of_what_it_printed_are_kept(made: Made) -> None:
    printing = """
os.write(2, b"".join(b"%d\\n" % each for each in range(1000)))
os.write(2, b"x" * 300_000 + b"\\nlast")
os._exit(3)
"""
    details = of(made(two(printing))(), "a.b").details or ""
    assert details.endswith("x\nlast")
    lines = details.splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 20_000
    few = 'os.write(2, b"".join(b"%d\\n" % each for each in range(1000)))\nos._exit(3)'
    assert of(made(two(few))(), "a.b").details == "\n".join(map(str, range(800, 1000)))


# It does not answer ---------------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "GRACE", 0.1)
    monkeypatch.setattr(supervisor, "LEAVING", 5.0)


@pytest.mark.usefixtures("hurried")
def test_whoever_is_late_is_killed_and_undecided(made: Made) -> None:
    run = made(two('open(HERE + "/began", "w").close()\nspin()'), limit=0.2)
    record = run()
    found = of(record, "a.b")
    assert (found.outcome, found.ended) == ("undecided", False)
    said = "the candidate's process did not answer within 0.2 s and had to be killed (it had 0."
    assert (found.reason or "").startswith(said)
    assert (found.reason or "").endswith(") during this property")
    assert of(record, "c.d").outcome == "passed"


@pytest.mark.usefixtures("hurried")
def test_each_property_and_each_search_for_a_diagnosis_has_the_limit_for_itself(made: Made) -> None:
    """Each takes 0.12 s of the 0.2 that it has, and all of them together more than twice as much as one may."""
    run = made(
        """
def work():
    end = time.process_time() + 0.12
    while time.process_time() < end:
        pass

until_planned("a.b", "c.d")
for slug in ("a.b", "c.d"):
    say("started", spec="gpt2", property=slug)
    work()
    say("judged", spec="gpt2", result=result(slug, "failed", reason="small"))
    work()
    say("finished", spec="gpt2", result=result(slug, "failed", reason="small"))
say("done")
""",
        limit=0.1,
    )
    record = run()
    assert len(run.jobs) == 1
    assert [each.undiagnosed for each in record.results.values()] == [None, None]


@pytest.mark.usefixtures("hurried")
def test_a_search_for_a_diagnosis_that_is_late_leaves_the_failure(made: Made) -> None:
    judged = 'say("judged", spec="gpt2", result=result("a.b", "failed", reason="small"))\nspin()'
    found = of(made(two(judged), limit=0.2)(), "a.b")
    assert (found.outcome, found.reason) == ("failed", "small")
    assert "did not answer within 0.2 s" in (found.undiagnosed or "")


@pytest.mark.usefixtures("hurried")
def test_without_a_limit_nothing_is_late(made: Made) -> None:
    busy = """
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
say("finished", spec="gpt2", result=result("a.b"))
"""
    assert of(made(two(busy), limit=0.0)(), "a.b").outcome == "passed"


# It cannot be run -----------------------------------------------------------------------------------------------

READY = 'say("ready", environment=environment)\n'
RESOLVED = READY + 'say("resolved", title="mine")\n'


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "",
            "the process that runs the candidate exited with status 5, before the target was imported",
        ),
        (READY, "its process exited with status 5 while it was imported"),
        (
            RESOLVED,
            "the process that runs the candidate exited with status 5, before anything was judged",
        ),
        (
            RESOLVED + 'say("smoke", spec="gpt2")\n',
            "its process exited with status 5 while one small model was built and run",
        ),
    ],
)
def test_who_ends_before_there_is_a_plan_cannot_be_run(made: Made, script: str, said: str) -> None:
    with pytest.raises(CandidateUnrunnable) as caught:
        made(script + 'os.write(2, b"why\\n")\nos._exit(5)')()
    assert str(caught.value) == said
    assert caught.value.details == "why"


@pytest.mark.parametrize(
    ("unrunnable", "kind"), [(False, RequestRejected), (True, CandidateUnrunnable)]
)
def test_what_is_rejected_is_raised_with_its_details(
    made: Made, unrunnable: bool, kind: type[Exception]
) -> None:
    run = made(
        READY
        + f'say("rejected", message="no such", details="trace", unrunnable={unrunnable})\nsay("done")'
    )
    with pytest.raises(RequestRejected) as caught:
        run()
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.details) == ("no such", "trace")
    assert run.told == ["Ready", "Rejected", "Done"]
    assert RequestRejected("no").details == ""


def test_a_case_that_is_rejected_is_raised_even_after_the_plan(made: Made) -> None:
    rejecting = """
until_planned("a.b")
say("started", spec="gpt2", property="a.b")
say("rejected", message="no case of it")
say("done")
"""
    with pytest.raises(RequestRejected, match="no case of it"):
        made(rejecting, case="{}")()


def test_a_spec_whose_first_run_ends_the_process_is_unusable_and_the_others_go_on(
    made: Made,
) -> None:
    run = made("""
say("ready", environment=environment)
say("resolved", title="mine")
names = ("spec", "property", "level", "clause", "meaning")
plan = [(spec, "a.b", "must", "A clause.", "A meaning.") for spec in ("gpt2", "t5-small")]
plan = [dict(zip(names, each)) for each in plan]
say("collected", plan=plan, environment=environment)
if not finished:
    say("smoke", spec="gpt2")
    os._exit(6)
say("smoke", spec="t5-small")
passes("a.b", spec="t5-small")
say("done")
""")
    record = run()
    reason = "its process exited with status 6 while one small model was built and run"
    assert record.unusable == {"gpt2": reason}
    assert of(record, "a.b", "t5-small").outcome == "passed"
    assert [each.outcome for each in record.of("gpt2")] == ["error"]
    _, after = run.jobs
    assert (after["finished"], after["smoked"]) == ([["gpt2", "a.b"]], [])
    assert run.told[:5] == ["Ready", "Resolved", "Collected", "Smoke", "Unusable"]


def test_a_run_in_which_nothing_gets_done_ends(made: Made) -> None:
    run = made('until_planned("a.b")\nos._exit(3)')
    record = run()
    assert len(run.jobs) == 1
    assert [each.outcome for each in record.of("gpt2")] == ["error"]


def test_a_worker_that_only_leaves_after_its_last_property_is_not_tried_again(made: Made) -> None:
    run = made('until_planned("a.b")\npasses("a.b")\nos._exit(3)')
    assert of(run(), "a.b").outcome == "passed"
    assert len(run.jobs) == 1


def test_a_worker_that_ends_before_it_reads_is_told_of_as_any_other(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made("", expected={"a.b": "x" * 300_000})  # more than a pipe holds
    (run.folder / "worker").write_text("#!/bin/sh\nexit 5\n")
    with pytest.raises(CandidateUnrunnable, match="status 5, before the target was imported"):
        run()


# What it leaves behind ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nobody else adopts orphans")
def test_processes_that_are_left_running_are_ended_and_named(made: Made) -> None:
    starts = """
outside = subprocess.Popen(["sleep", "9.25"], start_new_session=True)
inside = subprocess.Popen(["sleep", "9.5"])
with open(HERE + "/pids", "w") as file:
    json.dump([outside.pid, inside.pid], file)
"""
    run = made(starts + 'until_planned("a.b")\npasses("a.b")\nsay("done")')
    record = run()
    outside, inside = json.loads((run.folder / "pids").read_text())
    assert record.left == [f"sleep 9.25 (process {outside})"]
    assert run.told[-1] == "Left"
    for pid in (outside, inside):
        end = time.monotonic() + 5
        while _runs(pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_run_and_what_was_judged_stays(made: Made, name: str) -> None:
    run = made(
        """
until_planned("a.b", "c.d")
with open(HERE + "/pids", "w") as file:
    json.dump(os.getpid(), file)
passes("a.b")
left_alone()
""",
        expected={"e.f": "issue 1"},
    )
    run.reactions["Finished"] = lambda: os.kill(os.getpid(), getattr(signal, name))
    before = signal.getsignal(getattr(signal, name))
    record = run()
    assert signal.getsignal(getattr(signal, name)) is before
    assert record.stopped == getattr(signal, name)
    assert run.told[-1] == "Stopped"
    assert run.record is record
    assert [each.outcome for each in record.of("gpt2")] == ["passed", "not-run"]
    assert not _runs(json.loads((run.folder / "pids").read_text()))
