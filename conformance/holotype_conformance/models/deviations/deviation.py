"""What a deviation is, and the catalogue that the modules of this package fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from holotype_reference.model import Model
from holotype_spec.schema import Spec


def identity(spec: Spec) -> Spec:
    """No field is set otherwise."""
    return spec


def nothing(model: Model) -> None:
    """No mechanism is patched."""


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One named change that makes a correct model another one.

    Attributes:
        slug: its permanent name, ``group.change``.
        title: completes "agrees with SPEC if …", with the numbers of the full spec.
        meaning: for ``holotype explain``: what goes wrong, how it shows, how it is mended.
        reports: public reports of it, ``owner/repository#number``; none where we know of none.
        applies: whether the spec has what is changed, and the change makes a difference.
        spec: the spec with a field set otherwise; the parameters stay the same.
        patch: changes one mechanism of a reference model that was just built, in place.
        equivalent: the change is none by mathematics, and no property may flag it.
    """

    slug: str
    title: Callable[[Spec], str]
    meaning: str
    reports: tuple[str, ...] = ()
    applies: Callable[[Spec], bool]
    spec: Callable[[Spec], Spec] = identity
    patch: Callable[[Model], None] = nothing
    equivalent: bool = False


class UnknownDeviation(KeyError):
    """No deviation is called so; the message has the nearest names."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print it quoted


_CATALOGUE: dict[str, Deviation] = {}


def register(deviation: Deviation) -> Deviation:
    """Add a deviation to the catalogue. Two with one slug are a mistake of ours."""
    if deviation.slug in _CATALOGUE:
        raise ValueError(f"two deviations are called {deviation.slug!r}")
    _CATALOGUE[deviation.slug] = deviation
    return deviation


def all_deviations() -> tuple[Deviation, ...]:
    """The whole catalogue, in reading order."""
    return tuple(_CATALOGUE.values())


def names() -> tuple[str, ...]:
    """Every slug, in reading order."""
    return tuple(_CATALOGUE)


def applicable(spec: Spec) -> tuple[Deviation, ...]:
    """The deviations that make sense for a spec, the equivalent ones among them."""
    return tuple(deviation for deviation in all_deviations() if deviation.applies(spec))


def find(slug: str) -> Deviation:
    """The deviation of that name.

    Raises:
        UnknownDeviation: there is none.
    """
    if slug not in _CATALOGUE:
        near = get_close_matches(slug, names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`holotype explain` lists all"
        raise UnknownDeviation(f"no deviation is called {slug!r}: {hint}")
    return _CATALOGUE[slug]


# Writing them down ----------------------------------------------------------------------------------------------

Title = str | Callable[[Spec], str]
Change = Callable[[Spec], Spec]
Patch = Callable[[Model], None]


def always(spec: Spec) -> bool:
    """Every model has what is changed."""
    return True


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
            title=_says(title),
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
            title=_says(title),
            meaning=meaning,
            reports=reports,
            applies=applies,
            spec=change,
        )
    )


def _says(title: Title) -> Callable[[Spec], str]:
    return (lambda _: title) if isinstance(title, str) else title
