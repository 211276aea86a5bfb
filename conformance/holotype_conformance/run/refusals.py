"""Refusals and titles: all that can be said of a candidate before anything is known of it."""

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
    """The reason why there is nothing to check: the request makes no sense, or the candidate could not be had."""
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
    """The candidate's name for itself, if that can be had."""
    try:
        return title_of(candidate.title, target)
    except BaseException:  # its code may do anything; what follows judges the candidate
        return title_of(None, target)
