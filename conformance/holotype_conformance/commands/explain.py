"""``holotype explain``: what a property or a deviation means, why it matters and how the bug behind it is mended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import chain, groupby
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from holotype_conformance.report.terminal import WIDTH

if TYPE_CHECKING:
    from holotype_conformance.judge.property import Property
    from holotype_conformance.models.deviations import Deviation


class Unknown(click.ClickException):
    """Nothing is called so."""

    exit_code = 2


@click.command("explain", short_help="What a property or a known mistake means.")
@click.argument("slug", required=False)
def explain(slug: str | None) -> None:
    """What the property or deviation SLUG means; without SLUG, the list of all."""
    from holotype_conformance.kernels.diagnosis import catalogue
    from holotype_conformance.kernels.properties import kernel_properties
    from holotype_conformance.models.deviations import all_deviations
    from holotype_conformance.models.properties import all_properties

    lines: Iterable[str]
    models: tuple[Property, ...] = all_properties()
    kernels: tuple[Property, ...] = kernel_properties()
    properties = {property_.slug: property_ for property_ in (*models, *kernels)}
    deviations = {deviation.slug: deviation for deviation in all_deviations()}
    changes = catalogue()
    if slug is None:
        lines = _listing(models, kernels, deviations, changes)
    elif slug in properties:
        lines = _property(properties[slug])
    elif slug in deviations and slug in changes:
        lines = chain(_deviation(deviations[slug]), [""], _change(slug, changes[slug]))
    elif slug in deviations:
        lines = _deviation(deviations[slug])
    elif slug in changes:
        lines = _change(slug, changes[slug])
    else:
        near = get_close_matches(slug, [*properties, *deviations, *changes], n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`holotype explain` lists all"
        raise Unknown(f"no property or deviation is called {slug!r}: {hint}")
    click.echo("\n".join(lines))


def _listing(
    models: Iterable[Property],
    kernels: Iterable[Property],
    deviations: Iterable[str],
    changes: Iterable[str],
) -> Iterator[str]:
    yield "PROPERTIES, and what each demands"
    yield from _groups(models)
    yield ""
    yield "PROPERTIES of attention kernels (holotype check-attention)"
    yield from _groups(kernels)
    yield ""
    yield "DEVIATIONS, the single changes of a model by which failures are diagnosed"
    yield from _slugs(deviations)
    yield ""
    yield "CHANGES of the formula by which failures of attention kernels are diagnosed"
    yield from _slugs(dict.fromkeys(re.sub(r"\.\d+$", ".BLOCK", slug) for slug in changes))


def _slugs(slugs: Iterable[str]) -> Iterator[str]:
    for group, members in groupby(slugs, lambda slug: slug.partition(".")[0]):
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


def _deviation(deviation: Deviation) -> Iterator[str]:
    import holotype_spec
    from holotype_reference.support import supported

    specs = [spec for spec in map(holotype_spec.load, supported()) if deviation.applies(spec)]
    yield f"{deviation.slug} ({'equivalent ' if deviation.equivalent else ''}deviation)"
    yield ""
    if specs:
        title = deviation.title(specs[0])
        yield from _wrapped(f"A candidate that has it agrees with {specs[0].name} if {title}.")
        yield ""
    yield from _wrapped(deviation.meaning)
    if deviation.equivalent:
        yield from _wrapped("By mathematics this is no change, and no property may flag it.")
    if deviation.reports:
        yield ""
        yield "Reported in:"
        yield from _listed(deviation.reports)


def _change(slug: str, title: str) -> Iterator[str]:
    yield f"{slug} (change of attention)"
    yield ""
    yield from _wrapped(f"A kernel that has it agrees with the formula if {title}.")


def _listed(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        yield from wrap(entry, WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
