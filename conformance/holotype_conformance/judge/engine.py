"""Judge one property on one subject: Hypothesis draws the cases, shrinks a failure, and the verdict is a `Result`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import msgspec
from hypothesis.errors import Unsatisfiable

from holotype_conformance.judge.drawing import draw
from holotype_conformance.judge.fresh import Fresh, once_more
from holotype_conformance.judge.given_case import CaseError, demand_fit, read_case
from holotype_conformance.judge.guard import Evasion, is_ours, violation_of
from holotype_conformance.judge.process_state import undisturbed
from holotype_conformance.judge.property import (
    Case,
    Property,
    Skip,
    SuiteFault,
    Violation,
    measurements,
    notes,
)
from holotype_conformance.judge.randomness import random_states, seed_of
from holotype_conformance.judge.records import (
    Counterexample,
    Diagnosis,
    Outcome,
    Profile,
    Result,
    encodable,
    plain,
)
from holotype_conformance.judge.subject import Subject
from holotype_conformance.judge.texts import (
    REASON,
    bounded,
    bounded_facts,
    message_of,
    trace_of,
    type_of,
)
from holotype_conformance.judge.time_limit import is_time_up, time_limit
from holotype_reference.support import unsupported
from holotype_spec.schema import Spec

FULL = 10  # the full profile draws this many times the cases of the quick one
LONGER = "a longer --timeout may decide it"
SHRINKING = 150  # cases tried after the first failure; small cases need a third of it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The way in which a property is run.

    Attributes:
        profile: quick or full, how many cases are drawn.
        seed: the same seed draws the same cases and weights.
        limit: seconds of processor time for the property, 0 for no limit (see `limits`).
        case: run exactly this case (as JSON) instead of drawing.
        named: the property was asked for by its own name, whatever it costs.
        rerun: writes the command that reruns a case, or without one the whole property.
        trying: is called with each case before it runs.
        broken: is called with a failure before a smaller case is looked for.
        judged: is called with it before its diagnosis is looked for.
        fresh: gives a subject whose candidate has not been called yet; None where there is none to be had.
        diagnose: looks for what explains a failure: (subject, property, case, violation) -> the best first.
        explained: a smaller case is looked for after a failure, and what explains it; else only whether it fails.
    """

    profile: Profile = "quick"
    seed: int = 0
    limit: float = 60.0
    case: str | None = None
    named: bool = False
    rerun: Callable[[Mapping[str, Any] | None], str] = lambda case: ""
    trying: Callable[[dict[str, Any]], None] = lambda case: None
    broken: Callable[[Result], None] = lambda result: None
    judged: Callable[[Result], None] = lambda result: None
    fresh: Fresh | None = None
    diagnose: Callable[[Any, Property, Any, Violation], Sequence[Diagnosis]] | None = None
    explained: bool = True


