"""A deviation: one named change that makes what is right wrong, and a catalogue of them.

A catalogue serves three ends: the suite's own test, for every deviation must be caught by a property; the diagnosis of
a failure, by the deviation that explains it; and ``holotype explain``, which says what goes wrong and how it is mended.
Each suite adds how its candidates deviate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar


def always(spec: Any) -> bool:
    """Every candidate has what is changed."""
    return True


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One named change.

    Attributes:
        slug: its permanent name, ``group.change``.
        title: completes "agrees with SPEC if …", of what a candidate is held against.
        meaning: for ``holotype explain``: what goes wrong, how it shows, how it is mended.
        reports: public reports of it, ``owner/repository#number``; none where we know of none.
        applies: whether the spec has what is changed, and the change makes a difference.
        equivalent: the change is none by mathematics, and no property may flag it.
    """

    slug: str
    title: Callable[[Any], str]
    meaning: str
    reports: tuple[str, ...] = ()
    applies: Callable[[Any], bool] = always
    equivalent: bool = False

    @property
    def group(self) -> str:
        """The first part of its name."""
        return self.slug.partition(".")[0]


Title = str | Callable[[Any], str]


def says(title: Title) -> Callable[[Any], str]:
    """A title of any spec."""
    return (lambda _: title) if isinstance(title, str) else title


class UnknownDeviation(KeyError):
    """No deviation is called so; the message has the nearest names."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print it quoted


D = TypeVar("D", bound=Deviation)


class Catalogue(Generic[D]):
    """The deviations of one suite, in the order in which they were registered, which is that of reading."""

    def __init__(self) -> None:
        self._known: dict[str, D] = {}

    def __iter__(self) -> Iterator[D]:
        return iter(tuple(self._known.values()))

    def register(self, deviation: D) -> D:
        """Add a deviation. Two with one slug are a mistake of ours."""
        if deviation.slug in self._known:
            raise ValueError(f"two deviations are called {deviation.slug!r}")
        self._known[deviation.slug] = deviation
        return deviation

    def names(self) -> tuple[str, ...]:
        """Every slug, in reading order."""
        return tuple(self._known)

    def applicable(self, spec: Any) -> tuple[D, ...]:
        """The deviations that make sense for a spec, the equivalent ones among them."""
        return tuple(deviation for deviation in self if deviation.applies(spec))

    def find(self, slug: str) -> D:
        """The deviation of that name.

        Raises:
            UnknownDeviation: there is none.
        """
        if slug not in self._known:
            near = get_close_matches(slug, self.names(), n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else "`holotype explain` lists all"
            raise UnknownDeviation(f"no deviation is called {slug!r}: {hint}")
        return self._known[slug]

    def alike(self, slug: str) -> D | None:
        """The deviation of that name, or one that differs from it in its number alone; None where there is none."""
        family = family_of(slug)
        if slug in self._known or family == slug:
            return self._known.get(slug)
        others = (each for each in self if each.slug != family == family_of(each.slug))
        return next(others, None)


def family_of(slug: str) -> str:
    """A slug without the number at its end, as of keys in a block: ``blocks.added.64`` -> ``blocks.added``."""
    return re.sub(r"\.\d+$", "", slug)
