"""Errors of specs, and their messages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake in a spec file: where, what stands there, what was expected, how to mend it.

    `key` is the dotted path inside the file, a variant by its name ("variants[gpt2-xl].heads"). `value` is
    what stands there, or None where a key is missing or the file is not TOML at all.
    """

    file: str
    key: str
    value: Any
    expected: str
    mend: str

    def __str__(self) -> str:
        key = self.key if len(self.key) <= 200 else f"{self.key[:197]}..."
        place = f"{self.file}: {key}" if key else self.file
        stands = "" if self.value is None else f" = {_shown(self.value)}"
        return f"{place}{stands}: expected {self.expected}; {self.mend}"


TOLD = 50  # mistakes that a message lists


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class SpecError(ValueError):
    """A spec file that cannot be used; `errors` lists every `Problem` found in it."""

    def __init__(self, errors: list[Problem]) -> None:
        self.errors = errors
        told = [str(error) for error in errors[:TOLD]]
        more = [f"and {len(errors) - TOLD} more"] if len(errors) > TOLD else []
        super().__init__("\n".join(told + more))


class UnknownSpec(ValueError):
    """A name that is not in the catalogue; `nearest` lists the names most like it, best first."""

    def __init__(self, name: str, nearest: list[str], *, what: str = "spec") -> None:
        self.name = name
        self.nearest = nearest
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else "`holotype list` names all"
        untold = what == "variant" and not name
        wrong = (
            "no variant is named, as in mine.toml:name" if untold else f"unknown {what} {name!r}"
        )
        super().__init__(f"{wrong}: {hint}")


class NoSpec(UnknownSpec):
    """The catalogue has an entry of this name, but it is no complete Transformer, and `why` says what it is."""

    def __init__(self, name: str, why: str) -> None:
        ValueError.__init__(self, f"{name} has no complete spec: {why}")
        self.name, self.nearest, self.why = name, [], why


class UndisclosedValue(ValueError):
    """A number was asked for that depends on a value which nobody disclosed.

    `model` and `field` name that value, `question` the number.
    """

    def __init__(self, model: str, field: str, question: str | None = None) -> None:
        self.model, self.field, self.question = model, field, question
        what = f"the {field} of {model}" if question is None else f"{question} of {model}"
        why = "is undisclosed" if question is None else f"depends on {field}, which is undisclosed"
        super().__init__(f"{what} {why}")


def nearest(word: str, known: Collection[str]) -> str | None:
    """ "did you mean …?", or None where nothing is near."""
    from difflib import get_close_matches

    near = get_close_matches(word[:100], known, n=1)
    return f'did you mean "{near[0]}"?' if near else None
