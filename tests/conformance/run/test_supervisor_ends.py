"""The parent of the worker: what becomes of a property whose worker ends or does not answer."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from holotype_conformance.run import supervisor
from holotype_conformance.run.supervisor import (
    CandidateUnrunnable,
    ending,
)

workers = run_path(str(Path(__file__).with_name("workers.py")))
TARGET, Made, made, of, two, runs = (
    workers[name] for name in ("TARGET", "Made", "made", "of", "two", "runs")
)


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


def test_whoever_closes_its_way_to_us_first_is_told_by_how_it_ends(made: Made) -> None:
    found = of(made(two("os.close(1)\ntime.sleep(0.3)\nos._exit(3)"))(), "a.b")
    assert found.reason == "the candidate's process exited with status 3 during this property"


def test_whoever_closes_its_way_to_us_and_stays_is_killed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LEAVING", 0.1)
    found = of(made(two("os.close(1)\nleft_alone()"))(), "a.b")
    assert (found.reason or "").startswith("the candidate's process crashed (SIGKILL: ")


def test_the_seconds_of_a_lost_property_are_those_since_it_began(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 1.23456 * next(ticks))
    monkeypatch.setattr(supervisor, "time", clock)
    assert of(made(two("os._exit(3)"))(), "a.b").seconds == 1.235


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


def test_what_it_printed_last_is_waited_for(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    read = supervisor._Worker._read_printed

    def late(worker: Any, stream: Any) -> None:
        time.sleep(0.2)
        read(worker, stream)

    monkeypatch.setattr(supervisor._Worker, "_read_printed", late)
    found = of(made(two('os.write(2, b"why\\n")\nos._exit(3)'))(), "a.b")
    assert found.details == "why"


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


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (129, "exited with status 129, as a shell tells of one that SIGHUP ended"),
        (139, "exited with status 139, as a shell tells of one that SIGSEGV ended"),
        (70, "exited with status 70, as ours does when its way to us is cut"),
        (255, "exited with status 255"),
        (-1, "crashed (SIGHUP)"),
        (-11, "crashed (SIGSEGV)"),
        (-9, "crashed (SIGKILL: killed from outside, as systems do when memory runs out)"),
        (-250, "crashed (signal 250)"),
    ],
)
def test_the_end_of_a_process_is_told_in_words(status, words):
    assert ending(status).startswith(words)


# It does not answer ---------------------------------------------------------------------------------------------


class Clock:
    """Accounts of time whose time is up when a test says so; which were opened, for how long."""

    def __init__(self) -> None:
        self.limits: list[float] = []
        self.last: _Account | None = None
        self.at_once = False

    def __call__(self, limit: float, pid: int) -> Any:
        self.limits.append(limit)
        self.last = _Account(limit, pid, self.at_once)
        return self.last

    def strike(self) -> None:
        assert self.last is not None
        self.last.up = True


class _Account:
    def __init__(self, limit: float, pid: int, up: bool) -> None:
        self.limit, self.pid, self.up = limit, pid, up

    def left(self) -> float:
        return 0.0 if self.up else 60.0

    def told(self) -> str:
        return "it had 3 s" if runs(self.pid) else ""  # of a dead process nothing can be told


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(supervisor, "Account", found)
    monkeypatch.setattr(supervisor, "STARTING", 100.0)
    monkeypatch.setattr(supervisor, "GRACE", 2.0)
    return found


def test_whoever_is_late_is_killed_and_undecided(made: Made, clock: Clock) -> None:
    run = made(two("left_alone()"), limit=0.25)
    run.reactions["Trying"] = clock.strike
    record = run()
    found = of(record, "a.b")
    assert (found.outcome, found.ended) == ("undecided", False)
    assert found.reason == (
        "the candidate's process did not answer within 0.25 s and had to be killed (it had 3 s)"
        " during this property"
    )
    assert of(record, "c.d").outcome == "passed"


def test_each_property_and_each_search_for_a_diagnosis_has_the_limit_for_itself(
    made: Made, clock: Clock
) -> None:
    run = made(
        """
until_planned("a.b")
say("smoke", spec="gpt2")
say("started", spec="gpt2", property="a.b")
say("trying", case={})
say("broken", spec="gpt2", result=result("a.b", "failed", reason="large"))
say("judged", spec="gpt2", result=result("a.b", "failed", reason="small"))
say("finished", spec="gpt2", result=result("a.b", "failed", reason="small"))
say("unusable", spec="t5-small", reason="it has none")
say("done")
""",
        limit=7.0,
    )
    run()
    # at first, ready, resolved, smoke, started, judged, finished, unusable
    assert clock.limits == [102.0, 9.0, 102.0, 9.0, 9.0, 9.0, 102.0, 102.0]


def test_a_search_for_a_diagnosis_that_is_late_leaves_the_failure(made: Made, clock: Clock) -> None:
    judged = 'say("judged", spec="gpt2", result=result("a.b", "failed", reason="small"))\n'
    run = made(two(judged + "left_alone()"), limit=0.5)
    run.reactions["Judged"] = clock.strike
    found = of(run(), "a.b")
    assert (found.outcome, found.reason) == ("failed", "small")
    assert found.undiagnosed == (
        "the candidate's process did not answer within 0.5 s and had to be killed (it had 3 s)"
        " during the search for a diagnosis"
    )


def test_without_a_limit_nothing_is_late_but_a_start(made: Made, clock: Clock) -> None:
    run = made(two('time.sleep(0.6)\npasses("a.b")'), limit=0.0)
    run.reactions["Trying"] = clock.strike
    assert of(run(), "a.b").outcome == "passed"
    assert set(clock.limits) == {102.0}


def test_whoever_does_not_start_in_time_cannot_be_run(made: Made, clock: Clock) -> None:
    clock.at_once = True
    with pytest.raises(CandidateUnrunnable) as caught:
        made("left_alone()", limit=0.0)()
    assert str(caught.value) == (
        "the process that runs the candidate did not answer within 100 s and had to be killed"
        " (it had 3 s), before the target was imported"
    )
