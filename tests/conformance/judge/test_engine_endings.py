"""The engine line by line: what is said of each way in which a property ends.

Cases are given, not drawn, wherever it does not matter which they are: drawing takes longest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from runpy import run_path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import strategies as st

from holotype_conformance.judge import engine
from holotype_conformance.judge.engine import Mistake, Settings, judge
from holotype_conformance.judge.given_case import CaseError
from holotype_conformance.judge.guard import Evasion
from holotype_conformance.judge.property import Skip, SuiteFault, Violation, measured, noted
from holotype_conformance.judge.records import Result
from holotype_conformance.judge.time_limit import time_up

made_up = run_path(str(Path(__file__).with_name("made_up.py")))
Sizes, claim, subject, run = (made_up[name] for name in ("Sizes", "claim", "subject", "run"))
raising, passing = made_up["raising"], made_up["passing"]


# What becomes of a property -------------------------------------------------------------------------------------


def test_a_pass_has_nothing_but_its_measurements_and_notes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([2.0, 3.2345678])
    monkeypatch.setattr(engine, "perf_counter", lambda: next(seconds, 9.0))

    def check(subject: Any, case: Any) -> None:
        measured(0.5, 1.0)
        measured(0.1, 0.1)
        measured(3.0, 4.0)
        measured(float("nan"), 1.0)
        measured(float("inf"), 1.0)
        measured(7.0, 0.0)
        noted("one")
        noted("two")

    result = run(check)
    assert (result.property, result.level, result.outcome) == ("group.claim", "should", "passed")
    assert (result.clause, result.meaning) == ("A clause.", "A meaning.")
    assert (result.error, result.budget) == (0.1, 0.1)
    assert result.reason == "one; two"
    assert (result.counterexample, result.details, result.left_changed) == (None, None, ())
    assert (result.ended, result.fault, result.cases) == (False, False, 1)
    assert result.seconds == 1.234568
    assert run(passing).reason is None
    assert (run(passing).error, run(passing).budget) == (None, None)


def test_a_failure_is_told_as_it_was_seen_and_as_it_ends() -> None:
    told: list[tuple[str, Result]] = []
    error = ValueError("deep")

    def check(subject: Any, case: Any) -> None:
        measured(2.0, 1.0)
        noted("left out")
        raise Violation(
            "no \ud800 " + "x" * 5000, value=float("nan"), **{"y" * 3: "z" * 9000}
        ) from error

    settings = Settings(
        limit=0,
        broken=lambda result: told.append(("broken", result)),
        judged=lambda result: told.append(("judged", result)),
        rerun=lambda case: f"again {case}",
    )
    result = run(check, settings=settings)
    assert [what for what, _ in told] == ["broken", "judged"]
    for each in (result, *(each for _, each in told)):
        assert each.outcome == "failed"
        assert (each.reason or "").startswith("no ? xxx")
        assert len(each.reason or "") < 4100
        assert (each.error, each.budget) == (2.0, 1.0)
        assert each.cases == 1
        assert "ValueError: deep" in (each.details or "")
        assert each.counterexample is not None
        assert each.counterexample.case == {"size": 1, "kind": "plain"}
        assert each.counterexample.facts["value"] == "nan"
        assert len(each.counterexample.facts["yyy"]) < 2100
        assert each.counterexample.rerun == "again {'size': 1, 'kind': 'plain'}"
        assert not each.ended
        assert not each.fault
    assert run(raising(Violation("no"))).details is None


def test_the_trace_of_another_process_is_kept() -> None:
    violation = Violation("no")
    violation.trace = "from there"
    assert run(raising(violation)).details == "from there"


def test_what_a_candidate_leaves_changed_is_named() -> None:
    def check(subject: Any, case: Any) -> None:
        torch.set_default_dtype(torch.float64)

    (changed,) = run(check).left_changed
    assert "default dtype" in changed
    settled = []
    run(passing, on=subject(settle=lambda: settled.append(1)))
    assert settled == [1]


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        (SuiteFault("ours"), "undecided", "ours"),
        (Skip("not here"), "skipped", "not here"),
        (KeyError("ours"), "error", "the check itself raised KeyError: 'ours'"),
        (
            Mistake("TypeError", "there", "trace"),
            "error",
            "the check itself raised TypeError: there",
        ),
        (Violation("no"), "failed", "no"),
        (Evasion("left"), "failed", "left"),
        (SystemExit(3), "failed", "the candidate raised SystemExit: 3 (which is no Exception"),
        (CaseError("no case"), "error", "the check itself raised CaseError: no case"),
    ],
)
@pytest.mark.parametrize("where", ["check", "cases"])
def test_each_way_to_end_is_what_it_is_wherever_it_happens(
    error: BaseException, outcome: str, said: str, where: str
) -> None:
    if where == "cases":
        if isinstance(error, CaseError):
            with pytest.raises(CaseError, match="no case"):
                run(passing, cases=raising(error))
            return
        result = run(passing, cases=raising(error))
    else:
        result = run(raising(error))
    assert result.outcome == outcome
    assert (result.reason or "").startswith(said)
    assert result.fault == (outcome == "error")
    assert result.ended == (
        isinstance(error, (Evasion, SystemExit))
        and not (where == "cases" and isinstance(error, Evasion))
    )
    has_case = where == "check" and outcome != "skipped"
    assert (result.counterexample is not None) == has_case
    if outcome == "error":
        assert (result.details == "trace") == isinstance(error, Mistake)
        assert type(error).__name__ in (result.details or "") or isinstance(error, Mistake)
    if isinstance(error, SystemExit) and where == "cases":
        assert "SystemExit" in (result.details or "")


def test_who_asks_only_whether_it_fails_gets_the_first_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[int] = []

    def check(subject: Any, case: Sizes) -> None:
        ran.append(case.size)
        raise Violation("no")

    def draw(strategy: Any, run: Any, **how: Any) -> None:
        for size in (3, 2, 1):
            with suppress(engine._Broken):
                run(Sizes(size=size))
        raise engine._Broken

    monkeypatch.setattr(engine, "draw", draw)
    result = run(check, settings=Settings(limit=0, explained=False))
    assert ran == [3]
    assert result.counterexample is not None
    assert result.counterexample.case["size"] == 3
    run(check)
    assert ran == [3, 3, 2, 1]


def test_no_case_at_all_is_a_mistake_of_ours() -> None:
    result = run(passing, cases=lambda subject: st.nothing())
    assert result.outcome == "error"
    assert result.reason == "no case was drawn that this property accepts"


def test_an_interrupt_of_ours_goes_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(passing, cases=raising(KeyboardInterrupt()))


# Time -----------------------------------------------------------------------------------------------------------


def test_the_end_of_the_time_is_told_with_what_was_had_and_what_may_help() -> None:
    result = run(raising(time_up("it had 3 s")), settings=Settings(limit=7.5))
    assert result.outcome == "undecided"
    assert result.reason == (
        "no end within 7.5 s: case 1 was under way; it had 3 s; a longer --timeout may decide it"
    )
    assert result.counterexample is not None
    assert result.counterexample.facts == {}
    late = iter([None, time_up()])

    def check(subject: Any, case: Any) -> None:
        if error := next(late):
            raise error

    result = run(check, cases=lambda subject: st.sampled_from([Sizes(size=n) for n in range(9)]))
    assert (
        result.reason == "no end within 0 s: case 2 was under way; a longer --timeout may decide it"
    )


def test_a_failure_that_was_seen_before_the_time_was_up_stays_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors = {1: Violation("seen", much=2), 2: time_up("all of it")}

    def draw(strategy: Any, run: Any, **how: Any) -> None:
        for size in errors:
            with suppress(engine._Broken):
                run(Sizes(size=size))

    def check(subject: Any, case: Sizes) -> None:
        raise errors[case.size]

    monkeypatch.setattr(engine, "draw", draw)
    result = run(check, settings=Settings(limit=2))
    assert result.outcome == "failed"
    assert result.reason == "seen (the search for a smaller case stopped after 2 s)"
    assert result.counterexample is not None
    assert result.counterexample.facts == {"much": 2}
    assert result.details is None


def test_the_limit_holds_for_the_cases_the_fresh_models_and_the_diagnosis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []

    @contextmanager
    def time_limit(seconds: float) -> Iterator[None]:
        limits.append(seconds)
        yield

    monkeypatch.setattr(engine, "time_limit", time_limit)
    monkeypatch.setattr(engine, "once_more", lambda result, *_, **__: result)
    fresh: Any = passing
    settings = Settings(limit=3.0, fresh=fresh, diagnose=lambda *_: [])
    run(raising(Violation("no")), settings=settings)
    assert limits == [3.0, 3.0, 3.0]


# Once more on a fresh model -------------------------------------------------------------------------------------


def test_a_failure_is_tried_on_a_fresh_model_with_the_cases_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    diagnosed: list[str] = []

    def once_more(result: Result, *arguments: Any, what: str) -> Result:
        asked.append((result.outcome, *arguments, what))
        return msgspec.structs.replace(result, reason="once more", depends="on the calls before")

    monkeypatch.setattr(engine, "once_more", once_more)
    monkeypatch.setattr(engine, "_diagnosed", lambda result, *_: diagnosed.append("yes") or result)
    fresh: Any = passing
    drawn = [Sizes(size=size) for size in (2, 4, 3, 6)]

    def draw(strategy: Any, run: Any, **how: Any) -> None:
        for each in drawn:
            try:
                run(each)
            except engine._Broken:
                failed = sys.exc_info()[1]
        assert failed is not None
        raise failed

    monkeypatch.setattr(engine, "draw", draw)
    told: list[str | None] = []
    settings = Settings(
        limit=0,
        fresh=fresh,
        rerun=lambda case: f"again {case}",
        judged=lambda result: told.append(result.reason),
    )

    def check(subject: Any, case: Sizes) -> None:
        if case.size == 3:
            raise Violation("three")

    property_ = claim(check)
    result = judge(subject(), property_, settings)
    assert asked == [("failed", property_, drawn[:2], drawn[2], fresh, "again None", "candidate")]
    assert (result.reason, result.depends) == ("once more", "on the calls before")
    assert told == ["once more"]
    assert diagnosed == []  # what a fresh model does not show has no cause of its own
    judge(subject(what="kernel"), property_, settings)
    assert asked[1][-1] == "kernel"
    asked.clear()
    without = judge(subject(), property_, replace(settings, fresh=None))
    assert (asked, without.reason, diagnosed) == ([], "three", ["yes"])
    judge(subject(), property_, replace(settings, fresh=None, explained=False))
    assert diagnosed == ["yes"]  # nobody asks why

    def leaves(subject: Any, case: Sizes) -> None:
        raise Evasion("left")

    assert judge(subject(), claim(leaves), settings).reason == "left"
    assert asked == []  # to leave is no answer that a fresh model could give


def test_a_failure_to_try_once_more_takes_nothing_from_the_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh: Any = passing
    settings = Settings(limit=0, fresh=fresh)
    for error in (RuntimeError("no"), time_up()):
        monkeypatch.setattr(engine, "once_more", raising(error))
        result = run(raising(Violation("seen")), settings=settings)
        assert (result.outcome, result.reason) == ("failed", "seen")
    for other in (KeyboardInterrupt(), SystemExit(3)):
        monkeypatch.setattr(engine, "once_more", raising(other))
        with pytest.raises(type(other)):
            run(raising(Violation("seen")), settings=settings)


# Diagnosis ------------------------------------------------------------------------------------------------------

FOUND = {"deviation": "eps", "title": "agrees if eps is 1e-6", "residual": 1e-15}


def test_the_search_for_a_diagnosis_gets_the_failure_wherever_it_is_made() -> None:
    asked: list[Any] = []

    def diagnose(*arguments: Any) -> Any:
        asked.append(arguments)
        return iter([FOUND])

    check = raising(Violation("no"))
    on, settings = subject(), Settings(limit=0, diagnose=diagnose)
    result = run(check, on=on, settings=settings)
    ((judged, property_, case, violation),) = asked
    assert judged is on
    assert (property_.check, case, violation.summary) == (check, Sizes(size=1), "no")
    assert [each.title for each in result.diagnosis] == ["agrees if eps is 1e-6"]
    assert result.undiagnosed is None
    asked.clear()
    without = run(check, on=on)
    assert (without.diagnosis, without.undiagnosed) == ((), None)
    assert run(passing, on=on, settings=settings).diagnosis == ()
    never = run(passing, on=on, settings=settings, cases=raising(Violation("no")))
    assert never.outcome == "failed"
    assert asked == []  # no case, nothing to explain


def test_a_search_that_raises_or_has_no_end_is_told_beside_the_failure() -> None:
    def search(error: BaseException, cause: Exception | None = None) -> Result:
        violation = Violation("no")
        violation.__cause__ = cause
        return run(raising(violation), settings=Settings(limit=4.5, diagnose=raising(error)))

    late = search(time_up())
    assert late.undiagnosed == "the search for a diagnosis did not end within 4.5 s"
    assert (late.outcome, late.reason, late.details) == ("failed", "no", None)
    wrong = search(RuntimeError("no idea \ud800"))
    assert wrong.undiagnosed == "the search for a diagnosis raised RuntimeError: no idea ?"
    assert (wrong.details or "").startswith("Traceback")
    assert (wrong.details or "").strip().endswith("RuntimeError: no idea ?")
    both = search(SystemExit(3), cause=ValueError("deep"))
    assert both.undiagnosed == "the search for a diagnosis raised SystemExit: 3"
    first, second = (
        (both.details or "").index("ValueError: deep"),
        (both.details or "").index("SystemExit: 3"),
    )
    assert first < second
    with pytest.raises(KeyboardInterrupt):
        search(KeyboardInterrupt())
