"""``holotype diff``: which fields of two entries differ, and what that does to parameters and cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holotype_conformance.commands.facts import Tree, context_of, known, leaves, parameters, shape
from holotype_conformance.commands.pages import aligned, binary, plain, section, si
from holotype_spec import Entry, Network, costs

DTYPE = "bfloat16"


def difference(first: Entry, second: Entry) -> Tree:
    """The differences as a tree; a number is None where it depends on something undisclosed or has no meaning."""
    mine, theirs = dict(leaves(_fields(first))), dict(leaves(_fields(second)))
    fields = [
        {"field": path, "first": mine.get(path), "second": theirs.get(path)}
        for path in [*mine, *(path for path in theirs if path not in mine)]
        if path not in mine or path not in theirs or mine[path] != theirs[path]
    ]
    counts = parameters(first), parameters(second)
    names = [*counts[0]["components"], *counts[1]["components"]]
    context = _context(first, second)
    return {
        "first": first.name,
        "second": second.name,
        "fields": fields,
        "parameters": {
            "total": _pair(*(count["total"] for count in counts)),
            "backbone": _pair(*(count["backbone"] for count in counts)),
            "components": {
                name: _pair(*(_component(count, name) for count in counts))
                for name in dict.fromkeys(names)
            },
        },
        "costs": {"context": context, **_costs(first, second, context)},
    }


def page(told: Tree) -> str:
    """The same for people."""
    first, second = told["first"], told["second"]
    if not told["fields"]:
        lines = [f"{first} and {second} agree in every field"]
    else:
        lines = [f"{first} → {second}"]
        lines += section("Fields", aligned(_fields_told(told["fields"])))
    counts = told["parameters"]["components"] | {"total": told["parameters"]["total"]}
    lines += section("Parameters", aligned(_numbers_told(counts, lambda n: f"{n:,}")))
    costs_told = {name: pair for name, pair in told["costs"].items() if name != "context"}
    flops = {"FLOPs a token": costs_told.pop("flops_per_token")}
    sizes = {name.replace("_", " "): pair for name, pair in costs_told.items()}
    rows = _numbers_told(flops, lambda n: f"{si(n)}FLOP") + _numbers_told(sizes, _bytes_told)
    lines += section(f"Costs, in {DTYPE}, with {told['costs']['context']:,} keys", aligned(rows))
    return "\n".join(lines)


def _fields(entry: Entry) -> Tree:
    whole = shape(entry)
    return {**whole["sizes"], **whole["architecture"]}


def _component(count: Tree, name: str) -> int | None:
    return None if count["total"] is None else count["components"].get(name, 0)


def _pair(first: int | None, second: int | None) -> Tree:
    difference = None if first is None or second is None else second - first
    return {"first": first, "second": second, "difference": difference}


def _context(first: Entry, second: Entry) -> int:
    """The longest context that both were made for."""
    contexts = [
        known(context_of, entry) or 1 for entry in (first, second) if not isinstance(entry, Network)
    ]
    return min(contexts, default=1)


def _costs(first: Entry, second: Entry, context: int) -> Tree:
    def both(question: Callable[[Entry], int]) -> Tree:
        return _pair(*(known(question, entry) for entry in (first, second)))

    return {
        "flops_per_token": both(lambda entry: costs.flops_per_token(entry, context).forward),
        "cache_bytes_per_token": both(_cache),
        "weight_bytes": both(lambda entry: costs.memory_bytes(entry, DTYPE)),
    }


def _cache(entry: Entry) -> int:
    if isinstance(entry, Network):
        return 0  # its state does not grow
    return costs.kv_cache_bytes_per_token(entry, DTYPE)


def _fields_told(fields: list[Tree]) -> list[tuple[str, str]]:
    return [
        (row["field"], f"{_value_told(row['first'])} → {_value_told(row['second'])}")
        for row in fields
    ]


def _value_told(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else plain(value)


def _numbers_told(pairs: dict[str, Tree], written: Callable[[int], str]) -> list[tuple[str, str]]:
    return [(name, _number_told(pair, written)) for name, pair in pairs.items()]


def _number_told(pair: Tree, written: Callable[[int], str]) -> str:
    told = [
        "undisclosed" if number is None else written(number)
        for number in (pair["first"], pair["second"])
    ]
    if not pair["difference"]:
        return told[0] if pair["difference"] == 0 else " → ".join(told)
    more = pair["difference"]
    return f"{told[0]} → {told[1]} ({'+' if more > 0 else '-'}{written(abs(more))})"


def _bytes_told(number: int) -> str:
    return binary(number).rstrip()