class Mistake(Exception):
    """Code of the suite raised in another process: the error's `kind`, its message, and its traceback."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.trace = trace


class _Broken(Exception):
    """Every violation, as Hypothesis sees it: one type raised at one place, so that it shrinks across causes."""


class _Stopped(BaseException):
    """The check itself went wrong, or has nothing to say: there is nothing to shrink."""


class _Trial:
    """Runs the cases of a property and remembers what became of each.

    Each case finds the random number generators in states of its own, which the line that reruns it brings about again.
    Remembering makes repeats free and replays certain: a candidate that answers differently each time is reported as
    it was first seen, and never as a flaky test.
    """

    def __init__(
        self,
        subject: Subject,
        property_: Property,
        trying: Callable[[dict[str, Any]], None],
        broke: Callable[[Violation], None],
    ) -> None:
        self.subject = subject
        self.property = property_
        self.trying = trying
        self.broke = broke
        self.seen: dict[bytes, Violation | None] = {}
        self.case: Case | None = None  # under way
        self.ran: list[Case] = []
        self.broken: tuple[Case, Violation] | None = None  # the last, at the end the smallest
        self.evaded = False  # and whether it was no answer at all
        self.shrinking = 0

    def __call__(self, case: Case) -> None:
        violation = self._judged(case)
        if violation is not None:
            self.broken = case, violation
            self.evaded = isinstance(violation, Evasion)
            raise _Broken

    def _judged(self, case: Case) -> Violation | None:
        key = msgspec.json.encode(case)
        if key not in self.seen:
            if self.broken is not None:
                self.shrinking += 1
                if self.shrinking > SHRINKING:
                    return None
            violation = self.seen[key] = self._run(case)
            if violation is not None:
                self.broken = case, violation
                self.evaded = isinstance(violation, Evasion)
                self.broke(violation)
        return self.seen[key]

    def _run(self, case: Case) -> Violation | None:
        self.case = case
        self.ran.append(case)
        self.trying(plain(case))
        seed = seed_of(self.subject.seed, self.property.slug, msgspec.json.encode(case).decode())
        try:
            with random_states(seed):
                self.subject.check(self.property, case, seed)
        except Violation as violation:
            return violation
        except Exception as error:
            raise _Stopped from error
        except BaseException as error:
            if is_ours(error):
                raise
            return violation_of(error, "the candidate")
        return None


def judge(subject: Subject, property_: Property, settings: Settings) -> Result:
    """The verdict on one property.

    Raises:
        CaseError: `settings.case` is not a case of this property, or none that it would draw for this subject.
    """
    case = None if settings.case is None else read_case(property_, settings.case)
    start = perf_counter()
    with undisturbed() as changed, measurements() as found, notes() as noted:

        def result(outcome: Outcome, reason: str | None, details: str | None) -> Result:
            error, budget = _nearest_budget(found)
            plainly = outcome in ("passed", "skipped")
            if outcome == "passed" and noted:
                reason = "; ".join(noted)
            return Result(
                property=property_.slug,
                level=property_.level,
                outcome=outcome,
                seconds=round(perf_counter() - start, 6),
                reason=None if reason is None else encodable(bounded(reason, REASON)),
                counterexample=None if plainly else _counterexample(trial, settings),
                clause=property_.clause,
                meaning=property_.meaning,
                cases=len(trial.seen),
                ended=trial.evaded,
                fault=outcome == "error",
                details=None if details is None else encodable(details),
                error=error,
                budget=budget,
            )

        def broken(violation: Violation) -> None:
            settings.broken(result("failed", str(violation), _cause(violation)))

        trial = _Trial(subject, property_, settings.trying, broken)
        trial.shrinking = 0 if settings.explained else SHRINKING
        verdict = result(*_attempt(trial, settings, case))
        if verdict.outcome == "failed":
            verdict = _once_more(verdict, trial, settings)
            settings.judged(verdict)
            if settings.explained and verdict.depends is None:
                verdict = _diagnosed(verdict, trial, settings)
        subject.settle()
    return msgspec.structs.replace(verdict, left_changed=tuple(map(encodable, changed)))


def _once_more(result: Result, trial: _Trial, settings: Settings) -> Result:
    """The failure, tried on a fresh subject; one that ended the process was not an answer to try again."""
    if settings.fresh is None or trial.broken is None or trial.evaded:
        return result
    case, ran = trial.broken[0], list(trial.ran)
    before = ran[: ran.index(case)] if case in ran else ran
    try:
        with time_limit(settings.limit):
            return once_more(
                result,
                trial.property,
                before,
                case,
                settings.fresh,
                settings.rerun(None),
                what=trial.subject.what,
            )
    except BaseException as error:
        if not isinstance(error, Exception) and not is_time_up(error):
            raise
        return result


def _nearest_budget(found: Sequence[tuple[float, float]]) -> tuple[float | None, float | None]:
    """The error and the budget of the comparison that came nearest to failing; only finite ones can be written."""
    usable = [each for each in found if math.isfinite(each[0]) and each[1] > 0]
    return max(usable, key=lambda each: each[0] / each[1], default=(None, None))


def _attempt(
    trial: _Trial, settings: Settings, case: Case | None
) -> tuple[Outcome, str | None, str | None]:
    """Outcome, reason and details."""
    try:
        with time_limit(settings.limit):
            reason = reason_to_skip(trial.subject, trial.property)
            if reason is None:
                reason = _too_costly(trial, settings)
            if reason is not None:
                explained = "skipped without a reason: a mistake of this property"
                return ("skipped", reason, None) if reason else ("error", explained, None)
            _run_cases(trial, settings, case)
    except (_Broken, Violation) as broken:
        found = trial.broken[1] if trial.broken else broken
        return "failed", str(found), _cause(found)
    except CaseError:
        raise
    except SuiteFault as fault:
        return "undecided", str(fault), None
    except Skip as skip:  # while its cases were being chosen
        return "skipped", str(skip), None
    except Unsatisfiable:
        return "error", "no case was drawn that this property accepts", None
    except _Stopped as stopped:
        if isinstance(stopped.__cause__, Skip):
            return "skipped", str(stopped.__cause__), None
        if isinstance(stopped.__cause__, SuiteFault):
            return "undecided", str(stopped.__cause__), None
        return _mistake(stopped.__cause__ or stopped)
    except Exception as error:
        return _mistake(error)
    except BaseException as error:
        if is_time_up(error):
            return _late(trial, settings.limit, str(error))
        if is_ours(error):
            raise
        trial.evaded = True
        return "failed", str(violation_of(error, "the candidate")), trace_of(error)
    return "passed", None, None


def reason_to_skip(subject: Subject, property_: Property) -> str | None:
    """Why the property says nothing about this subject, or None. An empty reason is a mistake of ours."""
    reason = property_.applies(subject.spec)
    if reason is None:
        reason = not_promised(subject.spec, property_)
    if reason is not None:
        return reason
    if property_.dtypes and not set(property_.dtypes) & set(subject.asked):
        return f"it runs in {_either(property_.dtypes)}, which --dtype leaves out"
    if not property_.needs:
        return None
    capabilities = subject.capabilities
    return next(
        (why for need in property_.needs if (why := capabilities[need]) is not None),
        None,
    )


def not_promised(spec: Spec, property_: Property) -> str | None:
    """The requirement of the property that the spec leaves open, or the reference cannot build yet; or None."""
    if property_.reference and (missing := unsupported(spec)):
        return f"the reference has no {missing[0]} yet"
    if property_.binds == "all":
        return "a generic spec has no numbers to compare with" if spec.family.generic else None
    for field in property_.binds:
        if not spec.family.binds(field):
            return f"a generic spec promises nothing about {field.removeprefix('architecture.')}"
    return None


def _either(dtypes: Sequence[str]) -> str:
    *others, last = dtypes
    return f"{', '.join(others)} or {last}" if others else last


def _too_costly(trial: _Trial, settings: Settings) -> str | None:
    """Why a property that takes long is left to the full profile."""
    wanted = settings.profile == "full" or settings.named or settings.case is not None
    if wanted or not trial.property.costly:
        return None
    return "a case takes seconds: it runs with --profile full, or by its own name"


def _run_cases(trial: _Trial, settings: Settings, case: Case | None) -> None:
    if case is not None:
        demand_fit(trial.property, trial.subject, case)
        trial(case)
        return
    times = FULL if settings.profile == "full" and not trial.property.costly else 1

    draw(
        trial.property.cases(trial.subject),
        trial,
        seed=settings.seed,
        examples=trial.property.examples * times,
    )


# What is said about it ------------------------------------------------------------------------------------------


def _late(trial: _Trial, limit: float, had: str) -> tuple[Outcome, str, str | None]:
    """A failure that was seen stays one; of what did not end nothing is known."""
    if trial.broken is not None:
        found = trial.broken[1]
        said = f"{found} (the search for a smaller case stopped after {limit:g} s)"
        return "failed", said, _cause(found)
    number = len(trial.seen) + 1
    said = f"no end within {limit:g} s: case {number} was under way"
    return "undecided", "; ".join([said, *([had] if had else []), LONGER]), None


def _mistake(error: BaseException) -> tuple[Outcome, str, str]:
    said = f"the check itself raised {type_of(error)}: {message_of(error)}"
    if isinstance(error, Mistake):
        return "error", f"the check itself raised {error.kind}: {message_of(error)}", error.trace
    return "error", said, trace_of(error)


def _cause(violation: BaseException) -> str | None:
    """The traceback of the candidate's own error, where a violation comes from one."""
    if violation.__cause__ is None:
        return getattr(violation, "trace", None)
    return trace_of(violation.__cause__)


