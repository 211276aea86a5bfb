"""``holotype list`` and ``holotype show``: the catalogue, without torch.

Everything that is not needed to parse the command line is imported when a command runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from holotype_spec import Spec

WIDTH = 80
SHORT = {"encoder-decoder": "enc-dec"}  # so that a line of the list fits
SIZES = (
    "layers",
    "hidden_size",
    "heads",
    "kv_heads",
    "head_dim",
    "ffn_size",
    "vocab_size",
    "max_positions",
)


class BadInput(click.ClickException):
    """What the user gave cannot be used; one paragraph on standard error and exit code 2."""

    exit_code = 2


@click.command("list")
@click.option("--family", metavar="F", help="Only this family.")
@click.option(
    "--structure",
    type=click.Choice(["encoder", "decoder", "encoder-decoder"]),
    help="Only models of this structure.",
)
@click.option("--objective", metavar="O", help="Only models pretrained with this objective.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_specs(
    family: str | None, structure: str | None, objective: str | None, as_json: bool
) -> None:
    """The catalogue: every model that has a spec, and the generic specs for what is no model of it."""
    from holotype_spec import UnknownSpec, generics, names

    try:
        found = names(family) if family else [*names(), *generics()]
    except UnknownSpec as error:
        raise BadInput(str(error)) from None
    _check_objective(objective)
    rows = [
        _summary(spec)
        for spec in map(_load, found)
        if structure in (None, spec.architecture.structure)
        and (objective is None or objective in spec.architecture.objective)
    ]
    _echo(json.dumps(rows, indent=2) if as_json else _listing(rows))


@click.command("show")
@click.argument("spec")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--parameters", is_flag=True, help="Also every parameter: its name and shape.")
def show_spec(spec: str, as_json: bool, parameters: bool) -> None:
    """One spec: facts, sources, parameters by component, costs.

    SPEC is a name of the catalogue (holotype list), or a file of your own: mine.toml, or mine.toml:name where
    it has several variants.
    """
    model = _load(spec)
    if model.family.generic:
        from holotype_conformance.commands import generic

        _echo(json.dumps(generic.facts(model), indent=2) if as_json else generic.page(model))
        return
    facts = _facts(model)
    if parameters:
        facts["parameters"]["table"] = _table(model)
    _echo(json.dumps(facts, indent=2) if as_json else _page(model, facts))


def _check_objective(objective: str | None) -> None:
    from typing import get_args

    from holotype_spec.schema import Objective

    known = get_args(Objective)
    if objective is not None and objective not in known:
        raise BadInput(f"unknown objective {objective!r}: expected one of {', '.join(known)}")


def _echo(text: str) -> None:
    click.echo(text.rstrip("\n"))


def _load(name: str) -> Spec:
    from holotype_spec import SpecError, UnknownSpec, load

    try:
        return load(name)
    except (UnknownSpec, SpecError) as error:
        raise BadInput(str(error)) from None


# Facts, for machines ---------------------------------------------------------------------------------------


def _summary(spec: Spec) -> dict[str, Any]:
    from holotype_spec import count_parameters

    return {
        "name": spec.name,
        "family": spec.family.name,
        "structure": spec.architecture.structure,
        "parameters": None if spec.family.generic else count_parameters(spec).total,
        "aliases": list(spec.aliases),
    }


def _facts(spec: Spec) -> dict[str, Any]:
    import msgspec

    from holotype_spec import count_parameters

    counts = count_parameters(spec)
    return {
        "name": spec.name,
        "family": spec.family.name,
        "title": spec.family.title,
        "aliases": list(spec.aliases),
        "sources": msgspec.to_builtins(spec.family.sources),
        "architecture": msgspec.to_builtins(spec.architecture),
        "sizes": {size: getattr(spec, size) for size in SIZES},
        "parameters": {
            "total": counts.total,
            "backbone": counts.backbone,
            "active": counts.active,
            "components": counts.components,
            "apart": counts.apart,
            "published": msgspec.to_builtins(spec.parameters),
        },
        "costs": _costs(spec),
    }


def _costs(spec: Spec) -> dict[str, Any]:
    from holotype_spec import costs

    context = spec.max_positions
    flops = costs.flops_per_token(spec, context)
    return {
        "context": context,
        "flops_per_token": {"forward": flops.forward, "training": flops.training},
        "kv_cache_bytes_per_token": {
            dtype: costs.kv_cache_bytes_per_token(spec, dtype) for dtype in ("float32", "bfloat16")
        },
        "kv_cache_bytes": {
            dtype: costs.kv_cache_bytes(spec, context, dtype) for dtype in ("float32", "bfloat16")
        },
        "memory_bytes": {
            dtype: costs.memory_bytes(spec, dtype) for dtype in ("float32", "bfloat16", "int8")
        },
    }


def _table(spec: Spec) -> list[dict[str, Any]]:
    from holotype_spec import parameter_table

    return [
        {
            "name": parameter.name,
            "shape": list(parameter.shape),
            "role": parameter.role,
            "component": parameter.component,
        }
        for parameter in parameter_table(spec)
    ]


# Pages, for people -----------------------------------------------------------------------------------------


def _listing(rows: list[dict[str, Any]]) -> str:
    cells = [("NAME", "FAMILY", "STRUCTURE", "PARAMETERS", "ALIASES")] + [
        (
            row["name"],
            row["family"],
            SHORT.get(row["structure"], row["structure"]),
            "any" if row["parameters"] is None else f"{row['parameters']:,}",
            " ".join(row["aliases"]),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if index == 3 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
    return "\n".join(f"{line[: WIDTH - 1]}…" if len(line) > WIDTH else line for line in lines)


def _page(spec: Spec, facts: dict[str, Any]) -> str:
    aliases = f", also called {', '.join(spec.aliases)}" if spec.aliases else ""
    lines = [f"{spec.name}: {spec.family.title}{aliases}"]
    lines += section("Sizes", aligned(_sizes_told(facts)))
    lines += section("Architecture", aligned(list(flat(facts["architecture"]))))
    lines += section("Parameters", _parameters_told(facts["parameters"]))
    lines += section("Costs", _costs_told(facts["costs"]))
    lines += section("Sources", sources_told(facts["sources"]))
    if table := facts["parameters"].get("table"):
        lines += section("Every parameter", _table_told(table))
    return "\n".join(lines)


def section(title: str, lines: list[str]) -> list[str]:
    """A part of a page under its title."""
    return ["", title, *(f"  {line}" for line in lines)]


def aligned(pairs: list[tuple[str, str]], *, right: bool = False) -> list[str]:
    """Two columns, a long text in the second on several lines."""
    left = max(len(name) for name, _ in pairs)
    wide = max(len(text) for _, text in pairs) if right else 0
    return [_fitted(name, f"{text:>{wide}}", left) for name, text in pairs]


def _fitted(name: str, text: str, left: int) -> str:
    """A pair in its columns; a long text ends where the page does, and a longer one goes on in the next lines."""
    room = WIDTH - 2
    column = min(left + 2, max(room - len(text), len(name) + 2))
    rest = f"\n{' ' * (column + 2)}"
    return f"{name:<{column}}{rest.join(wrap(text, room - column, drop_whitespace=False))}".rstrip()


def _sizes_told(facts: dict[str, Any]) -> list[tuple[str, str]]:
    a_stack = facts["architecture"]["structure"] == "encoder-decoder"
    told = {size: f"{value:,}" for size, value in facts["sizes"].items()}
    told["layers"] += " in each stack" if a_stack else ""
    return list(told.items())


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of the architecture, each with its path; the kind of a mechanism stands at its own name."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield (prefix.rstrip(".") if key == "kind" else prefix + key), _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(value) or "none"
    return str(value)


def _parameters_told(parameters: dict[str, Any]) -> list[str]:
    total, published = parameters["total"], parameters["published"]
    counts = parameters["components"] | {
        "total": total,
        "without the pretraining heads": parameters["backbone"],
    }
    if parameters["active"] < total:
        counts["used by one token"] = parameters["active"]
    shares = [f"{count / total:6.1%}" for count in counts.values()]
    lines = aligned([(name, f"{count:,}") for name, count in counts.items()], right=True)
    note = f": {published['note']}" if published["note"] else ""
    told = f"published as {published['published']} ({published['source']}){note}"
    apart = [f"apart, for training alone: {n}, {c:,}" for n, c in parameters["apart"].items()]
    return [
        *(f"{line}  {share}" for line, share in zip(lines, shares, strict=True)),
        *apart,
        *wrap(told, WIDTH - 2),
    ]


def _costs_told(costs: dict[str, Any]) -> list[str]:
    flops, memory = costs["flops_per_token"], costs["memory_bytes"]
    pairs = [
        (f"forward pass, a token with {costs['context']:,} keys", f"{_si(flops['forward'])}FLOP"),
        ("training, the same token", f"{_si(flops['training'])}FLOP"),
    ]
    if costs["kv_cache_bytes_per_token"]["bfloat16"]:
        pairs += [
            ("cache, a token in bfloat16", _binary(costs["kv_cache_bytes_per_token"]["bfloat16"])),
            (
                f"cache, {costs['context']:,} tokens in bfloat16",
                _binary(costs["kv_cache_bytes"]["bfloat16"]),
            ),
        ]
    pairs += [(f"weights in {dtype}", _binary(size)) for dtype, size in memory.items()]
    return aligned(pairs, right=True)


def _si(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:,.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} P"


def _binary(number: float) -> str:
    for unit in ("B  ", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:,.4g} {unit}"
        number /= 1024
    return f"{number:,.4g} TiB"


def sources_told(sources: list[dict[str, str]]) -> list[str]:
    """Each source with its address."""
    lines = []
    for source in sources:
        lines += wrap(f"{source['id']}: {source['title']}", WIDTH - 2, subsequent_indent="  ")
        lines.append(f"  {source['url']}")
    return lines


def _table_told(table: list[dict[str, Any]]) -> list[str]:
    """One line a parameter; those of layers that have the same once for all of them."""
    layers: dict[tuple[str, str, str], list[int]] = {}
    for row in table:
        before, _, rest = row["name"].partition(".layers.")
        number, _, after = rest.partition(".")
        found = layers.setdefault((before, after, f"{tuple(row['shape'])}"), [])
        found += [int(number)] if number else []
    return aligned(
        [
            (f"{before}.layers.{_range(found)}.{after}" if found else before, shape)
            for (before, after, shape), found in layers.items()
        ]
    )


def _range(numbers: list[int]) -> str:
    """Numbers that are equally far apart, told by the first and the last: {0..11}, or {1,3..63}."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) == 1:
        return str(first)
    second = f",{numbers[1]}" if numbers[1] > first + 1 else ""
    return f"{{{first}{second}..{last}}}"
