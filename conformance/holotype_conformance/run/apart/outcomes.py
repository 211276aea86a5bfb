"""Errors in the half that runs the candidate, as answers; and their meaning to the half that judges.

Both ways stand here side by side: what one half cannot say, the other cannot hear.
"""

from __future__ import annotations

from typing import NoReturn

from holotype_conformance.judge.engine import Mistake
from holotype_conformance.judge.guard import CandidateUnusable, Evasion, is_ours, violation_of
from holotype_conformance.judge.property import Skip, SuiteFault, Violation
from holotype_conformance.judge.texts import encodable, message_of, trace_of, type_of
from holotype_conformance.judge.time_limit import time_up
from holotype_conformance.run.apart.wire import (
    Answer,
    Closed,
    Faulted,
    Late,
    Raised,
    Refused,
    Skipped,
    Violated,
    plain_fact,
)


def answer_of(error: BaseException) -> Answer:
    """An exception, as an answer.

    Raises:
        BaseException: it is meant for us, and no answer.
    """
    try:
        raise error  # sorted by what it is: isinstance believes an error that calls itself another
    except Violation as violation:
        return _violated(violation)
    except Skip as skip:
        return Skipped(reason=encodable(str(skip)))
    except SuiteFault as fault:
        return Faulted(message=encodable(str(fault)))
    except CandidateUnusable as unusable:
        return Refused(message=encodable(str(unusable)), unrunnable=True)
    except Exception as mistake:
        return Raised(
            kind=type_of(mistake),
            message=encodable(message_of(mistake)),
            trace=encodable(trace_of(mistake)),
        )
    except BaseException as left:
        if is_ours(left):
            raise
        return _violated(violation_of(left, "the candidate"))


def _violated(violation: Violation) -> Violated:
    cause = violation.__cause__
    return Violated(
        summary=encodable(violation.summary),
        facts={name: plain_fact(fact) for name, fact in violation.facts.items()},
        trace=violation.trace if cause is None else encodable(trace_of(cause)),
        evasion=isinstance(violation, Evasion),
    )


def raise_answer(answer: Answer) -> NoReturn:
    """Raise here what was raised there."""
    match answer:
        case Violated(summary=summary, facts=facts, trace=trace, evasion=evasion):
            violation = (Evasion if evasion else Violation)(summary, **facts)
            violation.trace = trace
            raise violation
        case Skipped(reason=reason):
            raise Skip(reason)
        case Faulted(message=message):
            raise SuiteFault(message)
        case Refused(message=message):
            raise CandidateUnusable(message)
        case Late():
            raise time_up()
        case Raised(kind=kind, message=message, trace=trace):
            raise Mistake(kind, message, trace)
        case _:
            raise Closed(f"an answer to another ask: {type(answer).__name__}")
