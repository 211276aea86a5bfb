"""The facts about an entry of the catalogue as trees for machines: what ``holotype show --json`` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from holotype_spec import (
    Entry,
    Network,
    Sketch,
    Spec,
    UndisclosedValue,
    costs,
    count_parameters,
    line_of_descent,
    overview,
    parameter_table,
)
from holotype_spec.schema import SIZES

CACHE_DTYPES = ("float32", "bfloat16")
WEIGHT_DTYPES = ("float32", "bfloat16", "int8")

Tree = dict[str, Any]
Answer = TypeVar("Answer")


def summary(entry: Entry) -> Tree:
    """A row of the list."""
    return {
        "name": entry.name,
        "family": entry.family.name,
        "structure": overview.structure(entry),
        "objective": list(overview.objectives(entry)),
        "parameters": overview.exact(entry),
        "published": None if entry.parameters == "none" else entry.parameters.published,
        "disclosure": overview.disclosure(entry),
        "derives_from": entry.derives_from,
        "aliases": list(entry.aliases),
    }


def facts(entry: Entry) -> Tree:
    """All that is known of an entry."""
    return {
        "name": entry.name,
        "family": entry.family.name,
        "title": entry.family.title,
        "aliases": list(entry.aliases),
        "disclosure": overview.disclosure(entry),
        "rumour": None if isinstance(entry, Network) else entry.rumour,
        "line_of_descent": line_of_descent(entry),
        "sources": msgspec.to_builtins(entry.family.sources),
        **shape(entry),
        "undisclosed": list(entry.undisclosed) if isinstance(entry, Sketch) else [],
        "parameters": parameters(entry),
        "costs": network_costs(entry) if isinstance(entry, Network) else spec_costs(entry),
    }


def shape(entry: Entry) -> Tree:
    """Architecture and sizes, "undisclosed" where they are."""
    if not isinstance(entry, Network):
        tree = entry.facts() if isinstance(entry, Sketch) else msgspec.to_builtins(entry)
        return {
            "architecture": tree["architecture"],
            "sizes": {size: tree[size] for size in SIZES},
        }
    tree = {"structure": entry.network.structure, **msgspec.to_builtins(entry.network)}
    sizes = {key: value for key, value in tree.items() if _is_size(key, value)}
    return {
        "architecture": {key: value for key, value in tree.items() if key not in sizes},
        "sizes": sizes,
    }


def _is_size(key: str, value: Any) -> bool:
    if isinstance(value, list | tuple):
        return key != "objective"
    return isinstance(value, int) and not isinstance(value, bool)


def parameters(entry: Entry) -> Tree:
    """Exact counts, None where they depend on something undisclosed, and what sources say."""
    try:
        counts = msgspec.to_builtins(count_parameters(entry))
        why = None
    except UndisclosedValue as error:
        unknown = dict.fromkeys(("total", "backbone", "active"))
        counts, why = {**unknown, "components": {}, "apart": {}}, str(error)
    return {
        **counts,
        "unknown": why,
        "published": None if entry.parameters == "none" else msgspec.to_builtins(entry.parameters),
        "stated": _stated(entry),
    }


def _stated(entry: Entry) -> Tree | None:
    sums = overview.stated(entry)
    if sums is None or isinstance(entry, Network):
        return None
    return {"total": sums[0], "active": sums[1], "parts": msgspec.to_builtins(entry.stated)}


def spec_costs(entry: Spec | Sketch) -> Tree:
    """The costs of a run, each number None where it depends on something undisclosed."""
    context = known(context_of, entry)
    flops = context and known(costs.flops_per_token, entry, context)
    return {
        "context": context,
        "flops_per_token": {
            "forward": flops and flops.forward,
            "training": flops and flops.training,
        },
        "kv_cache_bytes_per_token": {
            dtype: known(costs.kv_cache_bytes_per_token, entry, dtype) for dtype in CACHE_DTYPES
        },
        "kv_cache_bytes": {
            dtype: context and known(costs.kv_cache_bytes, entry, context, dtype)
            for dtype in CACHE_DTYPES
        },
        "memory_bytes": _memory(entry),
    }


def network_costs(network: Network) -> Tree:
    """The same of what has no cache: what it carries from token to token takes the place of that."""
    flops = costs.flops_per_token(network, 1)
    return {
        "flops_per_token": {"forward": flops.forward, "training": flops.training},
        "state_bytes": {dtype: costs.state_bytes(network, dtype) for dtype in CACHE_DTYPES},
        "memory_bytes": _memory(network),
    }


def table(entry: Entry) -> list[Tree]:
    """Every parameter.

    Raises:
        UndisclosedValue: they depend on something undisclosed.
    """
    return [
        {
            "name": parameter.name,
            "shape": list(parameter.shape),
            "role": parameter.role,
            "component": parameter.component,
        }
        for parameter in parameter_table(entry)
    ]


def leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree, each with its path; the kind of a mechanism stands at its own name."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield (prefix.rstrip(".") if key == "kind" and prefix else prefix + key), value


def known(question: Callable[..., Answer], *given: Any) -> Answer | None:
    """The answer, or None where it depends on something undisclosed."""
    try:
        return question(*given)
    except UndisclosedValue:
        return None


def _memory(entry: Entry) -> dict[str, int | None]:
    return {dtype: known(costs.memory_bytes, entry, dtype) for dtype in WEIGHT_DTYPES}


def context_of(entry: Spec | Sketch) -> int:
    """The context that it was made for.

    Raises:
        UndisclosedValue: that is undisclosed.
    """
    spec = entry if isinstance(entry, Spec) else entry.known
    return spec.max_positions + 0  # reading it refuses where it is undisclosed
