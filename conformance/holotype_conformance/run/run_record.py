"""The record of a run so far, from its events: the same from a worker and from the journal of an earlier run."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

from holotype_conformance.judge.expected_failures import mark_stale, stale
from holotype_conformance.judge.records import (
    AnyEvent,
    Collected,
    Declaration,
    Environment,
    Finished,
    Left,
    Planned,
    Ready,
    Resolved,
    Result,
    Started,
    Stopped,
    Unusable,
)

MOST_LEFT = 1000  # processes that are named: a candidate may leave one at each call
Key = tuple[str, str]  # (spec, slug)


@dataclass
class Record:
    """The record of a run so far.

    Attributes:
        title: what the candidate calls itself.
        plan: what is run, in reading order; `suite` counts the properties of the whole suite.
        results: by spec and slug.
        unusable: spec -> why the candidate cannot be run at all.
        smoked: the specs of which a first run has worked.
        left: processes that the candidate had left running, and that were ended.
        stopped: the signal that ended the run before its time.
    """

    title: str = ""
    environment: Environment | None = None
    plan: list[Planned] = field(default_factory=list)
    suite: int = 0
    results: dict[Key, Result] = field(default_factory=dict)
    declared: dict[str, tuple[Declaration, ...]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)
    smoked: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    stopped: int | None = None

    def take(self, event: AnyEvent) -> None:
        """Keep what an event says."""
        match event:
            case Ready(environment=environment):
                self.environment = self.environment or environment
            case Resolved(title=title):
                self.title = title
            case Collected(plan=plan, environment=environment, suite=suite, declared=declared):
                self.plan = self.plan or list(plan)
                self.suite = suite
                self.declared = declared
                self.environment = environment
            case Unusable(spec=spec, reason=reason):
                self.unusable[spec] = reason
            case Started(spec=spec):
                self.smoked.add(spec)
            case Finished(spec=spec, result=result):
                self.results[spec, result.property] = result
            case Left(processes=processes):
                self.left += processes[: MOST_LEFT - len(self.left)]
            case Stopped(signal=number):
                self.stopped = number

    @property
    def open(self) -> list[Planned]:
        """Properties that have no result yet."""
        return [
            entry
            for entry in self.plan
            if (entry.spec, entry.property) not in self.results and entry.spec not in self.unusable
        ]

    @property
    def interruption(self) -> str | None:
        """The error that ended the run before its time, or None."""
        return None if self.stopped is None else signal.Signals(self.stopped).name

    def of(self, spec: str, *, complete: bool = True) -> tuple[Result, ...]:
        """The results of one spec, in reading order; those of an unusable one are errors.

        What is missing from a run that was cut short was not run.
        """
        return tuple(
            self.results.get((entry.spec, entry.property)) or self._not_run(entry, complete)
            for entry in self.plan
            if entry.spec == spec
        )

    def _not_run(self, entry: Planned, complete: bool) -> Result:
        if entry.spec in self.unusable:
            return blank(entry, f"could not be run: {self.unusable[entry.spec]}", outcome="error")
        if self.stopped is not None or not complete:
            by = self.interruption or "the end of its process"
            return blank(entry, f"not run: the run was cut short by {by}", outcome="not-run")
        return blank(
            entry, "could not be run: the process ended before this property", outcome="error"
        )

    def settle(self, expected: dict[str, str]) -> None:
        """Entries of the list of expected failures that nothing answered to are errors where they were skipped."""
        ran = [key for key, result in self.results.items() if result.ran]
        unanswered = stale(expected, ran)
        for (spec, slug), result in self.results.items():
            self.results[spec, slug] = mark_stale(spec, result, unanswered)


def blank(entry: Planned, reason: str, **facts: Any) -> Result:
    """A failed result that the worker could not write itself."""
    values: dict[str, Any] = {"outcome": "failed", "seconds": 0.0, **facts}
    return Result(
        property=entry.property,
        level=entry.level,
        clause=entry.clause,
        meaning=entry.meaning,
        reason=reason,
        **values,
    )
