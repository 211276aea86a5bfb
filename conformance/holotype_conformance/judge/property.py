"""A property: one small claim about an implementation, with a permanent name.

A property is a function ``check(subject, case)`` that returns when the claim holds for that case and raises `Violation`
when it does not; or ``check(subject, case, path)``, which is asked for each code path of the candidate. Cases are small
frozen structs, drawn by Hypothesis and shrunk by it to the smallest one that fails; the same struct, written as JSON,
reruns exactly that case. pytest collects a property as an item (see `holotype_conformance.pytest_plugin.plugin`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_type_hints

import msgspec

from holotype_conformance.judge.records import DType

if TYPE_CHECKING:
    import typing_extensions
    from hypothesis.strategies import SearchStrategy

    from holotype_spec.schema import Binding, Spec

    S = typing_extensions.TypeVar("S", default=Any)
else:
    S = TypeVar("S")

Level = Literal["must", "should"]
ALL_DTYPES: tuple[DType, ...] = ("float64", "float32", "bfloat16", "float16")


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The input of one run of a property: whole numbers, booleans and names, never tensors.

    The fields of a subclass stand in the order in which a person wants to read them. What no draw would give is refused
    when a case is read, by the bounds of its fields and by `misfit`.
    """

    def misfit(self, subject: Any) -> str | None:
        """Why the fields do not fit each other or the subject, or None."""
        return None


class Violation(AssertionError):
    """The property does not hold for this case.

    Args:
        summary: one sentence: what was seen, with the measured number, and what was expected.
        facts: more measurements, name -> value, for reports.
    """

    def __init__(self, summary: str, **facts: Any) -> None:
        super().__init__(summary)
        self.summary = summary
        self.facts = facts
        self.trace: str | None = (
            None  # of the candidate's own error, where that was raised in another process
        )


_MEASURED: ContextVar[list[tuple[float, float]] | None] = ContextVar("measured", default=None)


def measured(error: float, budget: float) -> None:
    """Tell whoever listens how large an error was found, and how large it may be."""
    found = _MEASURED.get()
    if found is not None:
        found.append((error, budget))


@contextmanager
def measurements() -> Iterator[list[tuple[float, float]]]:
    """All that is passed to `measured` inside: (error, budget)."""
    found: list[tuple[float, float]] = []
    token = _MEASURED.set(found)
    try:
        yield found
    finally:
        _MEASURED.reset(token)


_NOTED: ContextVar[list[str] | None] = ContextVar("noted", default=None)


def noted(text: str) -> None:
    """Have a sentence printed beside a pass: what was let pass because the candidate declares it."""
    found = _NOTED.get()
    if found is not None and text not in found:
        found.append(text)


@contextmanager
def notes() -> Iterator[list[str]]:
    """All that is passed to `noted` inside."""
    found: list[str] = []
    token = _NOTED.set(found)
    try:
        yield found
    finally:
        _NOTED.reset(token)


class Skip(Exception):
    """Raised by a check that finds out only on its way that it can say nothing; the message is the reason of the skip.

    It is for what depends on the machine, and holds for all cases alike: a compiler or a kernel that is not there.
    """


class SuiteFault(Exception):
    """The suite could not give a candidate what it owes it; the message says what. No verdict on the candidate."""


def always(_spec: object) -> None:
    """The property applies to every spec."""


@dataclass(frozen=True, kw_only=True)
class Property(Generic[S]):
    """One claim.

    Attributes:
        slug: its permanent name, ``group.claim``.
        clause: the clause of the spec that it states, one sentence.
        meaning: for `holotype explain`: why it matters, and how the bug behind a failure is found and mended.
        catches: the bugs that it is there to catch, a phrase each.
        cases: the strategy that draws cases for a subject.
        case_type: the struct that a case is.
        check: the claim itself. One with a parameter `path` is asked for each path of the candidate, one without is
            asked once for a case.
        level: a `must` decides whether a candidate conforms; a `should` is reported.
        needs: capabilities of the candidate without which it cannot run.
        binds: fields of the spec that it takes at their word, "all" of them where it counts; under a generic spec
            that does not promise them it is skipped.
        reference: whether it compares with our reference or oracle, which must then have every mechanism of the
            spec; else it is skipped.
        applies: None when the spec has what the property speaks of, else the reason for the skip.
        examples: cases drawn in the quick profile; the full profile draws ten times as many.
        dtypes: those in which it compares numbers; it is skipped where none of them was asked for. Empty if it
            compares none.
        costly: a case takes seconds. It runs in the full profile or by its own name, with no more than `examples`.
        apart: its check needs nothing of the candidate's models but what they return. Where the candidate runs in
            another process it is then judged outside of that, on outputs that come over as data.
    """

    slug: str
    clause: str
    meaning: str
    catches: tuple[str, ...]
    cases: Callable[[S], SearchStrategy[Any]]
    case_type: type[Case]
    check: Callable[..., None]
    level: Level = "must"
    needs: tuple[str, ...] = ()
    applies: Callable[[Spec], str | None] = always
    binds: tuple[Binding, ...] | Literal["all"] = ()
    reference: bool = False
    examples: int = 20
    dtypes: tuple[DType, ...] = ("float64",)
    costly: bool = False
    apart: bool = False

    @cached_property
    def by_path(self) -> bool:
        """Whether it is judged on each path of the candidate by itself."""
        return "path" in signature(self.check).parameters


class Claims(Generic[S]):
    """The properties of one suite, in the order in which they were registered, which is that of reading."""

    def __init__(self) -> None:
        self._known: dict[str, Property[S]] = {}

    def register(self, property_: Property[S]) -> Property[S]:
        """Add a property. Two with one slug are a mistake of ours."""
        if property_.slug in self._known:
            raise ValueError(f"two properties are called {property_.slug!r}")
        self._known[property_.slug] = property_
        return property_

    def claim(self, **facts: Any) -> Callable[[Callable[..., None]], Property[S]]:
        """Decorate a check: make it the `Property` that `facts` describe, and register that.

        What a case is, is read from the annotation of the check's parameter `case`.
        """

        def registered(check: Callable[..., None]) -> Property[S]:
            case_type = get_type_hints(check)["case"]
            return self.register(Property(check=check, case_type=case_type, **facts))

        return registered

    def all(self) -> tuple[Property[S], ...]:
        """Every property that was registered."""
        return tuple(self._known.values())
