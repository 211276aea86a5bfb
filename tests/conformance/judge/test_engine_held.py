"""The engine line by line: what a trial runs and remembers, and what is run at all.

Cases are given, not drawn, wherever it does not matter which they are: drawing takes longest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from holotype_conformance.judge import engine
from holotype_conformance.judge.engine import Settings, not_promised, reason_to_skip
from holotype_conformance.judge.given_case import CaseError
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.randomness import seed_of
from holotype_conformance.judge.records import Result

made_up = run_path(str(Path(__file__).with_name("made_up.py")))
Sizes, claim, subject, run = (made_up[name] for name in ("Sizes", "claim", "subject", "run"))
raising, passing = made_up["raising"], made_up["passing"]


# Settings -------------------------------------------------------------------------------------------------------


def test_the_settings_of_a_property_that_nobody_asks_for() -> None:
    settings = Settings()
    assert (settings.profile, settings.seed, settings.limit) == ("quick", 0, 60.0)
    assert (settings.case, settings.named, settings.fresh) == (None, False, None)
    assert settings.explained
    assert settings.explained
    assert settings.rerun({"size": 1}) == settings.rerun(None) == ""
    assert settings.trying({}) is settings.broken(RESULT) is settings.judged(RESULT) is None
    with pytest.raises(FrozenInstanceError):
        settings.seed = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        Settings("full")  # type: ignore[misc]


RESULT = Result(property="group.claim", level="must", outcome="failed", seconds=0.0)


@pytest.mark.parametrize("explained", [True, False])
def test_a_failure_is_made_small_and_explained_unless_that_is_not_asked_for(
    explained: bool,
) -> None:
    wrong, asked = [], []

    def check(subject: Any, case: Any) -> None:
        if case.size > 10:
            wrong.append(case.size)
            raise Violation("too large")

    def diagnose(*failure: Any) -> list[Any]:
        asked.append(failure)
        return []

    settings = Settings(limit=0, explained=explained, diagnose=diagnose)
    sizes = st.builds(Sizes, size=st.integers(0, 99))
    result = run(check, settings=settings, cases=lambda subject: sizes)
    assert result.outcome == "failed"
    assert (wrong[-1], len(asked)) == ((11, 1) if explained else (wrong[0], 0))
    assert explained or len(wrong) == 1


# A trial --------------------------------------------------------------------------------------------------------


class Run:
    """A trial whose check fails where `fails` says so, and what it ran, tried and told."""

    def __init__(self, fails: Callable[[Sizes], Violation | None], seed: int = 0) -> None:
        self.ran: list[int] = []
        self.tried: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.fails = fails

        def check(subject: Any, case: Sizes) -> None:
            self.ran.append(case.size)
            if violation := fails(case):
                raise violation

        self.trial = engine._Trial(
            subject(seed=seed),
            claim(check),
            self.tried.append,
            lambda violation: self.told.append(violation.summary),
        )

    def fails_at(self, size: int) -> bool:
        try:
            self.trial(Sizes(size=size))
        except engine._Broken:
            return True
        return False


def odd(case: Sizes) -> Violation | None:
    return Violation(f"{case.size} is odd") if case.size % 2 else None


def test_each_case_runs_once_and_its_answer_is_remembered() -> None:
    trial = Run(odd)
    assert [trial.fails_at(size) for size in (2, 3, 2, 3, 5, 3)] == [
        *(False, True, False, True, True, True)
    ]
    assert trial.ran == [2, 3, 5]
    assert trial.tried == [{"size": size, "kind": "plain"} for size in (2, 3, 5)]
    assert trial.told == ["3 is odd", "5 is odd"]
    assert [case.size for case in trial.trial.ran] == [2, 3, 5]
    assert trial.trial.case == Sizes(size=5)
    assert trial.trial.broken is not None
    assert trial.trial.broken[0] == Sizes(size=3)  # the last that failed, run anew or not
    assert not trial.trial.evaded


def test_after_so_many_cases_the_search_for_a_smaller_one_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 100 <= engine.SHRINKING <= 300
    monkeypatch.setattr(engine, "SHRINKING", 3)
    trial = Run(odd)
    assert [trial.fails_at(size) for size in (2, 4, 6, 8, 10, 99)] == [False] * 5 + [True]
    assert [trial.fails_at(size) for size in (2, 12, 97, 14)] == [False, False, True, False]
    assert trial.ran == [2, 4, 6, 8, 10, 99, 12, 97, 14]  # 2 was known
    assert [trial.fails_at(size) for size in (95, 93)] == [False, False]
    assert trial.ran[-1] == 14
    assert [trial.fails_at(size) for size in (99, 97)] == [True, True]


def test_a_case_is_run_in_random_states_of_its_own_and_the_check_is_told_their_seed() -> None:
    drawn: list[tuple[int, float]] = []
    seeds: list[Any] = []

    def look(case: Sizes) -> None:
        drawn.append((case.size, random.random()))

    trial = Run(look)  # type: ignore[arg-type]
    other = Run(look, seed=1)  # type: ignore[arg-type]
    for each in (trial, trial, other):
        each.trial.seen.clear()
        each.trial(Sizes(size=1))
    trial.trial(Sizes(size=2))
    (one, again, elsewhere, another) = (value for _, value in drawn)
    assert one == again
    assert len({one, elsewhere, another}) == 3

    def check(property_: Property, case: Sizes, seed: int) -> None:
        seeds.append((property_.slug, case, seed, random.random()))

    run(passing, on=subject(check=check), settings=Settings(case='{"size":1}', limit=0))
    ((slug, case, seed, value),) = seeds
    assert (slug, case) == ("group.claim", Sizes(size=1))
    assert value == random.Random(seed).random() == one
    assert seed == seed_of(0, "group.claim", '{"size":1,"kind":"plain"}')  # as reruns have it


# What is not run ------------------------------------------------------------------------------------------------


def test_why_a_property_is_not_run_and_which_reason_comes_first() -> None:
    can = subject(capabilities={"cache": None, "loss": "it has none", "storage": "nowhere"})
    needing = claim(passing, needs=("cache", "loss", "storage"))
    assert reason_to_skip(can, needing) == "it has none"
    assert reason_to_skip(can, claim(passing, needs=("cache",))) is None
    assert reason_to_skip(subject(), claim(passing)) is None  # nobody asks for capabilities
    single = subject(asked=("float32",), capabilities={"cache": "it has none"})
    told = reason_to_skip(single, claim(passing, needs=("cache",), dtypes=("float64",)))
    assert told == "it runs in float64, which --dtype leaves out"
    three = ("float64", "bfloat16", "float16")
    told = reason_to_skip(single, claim(passing, dtypes=three))
    assert told == "it runs in float64, bfloat16 or float16, which --dtype leaves out"
    assert reason_to_skip(single, claim(passing, dtypes=("float64", "float32"))) is None
    assert reason_to_skip(single, claim(passing, dtypes=())) is None
    inapplicable = claim(
        passing, applies=lambda spec: "no window", dtypes=("float64",), binds="all"
    )
    assert reason_to_skip(single, inapplicable) == "no window"


def test_what_a_generic_spec_or_the_reference_lacks_is_not_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spec(generic: bool, bound: tuple[str, ...] = ()) -> Any:
        family = SimpleNamespace(generic=generic, binds=lambda field: not generic or field in bound)
        return SimpleNamespace(family=family)

    assert not_promised(spec(True), claim(passing)) is None
    assert not_promised(spec(False), claim(passing, binds="all")) is None
    told = not_promised(spec(True), claim(passing, binds="all"))
    assert told == "a generic spec has no numbers to compare with"
    binding = claim(passing, binds=("architecture.head", "architecture.residual"))
    assert not_promised(spec(False), binding) is None
    told = not_promised(spec(True, ("architecture.head",)), binding)
    assert told == "a generic spec promises nothing about residual"
    missing = ["a head", "a norm"]
    monkeypatch.setattr(engine, "unsupported", lambda spec: missing)
    assert not_promised(spec(False), claim(passing)) is None
    told = not_promised(spec(True), claim(passing, reference=True, binds="all"))
    assert told == "the reference has no a head yet"
    missing.clear()
    assert not_promised(spec(False), claim(passing, reference=True)) is None


@pytest.mark.parametrize(
    ("facts", "costly", "examples"),
    [
        ({}, False, 3),
        ({}, True, 0),
        ({"named": True}, False, 3),
        ({"named": True}, True, 3),
        ({"profile": "full"}, False, 30),
        ({"profile": "full"}, True, 3),
    ],
)
def test_how_many_cases_are_drawn_from_which_seed(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], costly: bool, examples: int
) -> None:
    drawn: list[Any] = []

    def draw(strategy: Any, run: Any, **how: Any) -> None:
        drawn.append((strategy, how))

    monkeypatch.setattr(engine, "draw", draw)
    on = subject()
    result = run(
        passing,
        on=on,
        costly=costly,
        cases=lambda subject: subject,
        settings=Settings(seed=5, limit=0, **facts),
    )
    if examples:
        assert drawn == [(on, {"seed": 5, "examples": examples})]
    else:
        assert drawn == []
        assert result.outcome == "skipped"
        assert result.reason == (
            "a case takes seconds: it runs with --profile full, or by its own name"
        )


def test_a_given_case_must_be_one_that_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Placed(Sizes, frozen=True, kw_only=True):
        even: bool = True

    def cases(subject: Any) -> Any:
        return st.builds(Placed, size=st.integers(0, 9), even=st.just(True))

    ran = []
    facts: dict[str, Any] = {"cases": cases, "case_type": Placed, "costly": True}

    def check(subject: Any, case: Any) -> None:
        ran.append(case)

    run(check, settings=Settings(case='{"size":4}', limit=0), **facts)
    assert ran == [Placed(size=4)]
    with pytest.raises(CaseError, match="even is never false here"):
        run(check, settings=Settings(case='{"size":4,"even":false}', limit=0), **facts)
