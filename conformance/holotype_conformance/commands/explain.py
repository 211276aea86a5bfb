"""``holotype explain``: what a property or a deviation means, why it matters and how the bug behind it is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING, Any, cast

import click

from holotype_conformance.judge.deviation import family_of
from holotype_conformance.judge.renamed import current, names_of
from holotype_conformance.report.terminal import WIDTH

if TYPE_CHECKING:
    from holotype_conformance.judge.deviation import Catalogue, Deviation
    from holotype_conformance.judge.property import Property


class Unknown(click.ClickException):
    """Nothing is called so."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class Known:
    """The properties and deviations of one kind of candidate.

    Attributes:
        kind: the candidate, in a word.
        of: what is said of its deviations beside those of models.
        properties, deviations: what is claimed of it, and what it gets wrong.
        headings: of the list of properties, and of deviations.
        specs: what it is held against, and how each is called in a sentence.
    """

    kind: str
    of: str = ""
    properties: tuple[Property, ...]
    deviations: Catalogue[Deviation]
    headings: tuple[str, str]
    specs: Callable[[], Iterable[tuple[str, Any]]]


def _known() -> tuple[Known, ...]:
    from holotype_conformance.kernels import deviations as of_kernels
    from holotype_conformance.kernels.properties import kernel_properties
    from holotype_conformance.kernels.subject import KernelContract
    from holotype_conformance.models import deviations as of_models
    from holotype_conformance.models.properties import all_properties

    def specs() -> Iterator[tuple[str, Any]]:
        import holotype_spec
        from holotype_reference.support import supported

        return ((name, holotype_spec.load(name)) for name in supported())

    return (
        Known(
            kind="candidate",
            properties=all_properties(),
            deviations=cast(Any, of_models.CATALOGUE),
            headings=(
                "PROPERTIES, and what each demands",
                "DEVIATIONS, the single changes of a model by which failures are diagnosed",
            ),
            specs=specs,
        ),
        Known(
            kind="kernel",
            of=" of kernels",
            properties=kernel_properties(),
            deviations=cast(Any, of_kernels.CATALOGUE),
            headings=(
                "PROPERTIES of attention kernels (holotype check-attention)",
                "DEVIATIONS of attention kernels, by which their failures are diagnosed",
            ),
            specs=lambda: [("the formula", KernelContract())],
        ),
    )


@click.command("explain", short_help="What a property or a known mistake means.")
@click.argument("slug", required=False)
def explain(slug: str | None) -> None:
    """What the property or deviation SLUG means; without SLUG, the list of all."""
    known = _known()
    lines = list(_listing(known) if slug is None else _explained(slug, known))
    if slug is not None and not lines:
        names = [
            name
            for each in known
            for name in (*(own.slug for own in each.properties), *each.deviations.names())
        ]
        near = get_close_matches(slug, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`holotype explain` lists all"
        raise Unknown(f"no property or deviation is called {slug!r}: {hint}")
    click.echo("\n".join(lines))


def _explained(slug: str, known: Iterable[Known]) -> Iterator[str]:
    """The bearer of a slug: a property, or deviations of one kind or of both."""
    texts = [
        list(_property(property_))
        for each in known
        for property_ in each.properties
        if property_.slug == current(slug)
    ]
    texts += [
        list(_deviation(slug, deviation, each))
        for each in known
        if (deviation := each.deviations.alike(slug)) is not None
    ]
    for number, text in enumerate(texts):
        yield from ([""] if number else [])
        yield from text


def _listing(known: Iterable[Known]) -> Iterator[str]:
    for number, each in enumerate(known):
        yield from ([""] if number else [])
        yield each.headings[0]
        yield from _groups(each.properties)
    for each in known:
        yield ""
        yield each.headings[1]
        yield from _slugs(dict.fromkeys(_family(slug) for slug in each.deviations.names()))


def _family(slug: str) -> str:
    """A slug, with a word for its number if it has one."""
    family = family_of(slug)
    return slug if family == slug else f"{family}.NUMBER"


def _slugs(slugs: Iterable[str]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for slug in slugs:
        groups.setdefault(slug.partition(".")[0], []).append(slug)
    for group, members in groups.items():
        yield ""
        yield group
        yield from _wrapped(", ".join(members), "  ")


def _groups(properties: Iterable[Property]) -> Iterator[str]:
    for group, members in groupby(properties, lambda each: each.slug.partition(".")[0]):
        yield ""
        yield group
        for property_ in members:
            yield f"  {property_.slug} ({property_.level})"
            yield from _wrapped(property_.clause, "      ")


def _property(property_: Property) -> Iterator[str]:
    yield f"{property_.slug} ({property_.level})"
    _, *before = names_of(property_.slug)
    if before:
        yield f"formerly {', '.join(before)}"
    yield ""
    yield from _wrapped(property_.clause)
    yield ""
    yield from _wrapped(property_.meaning)
    yield ""
    yield "Catches:"
    yield from _listed(property_.catches)
    if property_.needs:
        yield ""
        yield from _wrapped(f"Needs of the candidate: {', '.join(property_.needs)}.")


def _deviation(slug: str, deviation: Deviation, known: Known) -> Iterator[str]:
    yield f"{slug} ({'equivalent ' if deviation.equivalent else ''}deviation{known.of})"
    yield ""
    title = next(
        (
            f"{name} if {deviation.title(spec)}"
            for name, spec in known.specs()
            if deviation.applies(spec)
        ),
        None,
    )
    if title is not None:
        yield from _wrapped(f"A {known.kind} that has it agrees with {title}.")
        yield ""
    if slug != deviation.slug:
        yield from _wrapped(f"{deviation.slug} is one like it; the number is another.")
        yield ""
    yield from _wrapped(deviation.meaning)
    if deviation.equivalent:
        yield from _wrapped("By mathematics this is no change, and no property may flag it.")
    if deviation.reports:
        yield ""
        yield "Reported in:"
        yield from _listed(deviation.reports)


def _listed(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        yield from wrap(entry, WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
