"""Texts that come from a candidate, made safe where they enter: bounded, encodable, and never an error of their own.

A candidate's message may have 20 MB, raise when it is asked for, or hold what steers a terminal. No torch here.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Any

MESSAGE = 2_000  # characters of one message
REASON = 4_000  # of a sentence in which messages stand
DETAILS = 20_000  # of a traceback, or of what was printed
TITLE = 120
# Control characters and terminal escapes: what a candidate raises or prints must not steer the reader's terminal.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def bounded(text: str, room: int) -> str:
    """`text`; of a longer one its head and its tail, with the number of characters between them."""
    if len(text) <= room:
        return text
    head = room * 2 // 3
    tail = room - head
    cut = len(text) - head - tail
    return f"{text[:head]} … [{cut:,} characters left out] … {text[-tail:]}"


def encodable(text: str) -> str:
    """`text` with a question mark for what no encoding can carry."""
    return text.encode("utf-8", "replace").decode()


def first_line(text: str) -> str:
    """The first line that says something, bounded."""
    head = bounded(text, 4 * MESSAGE).strip()  # a line end far behind is as good as none
    return bounded(head.split("\n", 1)[0].strip(), MESSAGE)


def message_of(error: BaseException) -> str:
    """The first line of what an exception says; why there is none where asking for it raises."""
    try:
        said = "".join((str(error), ""))  # plain text, whatever subclass it was
    except Exception as broken:
        return f"a message that cannot be read: asking for it raised {type_of(broken)}"
    return first_line(said) or "no message"


def type_of(value: object) -> str:
    """The name of the type of `value`, as it is and not as a metaclass would have it."""
    name = str(type.__dict__["__name__"].__get__(type(value)))
    return bounded(CONTROL.sub("", encodable(name)), 100)


def trace_of(error: BaseException) -> str:
    """The traceback of an exception with those that led to it."""
    try:
        lines = traceback.format_exception(error, limit=-40)
    except Exception as broken:
        return f"the traceback cannot be written: {type_of(broken)}"
    return bounded("".join(lines), DETAILS)


def title_of(value: Any, instead: str) -> str:
    """The title of a candidate, in one bounded line; `instead` where that is no text, or empty."""
    if not isinstance(value, str):
        return bounded(instead, TITLE)
    line = " ".join(CONTROL.sub("", encodable(value[: 10 * TITLE])).split())
    return bounded(line or instead, TITLE)


def bounded_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The measured facts, without what no reader would read."""
    return {bounded(name, MESSAGE): _bounded_fact(value) for name, value in facts.items()}


def _bounded_fact(value: Any) -> Any:
    if isinstance(value, str):
        return bounded(value, MESSAGE)
    if isinstance(value, list):
        kept = [_bounded_fact(each) for each in value[:1000]]
        left = len(value) - len(kept)
        return [*kept, f"[{left:,} more]"] if left else kept
    if isinstance(value, dict):
        return bounded_facts(dict(list(value.items())[:1000]))
    return value
