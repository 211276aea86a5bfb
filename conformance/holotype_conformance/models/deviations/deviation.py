"""A deviation of a model, and the catalogue that the modules of this package fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holotype_conformance.judge import deviation as judged
from holotype_conformance.judge.deviation import Catalogue, Title, always, says
from holotype_conformance.judge.deviation import UnknownDeviation as UnknownDeviation
from holotype_reference.model import Model
from holotype_spec.schema import Spec


def identity(spec: Spec) -> Spec:
    """No field is set otherwise."""
    return spec


def nothing(model: Model) -> None:
    """No mechanism is patched."""


@dataclass(frozen=True, kw_only=True)
class Deviation(judged.Deviation):
    """A deviation of a model; its title has the numbers of the full spec.

    Attributes:
        spec: the spec with a field set otherwise; the parameters stay the same.
        patch: changes one mechanism of a reference model that was just built, in place.
    """

    spec: Callable[[Spec], Spec] = identity
    patch: Callable[[Model], None] = nothing


CATALOGUE: Catalogue[Deviation] = Catalogue()

register = CATALOGUE.register
applicable = CATALOGUE.applicable
find = CATALOGUE.find
names = CATALOGUE.names


def all_deviations() -> tuple[Deviation, ...]:
    """The whole catalogue, in reading order."""
    return tuple(CATALOGUE)


# Writing them down ----------------------------------------------------------------------------------------------

Change = Callable[[Spec], Spec]
Patch = Callable[[Model], None]


def patches(
    slug: str,
    title: Title,
    meaning: str,
    *,
    applies: Callable[[Spec], bool] = always,
    reports: tuple[str, ...] = (),
    equivalent: bool = False,
) -> Callable[[Patch], Deviation]:
    """Decorate a patch of a model: make it the deviation that the arguments describe."""
    return lambda patch: register(
        Deviation(
            slug=slug,
            title=says(title),
            meaning=meaning,
            reports=reports,
            applies=applies,
            patch=patch,
            equivalent=equivalent,
        )
    )


def respecifies(
    slug: str,
    title: Title,
    meaning: str,
    *,
    applies: Callable[[Spec], bool] = always,
    reports: tuple[str, ...] = (),
) -> Callable[[Change], Deviation]:
    """Decorate a change of a spec: make it the deviation that the arguments describe."""
    return lambda change: register(
        Deviation(
            slug=slug,
            title=says(title),
            meaning=meaning,
            reports=reports,
            applies=applies,
            spec=change,
        )
    )
