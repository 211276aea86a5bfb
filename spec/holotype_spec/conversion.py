"""Tables of a TOML file as strict classes, with all mistakes of the file reported at once."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from holotype_spec.errors import Problem, SpecError

T = TypeVar("T")


def converted(document: dict[str, Any], into: type[T], file: str, problems: list[Problem]) -> T:
    """The document as `into`, unless its keys and types are wrong or there are `problems` besides.

    Raises:
        SpecError: with all mistakes, those of keys and types first.
    """
    try:
        made = msgspec.convert(document, into)
    except msgspec.ValidationError as error:
        # msgspec stops at the first mistake; the slower second look finds them all.
        from holotype_spec.validation import problems_against

        found = problems_against(into, document, file, first=str(error))
        raise SpecError([*found, *problems]) from None
    if problems:
        raise SpecError(problems)
    return made
