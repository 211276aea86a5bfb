"""``holotype list``, ``holotype show`` and ``holotype diff``: the catalogue, without torch.

Everything that is not needed to parse the command line is imported when a command runs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from holotype_conformance.report.terminal import BadInput

if TYPE_CHECKING:
    from holotype_spec import Entry

STRUCTURES = ("encoder", "decoder", "encoder-decoder", "state-space", "recurrent", "feed-forward")


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of parameters, written as 350M or 1.3B."""
    from holotype_spec.overview import parsed_size

    if value is None:
        return None
    if (size := parsed_size(value)) is None:
        raise click.BadParameter(f"{value!r} is no size: expected a number such as 350M or 1.3B")
    return size


@click.command("list", short_help="The catalogue: every model that has an entry.")
@click.option("--family", metavar="F", help="Only this family.")
@click.option(
    "--structure",
    type=click.Choice(STRUCTURES),
    metavar="S",
    help=f"Only models of this structure: {', '.join(STRUCTURES)}.",
)
@click.option("--objective", metavar="O", help="Only models trained with this objective.")
@click.option(
    "--disclosed/--undisclosed",
    default=None,
    help="Only models of which all was published, or only the others.",
)
@click.option("--min-parameters", callback=_size, metavar="N", help="Only from this size on: 350M.")
@click.option("--max-parameters", callback=_size, metavar="N", help="Only up to this size: 1.3B.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_specs(family: str | None, as_json: bool, objective: str | None, **filters: Any) -> None:
    """The catalogue: every model that has an entry, and the generic specs for what is no model of it."""
    from holotype_conformance.commands.facts import summary
    from holotype_conformance.commands.pages import listing
    from holotype_spec import UnknownSpec, entries, find, generics

    try:
        found = entries(family) if family else [*entries(), *map(find, generics())]
    except UnknownSpec as error:
        raise BadInput(str(error)) from None
    _check_objective(objective)
    _check_sizes(filters["min_parameters"], filters["max_parameters"])
    rows = [summary(entry) for entry in found if _passes(entry, objective=objective, **filters)]
    if not rows and not as_json:
        click.echo("no entry is like that; fewer options find more", err=True)
    _echo(json.dumps(rows, indent=2) if as_json else listing(rows))


def _check_sizes(smallest: int | None, largest: int | None) -> None:
    if smallest is not None and largest is not None and smallest > largest:
        raise BadInput(
            f"--min-parameters {smallest:,} is more than --max-parameters {largest:,}: no size is between them"
        )


def _passes(
    entry: Entry,
    *,
    structure: str | None,
    objective: str | None,
    disclosed: bool | None,
    min_parameters: int | None,
    max_parameters: int | None,
) -> bool:
    from holotype_spec import overview

    if structure is not None and overview.structure(entry) != structure:
        return False
    if objective is not None and objective not in overview.objectives(entry):
        return False
    if disclosed is not None and (overview.disclosure(entry) == "published") != disclosed:
        return False
    if min_parameters is None and max_parameters is None:
        return True
    size = overview.size(entry)
    return size is not None and (min_parameters or 0) <= size <= (max_parameters or size)


@click.command("show", short_help="One entry: facts, sources, parameters, costs.")
@click.argument("spec")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--parameters", is_flag=True, help="Also every parameter: its name and shape.")
@click.option(
    "--aliases",
    "as_aliases",
    is_flag=True,
    help="Instead the facts under the names of transformers, GGUF and LitGPT.",
)
def show_spec(spec: str, as_json: bool, parameters: bool, as_aliases: bool) -> None:
    """One entry: facts, sources, parameters by component, costs.

    SPEC is a name of the catalogue (holotype list), or a file of your own: mine.toml, or mine.toml:name where
    it has several variants. What it derives from is filled in; what is undisclosed is said to be.
    """
    from holotype_conformance.commands import facts, generic, pages
    from holotype_spec import Spec, UndisclosedValue

    entry = find_entry(spec)
    if as_aliases:
        _show_aliases(entry, as_json=as_json)
        return
    if isinstance(entry, Spec) and entry.family.generic:
        _echo(json.dumps(generic.facts(entry), indent=2) if as_json else generic.page(entry))
        return
    told = facts.facts(entry)
    if parameters:
        try:
            told["parameters"]["table"] = facts.table(entry)
        except UndisclosedValue as error:
            raise BadInput(str(error)) from None
    _echo(json.dumps(told, indent=2) if as_json else pages.page(told))


def _show_aliases(entry: Entry, *, as_json: bool) -> None:
    from holotype_conformance.commands.aliases import aliases, page
    from holotype_spec import Spec

    if not isinstance(entry, Spec) or entry.family.generic:
        raise BadInput(
            f"{entry.name} has no complete spec of a Transformer, so that its facts have no other names"
        )
    told = aliases(entry)
    _echo(json.dumps(told, indent=2) if as_json else page(told))


@click.command("diff", short_help="What two entries differ in, and what that does.")
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def diff_specs(first: str, second: str, as_json: bool) -> None:
    """Which fields of two entries differ, and what that does to parameters and cost.

    FIRST and SECOND are names of the catalogue or files of your own, as for `holotype show`.
    """
    from holotype_conformance.commands.difference import difference, page

    told = difference(find_entry(first), find_entry(second))
    _echo(json.dumps(told, indent=2) if as_json else page(told))


def find_entry(name: str) -> Entry:
    """The entry called `name`.

    Raises:
        BadInput: there is none, or its file is malformed.
    """
    from holotype_spec import SpecError, UnknownSpec, find

    try:
        return find(name)
    except (UnknownSpec, SpecError) as error:
        raise BadInput(str(error)) from None


def _check_objective(objective: str | None) -> None:
    from typing import get_args

    from holotype_spec.schema import Objective

    known = get_args(Objective)
    if objective is not None and objective not in known:
        raise BadInput(f"unknown objective {objective!r}: expected one of {', '.join(known)}")


def _echo(text: str) -> None:
    click.echo(text.rstrip("\n"))
