"""Does a property kill a deviation? One verdict for each pair, without shrinking, as fast as that can be had."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, Verbosity

from holotype_conformance.judge.deviation import Catalogue, Deviation
from holotype_conformance.judge.engine import reason_to_skip
from holotype_conformance.judge.precision import arithmetic
from holotype_conformance.judge.property import Case, Property, Skip, Violation
from holotype_conformance.judge.subject import Subject
from holotype_conformance.judge.suite import Suite

Verdict = Literal["killed", "passed", "skipped", "error"]
D = TypeVar("D", bound=Deviation)


class _Broken(Exception):
    """A case does not hold."""


def judge(subject: Subject, property_: Property) -> Verdict:
    """Draw the property's cases, in the quick profile, until one fails."""
    if reason_to_skip(subject, property_) is not None:
        return "skipped"
    try:
        return "passed" if failing(subject, property_) is None else "killed"
    except (pytest.skip.Exception, Skip):
        return "skipped"
    except Exception:  # a mistake of the property's, which the engine reports as such
        return "error"


def failing(subject: Subject, property_: Property) -> Case | None:
    """The first case that does not hold, of those that the quick profile draws; None if all do."""
    with warnings.catch_warnings(), arithmetic():
        warnings.simplefilter("ignore")
        return _drawn(subject, property_)


def _drawn(subject: Subject, property_: Property) -> Case | None:
    broken: list[tuple[Case, Violation]] = []

    @hypothesis.seed(subject.seed)
    @hypothesis.settings(
        max_examples=property_.examples,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=tuple(HealthCheck),
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    @hypothesis.given(case=property_.cases(subject))
    def holds(case: Case) -> None:
        if broken:  # Hypothesis repeats the case that failed
            raise _Broken from broken[0][1]
        try:
            subject.check(property_, case)
        except Violation as violation:
            broken.append((case, violation))
            raise _Broken from violation

    try:
        holds()
    except _Broken:
        return broken[0][0]
    return None


@dataclass(frozen=True, kw_only=True)
class Mutants(Generic[D]):
    """The deviations of a suite, each made into what its properties judge.

    Attributes:
        suite: the properties.
        catalogue: the deviations.
        rows: those of the kill matrix, in its order: all that are no others but for a number.
        specs: what a deviation is held to, first one that its name chooses.
        subject: the deviated candidate under one of these.
        likely: by group of deviations, or by a longer part of their names, the properties that probably kill them,
            tried before everything else.
        otherwise: the same for all other groups.
    """

    suite: Suite[Any]
    catalogue: Catalogue[D]
    rows: Callable[[], tuple[D, ...]]
    specs: Callable[[D], list[Any]]
    subject: Callable[[D, Any], Subject]
    likely: Mapping[str, tuple[str, ...]]
    otherwise: tuple[str, ...]

    def verdicts(self, deviation: D, spec: Any) -> Iterator[tuple[Property, Verdict]]:
        """Every property's verdict, the likely killers first."""
        deviated = self.subject(deviation, spec)
        likely = set(self._likely(deviation))
        for property_ in self.in_likely_order(deviation, self.suite.properties()):
            left_out = property_.costly and property_.slug not in likely  # it would take an hour
            yield property_, "skipped" if left_out else judge(deviated, property_)

    def killer(self, deviation: D, spec: Any) -> Property | None:
        """The first property that kills, a `must` if one does; None for a survivor."""
        killers = (each for each, verdict in self.verdicts(deviation, spec) if verdict == "killed")
        should = None
        for property_ in killers:
            if property_.level == "must":
                return property_
            should = should or property_
        return should

    def in_likely_order(self, deviation: D, properties: Iterable[Property]) -> list[Property]:
        """Those first that are likely to kill the deviation."""
        likely = self._likely(deviation)

        def rank(property_: Property) -> int:
            group = property_.slug.partition(".")[0] + ".*"
            ranks = [i for i, name in enumerate(likely) if name in (property_.slug, group)]
            return min(ranks, default=len(likely))

        return sorted(properties, key=rank)

    def _likely(self, deviation: D) -> tuple[str, ...]:
        parts = deviation.slug.split(".")
        names = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
        return next((self.likely[name] for name in names if name in self.likely), self.otherwise)
