"""One case on all paths of a candidate: each is asked by itself, and what is the same for all is made once."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

from holotype_conformance.judge.property import Case, Claims, Property, Skip, Violation
from holotype_conformance.judge.sharing import one_case, shared

made_up = run_path(str(Path(__file__).with_name("made_up.py")))
Sizes, claim, run, raising = (made_up[name] for name in ("Sizes", "claim", "run", "raising"))
CASE = Sizes(size=3)


class Forked(made_up["Made"]):  # type: ignore[misc]
    """A candidate with two paths."""

    @property
    def paths(self) -> tuple[str, ...]:
        return "fast", "slow"


def test_a_check_with_a_path_is_asked_for_each_and_one_without_once() -> None:
    asked: list[Any] = []

    def each(subject: Any, case: Case, path: str) -> None:
        asked.append((subject, case, path))

    def once(subject: Any, case: Case) -> None:
        asked.append((subject, case))

    subject = Forked()
    subject.check(claim(each), CASE, 7)
    assert asked == [(subject, CASE, "fast"), (subject, CASE, "slow")]
    asked.clear()
    subject.check(claim(once), CASE)
    assert asked == [(subject, CASE)]
    assert (claim(each).by_path, claim(once).by_path) == (True, False)


def test_a_violation_names_its_path_unless_it_names_one_itself() -> None:
    asked: list[str] = []

    def slow_is_wrong(subject: Any, case: Case, path: str) -> None:
        asked.append(path)
        if path == "slow":
            raise Violation("no", size=1)

    for _ in range(2):
        with pytest.raises(Violation) as caught:
            Forked().check(claim(slow_is_wrong), CASE)
        assert list(caught.value.facts.items()) == [("size", 1), ("path", "slow")]
    assert asked == ["fast", "slow"] * 2

    def names_itself(subject: Any, case: Case, path: str) -> None:
        raise Violation("no", path="mine")

    with pytest.raises(Violation) as caught:
        Forked().check(claim(names_itself), CASE)
    assert caught.value.facts == {"path": "mine"}
    with pytest.raises(Violation) as caught:
        Forked().check(claim(lambda subject, case: raising(Violation("no"))()), CASE)
    assert caught.value.facts == {}
    result = run(slow_is_wrong, on=Forked())
    assert result.outcome == "failed"
    assert result.counterexample is not None
    assert result.counterexample.facts == {"size": 1, "path": "slow"}


@pytest.mark.parametrize(
    ("skipping", "outcome"),
    [(["fast"], "passed"), (["slow"], "passed"), (["fast", "slow"], "skipped")],
)
def test_a_path_of_which_nothing_can_be_said_leaves_it_to_the_others(
    skipping: list[str], outcome: str
) -> None:
    def check(subject: Any, case: Case, path: str) -> None:
        if path in skipping:
            raise Skip(f"{path} cannot be tried")

    result = run(check, on=Forked())
    assert result.outcome == outcome
    assert result.reason == ("fast cannot be tried" if outcome == "skipped" else None)


# What the paths share -------------------------------------------------------------------------------------------


def test_what_is_shared_is_made_once_for_all_paths_of_a_case_and_anew_for_the_next() -> None:
    made: list[int] = []

    @shared
    def doubled(size: int) -> list[int]:
        made.append(size)
        return [2 * size]

    seen: list[list[int]] = []

    def check(subject: Any, case: Any, path: str) -> None:
        seen.append(doubled(case.size))

    property_ = claim(check)
    Forked().check(property_, CASE)
    assert (made, seen[0] is seen[1], seen[0]) == ([3], True, [6])
    Forked().check(property_, CASE)
    assert (made, seen[2] is seen[0]) == ([3, 3], False)
    doubled(3), doubled(3)
    assert made == [3, 3, 3, 3]  # outside of a case nothing is kept


def test_arguments_are_told_apart_by_value_if_they_are_data_and_else_by_identity() -> None:
    made: list[Any] = []

    @shared
    def what(*arguments: Any, **named: Any) -> int:
        made.append((arguments, named))
        return len(made)

    @shared
    def another(argument: Any) -> str:
        return "another"

    with one_case():
        assert [what(Sizes(size=1)), what(Sizes(size=1)), what(Sizes(size=2))] == [1, 1, 2]
        first = {"a": 1}
        assert [what(first), what({"a": 1}), what(first)] == [3, 4, 3]
        assert [what("x"), what("x"), what("x", "y"), what("x", to="y"), what("x", to="y")] == [
            5,
            5,
            6,
            7,
            7,
        ]
        assert another("x") == "another"
        assert [what([]) for _ in range(3)] == [8, 9, 10]  # none was taken for one that is gone


# What a check says of itself ------------------------------------------------------------------------------------


def test_what_a_case_is_is_read_from_the_check() -> None:
    claims: Claims[Any] = Claims()
    facts: dict[str, Any] = {"slug": "group.claim", "clause": "A clause.", "meaning": "A meaning."}

    def check(subject: Any, case: Sizes, path: str) -> None:
        pass

    property_ = claims.claim(**facts, catches=(), cases=lambda subject: None)(check)
    assert isinstance(property_, Property)
    assert property_.case_type is Sizes
    assert (property_.level, property_.needs, property_.applies(None)) == ("must", (), None)  # type: ignore[arg-type]
    assert claims.all() == (property_,)
