"""A case that is given instead of drawn: read from JSON, and refused where no draw would give it.

A case with no layers, no tokens or a position behind the last one says nothing about a candidate: what fails there is
the case. So it is refused, and is no verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Union, get_origin, get_type_hints

import msgspec

from holotype_conformance.judge.drawing import draw
from holotype_conformance.judge.property import Case, Property, Violation

DRAWS = 1000  # after so many a choice that did not come is none; the rarest come once in 40


class CaseError(ValueError):
    """A case that is not one of this property."""


class _Enough(Exception):
    """Every choice of the case has been drawn."""


def read_case(property_: Property, text: str) -> Case:
    """The case that `text` (JSON) describes.

    Raises:
        CaseError: it is not JSON, or not a case of this property.
    """
    try:
        return msgspec.json.decode(text.encode(), type=property_.case_type)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise CaseError(
            f"{text[:500]} is not a case of {property_.slug}: {error}; expected a JSON object of"
            f" {', '.join(_fields(property_.case_type))}"
        ) from error


def demand_fit(property_: Property, subject: Any, case: Case) -> None:
    """Demand that a draw for this subject could give the case.

    Numbers are held to what the case says of itself; every choice (a name, or whether something is so) to those that
    the property draws.

    Raises:
        CaseError: none could.
    """
    try:
        reason = case.misfit(subject) or _never_drawn(property_, subject, case)
    except Violation:
        return  # what the candidate raised here fails the case, too
    if reason is not None:
        raise CaseError(
            f"no case of {property_.slug} is like this one: {reason}; expected one that it draws"
        )


def _never_drawn(property_: Property, subject: Any, case: Case) -> str | None:
    """The first choice of `case` that no draw has, with those that were drawn; or None."""
    choices = {name: getattr(case, name) for name in _choices(type(case))}
    seen: dict[str, set[Any]] = {name: set() for name in choices}

    def look(drawn: Case) -> None:
        for name in choices:
            seen[name].add(getattr(drawn, name, None))
        if all(value in seen[name] for name, value in choices.items()):
            raise _Enough

    try:
        draw(property_.cases(subject), look, seed=0, examples=DRAWS, shrink=False)
    except _Enough:
        return None
    for name, value in choices.items():
        if seen[name] and value not in seen[name]:
            known = ", ".join(sorted(map(_said, seen[name])))
            return f"{name} is never {_said(value)} here, but {known}"
    return None


def _said(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _choices(kind: type[Case]) -> Iterator[str]:
    """The fields that hold a name or whether something is so."""
    hints = get_type_hints(kind, include_extras=False)
    return (name for name in _fields(kind) if _is_choice(hints[name]))


def _is_choice(hint: Any) -> bool:
    if get_origin(hint) is Union:
        return False
    return hint is bool or get_origin(hint) is Literal


def _fields(kind: type[Case]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]
