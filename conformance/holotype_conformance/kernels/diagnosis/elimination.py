"""Which changes of a catalogue explain what a kernel did: those that agree with all that it is seen to do."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.cases import AttentionCase


class Named(Hashable, Protocol):
    """A change; its title goes on "agrees with the formula if"."""

    @property
    def slug(self) -> str: ...

    @property
    def title(self) -> str: ...


C = TypeVar("C", bound=Named)


class Seen(Protocol):
    """What a kernel did with a case."""

    @property
    def near(self) -> float:
        """The residual that is rounding."""

    @property
    def is_right(self) -> bool:
        """Whether there is nothing to explain."""

    def residual(self, change: Any) -> float:
        """How far the kernel is from the formula with a change; infinite for no change."""


def agreeing(
    observe: Callable[[AttentionCase], Seen],
    changes: Iterable[C],
    cases: list[AttentionCase],
    limits: Callable[[C, AttentionCase], list[str] | None],
) -> Iterator[Diagnosis]:
    """The changes with which the formula agrees on all cases; later ones are seen by what explains those before.

    `limits` says where alone a change explains what happens around a case; those that need no limit go before others.
    """
    left, right = dict.fromkeys(changes, 0.0), True
    for case in cases:
        if not left:
            return
        scene = observe(case)
        left, right = _near(left, scene), right and scene.is_right
    if right:
        return  # what failed is something else: gradients, say, where results are looked at
    found: dict[C, list[str]] = {}
    for change in left:
        where = limits(change, cases[-1])
        if where is not None:
            found[change] = where
    fewest = min((len(where) for where in found.values()), default=0)
    for change, where in found.items():
        if len(where) == fewest:
            title = " ".join([f"agrees with the formula if {change.title}", " and ".join(where)])
            yield Diagnosis(deviation=change.slug, title=title.rstrip(), residual=left[change])


def _near(changes: dict[C, float], scene: Seen) -> dict[C, float]:
    """Those that agree on a scene too, each with its largest residual."""
    found = {change: max(residual, scene.residual(change)) for change, residual in changes.items()}
    return {change: residual for change, residual in found.items() if residual <= scene.near}
