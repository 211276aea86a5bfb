"""Elimination: the changes of a catalogue that explain what a candidate did agree with all that it is seen to do.

What is seen is a list of scenes: the failing case, and larger ones of its kind, for small ones look alike under many
changes. What explains a failure agrees with each of them to rounding; nothing else comes near by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

C = TypeVar("C", bound=Hashable)


class Seen(Protocol):
    """The outputs of a candidate in a scene."""

    @property
    def near(self) -> float:
        """The residual that is rounding."""

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to explain."""

    def residual(self, change: Any) -> float:
        """The distance of the candidate from what is right but for a change; infinite where that changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Explanation(Generic[C]):
    """A change that explains a failure.

    Attributes:
        residual: how far it is from what was seen, at most.
        where: where alone it does, in words, one for each respect in which that is limited.
    """

    change: C
    residual: float
    where: list[str]


def surviving(changes: Mapping[C, float], seen: Seen) -> dict[C, float]:
    """Those that agree with a scene to rounding too, each with its largest residual so far."""
    found = {change: max(residual, seen.residual(change)) for change, residual in changes.items()}
    return {change: residual for change, residual in found.items() if residual <= seen.near}


def agreeing(
    changes: Iterable[C],
    scenes: Iterable[Seen],
    limits: Callable[[C], list[str] | None],
) -> Iterator[Explanation[C]]:
    """The changes that agree with all scenes; later scenes are looked at for what explains those before.

    `limits` says where alone a change explains what happens around the scenes, or None where no few words say it; of
    several changes those count that need the fewest.
    """
    left, right = dict.fromkeys(changes, 0.0), True
    for scene in scenes:
        left, right = surviving(left, scene), right and scene.is_right
        if not left:
            return
    if right:
        return  # what failed is something else: gradients, say, where results are looked at
    told = {change: limits(change) for change in left}
    found = {change: where for change, where in told.items() if where is not None}
    fewest = min(map(len, found.values()), default=0)
    for change, where in found.items():
        if len(where) == fewest:
            yield Explanation(change=change, residual=left[change], where=where)