def _counterexample(trial: _Trial, settings: Settings) -> Counterexample | None:
    if trial.broken is not None:
        case, violation = trial.broken
        facts = bounded_facts(plain(violation.facts))
    elif trial.case is not None:
        case, facts = trial.case, {}
    else:
        return None
    fields = plain(case)
    return Counterexample(case=fields, facts=facts, rerun=settings.rerun(fields))


def _diagnosed(result: Result, trial: _Trial, settings: Settings) -> Result:
    """The failure with the deviations that explain it; the search for them is never the reason why a run ends."""
    if trial.broken is None or settings.diagnose is None:
        return result
    try:
        with time_limit(settings.limit):
            found = settings.diagnose(trial.subject, trial.property, *trial.broken)
            diagnosis = msgspec.convert(plain(list(found)), tuple[Diagnosis, ...])
    except BaseException as error:
        if is_time_up(error):
            said = f"the search for a diagnosis did not end within {settings.limit:g} s"
            return msgspec.structs.replace(result, undiagnosed=said)
        if is_ours(error):
            raise
        return _without_diagnosis(result, error)
    return msgspec.structs.replace(result, diagnosis=diagnosis)


def _without_diagnosis(result: Result, error: BaseException) -> Result:
    """The failure with what went wrong in the search for its diagnosis."""
    said = f"the search for a diagnosis raised {type_of(error)}: {message_of(error)}"
    trace = trace_of(error)
    details = trace if result.details is None else f"{result.details}\n{trace}"
    return msgspec.structs.replace(result, undiagnosed=encodable(said), details=encodable(details))
