"""The parent of the worker: what it is told, starts, refuses and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from runpy import run_path

import pytest

from holotype_conformance.run import supervisor
from holotype_conformance.run.supervisor import (
    CandidateUnrunnable,
    RequestRejected,
)

workers = run_path(str(Path(__file__).with_name("workers.py")))
TARGET, Made, made, of, two, runs = (
    workers[name] for name in ("TARGET", "Made", "made", "of", "two", "runs")
)


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
    assert words == ["-P", "-m", "holotype_conformance.run.worker", "attention"]
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


def test_nothing_that_reads_a_worker_keeps_us_from_leaving(made: Made) -> None:
    """What a candidate has started may hold its ends of the pipes for ever."""
    run = made("until_planned('a.b')\npasses('a.b')\nsay('done')\ntime.sleep(0.2)")
    reading: list[threading.Thread] = []
    before = set(threading.enumerate())
    run.reactions["Finished"] = lambda: reading.extend({*threading.enumerate()} - before)
    run()
    assert len(reading) == 2
    assert all(thread.daemon for thread in reading)


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


def test_a_run_in_which_nothing_gets_done_after_an_unusable_spec_ends_too(made: Made) -> None:
    run = made("""
say("ready", environment=environment)
say("resolved", title="mine")
names = ("spec", "property", "level", "clause", "meaning")
plan = [(spec, "a.b", "must", "A clause.", "A meaning.") for spec in ("gpt2", "t5-small")]
say("collected", plan=[dict(zip(names, each)) for each in plan], environment=environment)
if not finished:
    say("smoke", spec="gpt2")
    os._exit(6)
if len(open(HERE + "/jobs").readlines()) > 4:
    passes("a.b", spec="t5-small")
os._exit(7)
""")
    record = run()
    assert len(run.jobs) == 2
    assert [each.outcome for each in record.of("t5-small")] == ["error"]


def test_whoever_is_done_with_some_is_not_asked_for_the_rest(made: Made) -> None:
    run = made('until_planned("a.b", "c.d")\npasses("a.b")\nsay("done")')
    record = run()
    assert len(run.jobs) == 1
    assert [entry.property for entry in record.open] == ["c.d"]


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
        while runs(pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert not runs(pid)


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
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # whoever starts the tests may ignore it
    try:
        record = run()
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert record.stopped == getattr(signal, name)
    assert run.told[-1] == "Stopped"
    assert run.record is record
    assert [each.outcome for each in record.of("gpt2")] == ["passed", "not-run"]
    assert not runs(json.loads((run.folder / "pids").read_text()))
