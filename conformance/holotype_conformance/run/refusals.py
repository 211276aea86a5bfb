"""Why there is nothing to check, and what a candidate is called: said before anything is known of it."""

from __future__ import annotations

from typing import Any

from holotype_conformance.judge.records import Rejected, Request
from holotype_conformance.judge.texts import (
    REASON,
    bounded,
    encodable,
    message_of,
    title_of,
    trace_of,
    type_of,
)
from holotype_conformance.judge.time_limit import is_time_up


def rejected(error: BaseException, request: Request) -> Rejected:
    """Why there is nothing to check: what was asked for makes no sense, or the candidate did not let itself be had."""
    details = encodable(trace_of(error))
    if isinstance(error, ValueError):
        said = encodable(bounded(str(error), REASON))
        return Rejected(message=said, details=details)
    did = f"raised {type_of(error)}: {message_of(error)}"
    if is_time_up(error):
        did = f"did not end within {request.limit:g} s ({error})"
    said = encodable(f"importing {request.target!r} {did}")
    return Rejected(message=said, details=details, unrunnable=True)


def title(candidate: Any, target: str) -> str:
    """What the candidate calls itself, if that can be had."""
    try:
        return title_of(candidate.title, target)
    except BaseException:  # its code may do anything; what follows judges the candidate
        return title_of(None, target)
