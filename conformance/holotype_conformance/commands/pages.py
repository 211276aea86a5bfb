"""The facts about an entry of the catalogue as text for people: what ``holotype list`` and ``holotype show`` print."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import Any

from holotype_conformance.commands.facts import Tree, leaves
from holotype_conformance.report.terminal import WIDTH
from holotype_spec.sketch import UNDISCLOSED

LAYER = re.compile(r"(?:(.*?layers\.)(\d+))?(.*)")
SHORT = {"encoder-decoder": "enc-dec"}  # so that a line of the list fits
FEW = 6  # fields that are worth naming beside the page's own table
DISCLOSED_IN_PART = {
    "partly": "Not all of it was disclosed. What depends on the rest is not computed.",
    "undisclosed": "Little of it was disclosed. What is not known is not guessed.",
    "rumour": "A rumour: its makers have confirmed nothing of it.",
}


def listing(rows: list[Tree]) -> str:
    """The list, a line an entry, cut off at the width of a terminal."""
    cells = [("NAME", "STRUCTURE", "PARAMETERS", "NOTES")] + [
        (
            row["name"],
            SHORT.get(row["structure"], row["structure"]),
            _size_told(row),
            _notes(row),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index == 2 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join(f"{line[: WIDTH - 1]}…" if len(line) > WIDTH else line for line in lines)


def _size_told(row: Tree) -> str:
    if row["parameters"] is not None:
        return f"{row['parameters']:,}"
    return row["published"] or "any"


def _notes(row: Tree) -> str:
    told = [] if row["disclosure"] == "published" else [row["disclosure"]]
    if row["derives_from"]:
        told.append(f"from {row['derives_from']}")
    if not row["name"].startswith(row["family"]):
        told.append(f"family {row['family']}")
    return ", ".join([*told, *row["aliases"]])


def page(facts: Tree) -> str:
    """One entry."""
    aliases = f", also called {', '.join(facts['aliases'])}" if facts["aliases"] else ""
    lines = wrap(f"{facts['name']}: {facts['title']}{aliases}", WIDTH)
    if line := facts["line_of_descent"]:
        lines += wrap(f"derives from {', which derives from '.join(line)}", WIDTH)
    if facts["disclosure"] in DISCLOSED_IN_PART:
        lines += ["", *wrap(DISCLOSED_IN_PART[facts["disclosure"]], WIDTH)]
        if len(facts["undisclosed"]) <= FEW:
            lines += wrap(f"Undisclosed: {', '.join(facts['undisclosed'])}.", WIDTH)
        lines += wrap(f"{facts['rumour']}." if facts["rumour"] else "", WIDTH)
    lines += section("Sizes", aligned(_sizes_told(facts)))
    lines += section("Architecture", aligned(list(flat(facts["architecture"]))))
    lines += section("Parameters", _parameters_told(facts["parameters"]))
    if told := _costs_told(facts["costs"]):
        lines += section("Costs", aligned(told, right=True))
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


def flat(tree: Tree, prefix: str = "") -> list[tuple[str, str]]:
    """The leaves of a tree, each with its path; the kind of a mechanism stands at its own name."""
    return [(path, plain(value)) for path, value in leaves(tree, prefix)]


def plain(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def sources_told(sources: list[dict[str, str]]) -> list[str]:
    """Each source with its address."""
    lines = []
    for source in sources:
        lines += wrap(f"{source['id']}: {source['title']}", WIDTH - 2, subsequent_indent="  ")
        lines.append(f"  {source['url']}")
    return lines


def _sizes_told(facts: Tree) -> list[tuple[str, str]]:
    stacks = facts["architecture"].get("structure") == "encoder-decoder"
    told = {
        size: f"{value:,}" if isinstance(value, int) else plain(value)
        for size, value in facts["sizes"].items()
    }
    if stacks and facts["architecture"].get("encoder_layers") == "as-decoder":
        told["layers"] += " in each stack"
    return list(told.items())


def _parameters_told(parameters: Tree) -> list[str]:
    published = parameters["published"]
    size, source = published["published"], published["source"]
    told = f"published as {size} ({source})" if size != UNDISCLOSED else f"no size told ({source})"
    told += f": {published['note']}" if published["note"] else ""
    return [
        *_counts_told(parameters),
        *_stated_told(parameters["stated"]),
        *wrap(told, WIDTH - 2),
    ]


def _counts_told(parameters: Tree) -> list[str]:
    total = parameters["total"]
    if total is None:
        return wrap(parameters["unknown"], WIDTH - 2)
    counts = parameters["components"] | {
        "total": total,
        "without the pretraining heads": parameters["backbone"],
    }
    if parameters["active"] < total:
        counts["used by one token"] = parameters["active"]
    shares = [f"{count / total:6.1%}" for count in counts.values()]
    lines = aligned([(name, f"{count:,}") for name, count in counts.items()], right=True)
    apart = [f"apart, for training alone: {n}, {c:,}" for n, c in parameters["apart"].items()]
    return [*(f"{line}  {share}" for line, share in zip(lines, shares, strict=True)), *apart]


def _stated_told(stated: Tree | None) -> list[str]:
    if stated is None:
        return []
    rows = [
        (f"{part['number']} × {part['component']} ({part['source']})", f"{part['parameters']:,}")
        for part in stated["parts"]
    ]
    sums = {"stated in all": "total", "stated to be active for a token": "active"}
    return aligned([*rows, *((name, f"{stated[key]:,}") for name, key in sums.items())], right=True)


def _costs_told(costs: Tree) -> list[tuple[str, str]]:
    context, flops = costs.get("context"), costs["flops_per_token"]
    keys = f", a token with {context:,} keys" if context else ", a token"
    cache = costs.get("kv_cache_bytes_per_token", {}).get("bfloat16")
    whole = costs.get("kv_cache_bytes", {}).get("bfloat16")
    state = costs.get("state_bytes", {}).get("bfloat16")
    told = [
        (f"forward pass{keys}", flops["forward"] and f"{si(flops['forward'])}FLOP"),
        ("training, the same token", flops["training"] and f"{si(flops['training'])}FLOP"),
        ("cache, a token in bfloat16", cache and binary(cache)),
        (f"cache, {context or 0:,} tokens in bfloat16", whole and binary(whole)),
        ("state in bfloat16", state and binary(state)),
    ]
    told += [
        (f"weights in {dtype}", size and binary(size))
        for dtype, size in costs["memory_bytes"].items()
    ]
    return [(name, text) for name, text in told if text]


def si(number: float) -> str:
    """A number with the letter of its thousands."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:,.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} P"


def binary(number: float) -> str:
    """Bytes."""
    for unit in ("B  ", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:,.4g} {unit}"
        number /= 1024
    return f"{number:,.4g} TiB"


def _table_told(table: list[Tree]) -> list[str]:
    """One line a parameter; those of layers that have the same once for all of them."""
    layers: dict[tuple[str, str, str], list[int]] = {}
    for row in table:
        before, number, after = LAYER.fullmatch(row["name"]).groups()  # type: ignore[union-attr]
        found = layers.setdefault((before, after, f"{tuple(row['shape'])}"), [])
        found += [int(number)] if number else []
    return aligned(
        [
            (f"{before}{_range(found)}{after}" if found else after, shape)
            for (before, after, shape), found in layers.items()
        ]
    )


def _range(numbers: list[int]) -> str:
    """Numbers that are equally far apart, listed by the first and the last: {0..11}, or {1,3..63}."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) == 1:
        return str(first)
    second = f",{numbers[1]}" if numbers[1] > first + 1 else ""
    return f"{{{first}{second}..{last}}}"
