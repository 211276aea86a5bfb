"""A counterexample once more, on models that nothing was done with before.

A model that keeps something from one call to the next (a table that stays grown, a mask, a counter) fails in a case
that is innocent: on a fresh model it holds, and so does the line that reruns it. Then the advice that the property has
for its failures is false, and what is to be told are the calls before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Protocol

import msgspec

from holotype_conformance.judge.property import Case, Property, Violation
from holotype_conformance.judge.randomness import random_states, seed_of
from holotype_conformance.judge.records import Result, plain

SHORT = (1, 4)  # so many cases before the last one are tried, and then all of them
SHOWN = 4  # cases that a report names


class Fresh(Protocol):
    """Gives a subject whose candidate has not been called, as long as it is used.

    Where it may be `shared`, its models are new, and its candidate was called for other counterexamples at most: to
    import a target anew for each failure would take longer than all else.
    """

    def __call__(self, *, shared: bool = False) -> AbstractContextManager[Any]: ...


def run_case(subject: Any, property_: Property, case: Case) -> None:
    """One case, with the random number generators in the states that are its own.

    Raises:
        Violation: the claim does not hold. Whatever else the check raises.
    """
    seed = seed_of(subject.seed, property_.slug, msgspec.json.encode(case).decode())
    with random_states(seed):
        subject.check(property_, case, seed)


def once_more(
    result: Result,
    property_: Property,
    cases: Sequence[Case],
    case: Case,
    fresh: Fresh,
    rerun_all: str,
    what: str,
) -> Result:
    """The failure, and whether it depends on earlier calls.

    Args:
        result: what was found.
        property_: the property that failed.
        cases: those that it ran before `case`, in their order.
        case: the one that failed.
        fresh: gives fresh subjects.
        rerun_all: the command that runs the whole property.
        what: what is fresh, in a word.
    """
    shared = partial(fresh, shared=True)
    if _fails(property_, (), case, shared) or result.counterexample is None:
        return result
    for number in (*(each for each in SHORT if each < len(cases)), len(cases)):
        before = cases[len(cases) - number :] if number else ()
        if number and _fails(property_, before, case, fresh):
            return _after(result, before, rerun_all, what)
    there = f", and so it does after the {len(cases)} of this property before it" if cases else ""
    said = (
        f"on earlier calls of other properties, or on chance: on a fresh {what} the same case holds{there}. The line"
        " alone is green; the whole run is not"
    )
    return msgspec.structs.replace(result, depends=said)


def _after(result: Result, before: Sequence[Case], rerun_all: str, what: str) -> Result:
    """The failure that needs the cases before it."""
    shown = "; ".join(msgspec.json.encode(each).decode() for each in before[-SHOWN:])
    left = f" (the last {SHOWN}: {shown})" if len(before) > SHOWN else f" ({shown})"
    number = "the case" if len(before) == 1 else f"the {len(before)} cases"
    said = (
        f"on earlier calls: on a fresh {what} the same case holds, and after {number} before it{left} it fails. Look"
        " for what is kept from one call to the next"
    )
    assert result.counterexample is not None
    again = msgspec.structs.replace(result.counterexample, rerun=rerun_all)
    history = tuple(plain(each) for each in before)
    return msgspec.structs.replace(result, depends=said, history=history, counterexample=again)


def _fails(
    property_: Property,
    before: Sequence[Case],
    case: Case,
    fresh: Callable[[], AbstractContextManager[Any]],
) -> bool:
    """Whether the case fails on a fresh subject after those; what cannot be told counts as a failure."""
    try:
        with fresh() as subject:
            for each in before:
                with suppress(Violation):
                    run_case(subject, property_, each)
            run_case(subject, property_, case)
    except Exception:
        return True
    return False
