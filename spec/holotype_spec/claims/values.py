"""Values of a model in the catalogue: fields of its spec, quantities computed from it, and facts with a source."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from holotype_spec.catalogue import find
from holotype_spec.counts import count_parameters
from holotype_spec.errors import UndisclosedValue
from holotype_spec.facts import KINDS, UNDISCLOSED, facts_of
from holotype_spec.files import Entry
from holotype_spec.networks import Network
from holotype_spec.schema import Spec
from holotype_spec.sketch import Sketch

Value = bool | Decimal | str | tuple[str, ...]
FACTS = "facts."
NOTHING = "nothing"  # where a model has no such thing
SCHEMA = Path(__file__).parents[1] / "schema.json"
EMBEDDINGS = ("token embeddings", "embedding projection")
# Objectives that hide a part of the text; what is replaced in ELECTRA was masked first.
MASKED = {
    "masked-lm",
    "replaced-token-detection",
    "span-corruption",
    "denoising",
    "masked-seq2seq",
    "blank-infilling",
}


@dataclass(frozen=True, kw_only=True)
class Known:
    """A value, and in words what it is where a field can be meant in several ways."""

    value: Value
    what: str = ""


def values_of(model: str, field: str) -> tuple[Known, ...]:
    """The values of a field of a model in the catalogue; more than one value where a claim may mean either.

    Raises:
        KeyError: there is no such field, or no such fact of this model.
        SpecError, UnknownSpec: as `holotype_spec.find`.
    """
    if field.startswith(FACTS):
        return (Known(value=facts_of(model)[field.removeprefix(FACTS)].value),)
    entry = find(model)
    try:
        if field in QUANTITIES:
            return QUANTITIES[field](entry)
        return (Known(value=_at(entry, field)),)
    except UndisclosedValue:
        return (Known(value=UNDISCLOSED),)


def known_fields() -> list[str]:
    """Every field that a claim can be about."""
    return [*sorted(_paths()), *QUANTITIES, *(FACTS + name for name in KINDS)]


# Fields ----------------------------------------------------------------------------------------------------


def _at(entry: Entry, path: str) -> Value:
    node: Any = entry.known if isinstance(entry, Sketch) else entry
    for part in path.split("."):
        if part == "kind" and isinstance(node, msgspec.Struct):
            node = node.__struct_config__.tag
        elif part in getattr(node, "__struct_fields__", ()):
            node = getattr(node, part)
        elif path in _paths():
            return NOTHING
        else:
            raise KeyError(path)
    return _plain(node)


def _plain(node: Any) -> Value:
    """A leaf of a spec as a value; a mechanism is its kind."""
    if node is None:
        return NOTHING
    if isinstance(node, msgspec.Struct):
        return str(node.__struct_config__.tag)
    if isinstance(node, tuple):
        return tuple(map(str, node))
    if isinstance(node, int | float) and not isinstance(node, bool):
        return Decimal(str(node))
    return node if isinstance(node, bool) else str(node)


@cache
def _paths() -> frozenset[str]:
    """The path of every field that some entry has."""
    definitions = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    roots = [{"$ref": f"#/$defs/{name}"} for name in ("Spec", "Network")]
    return frozenset(path for root in roots for path in _below(definitions, root, ()))


def _below(
    definitions: dict[str, Any], node: dict[str, Any], path: tuple[str, ...]
) -> Iterator[str]:
    for branch in node.get("anyOf", ()):
        yield from _below(definitions, branch, path)
    name = node.get("$ref", "").rpartition("/")[2]
    for key, inner in definitions.get(name, {}).get("properties", {}).items():
        yield ".".join((*path, key))
        yield from _below(definitions, inner, (*path, key))


# Quantities ------------------------------------------------------------------------------------------------


def _parameters(entry: Entry) -> tuple[Known, ...]:
    counts = count_parameters(entry)
    return (
        Known(value=Decimal(counts.total)),
        Known(value=Decimal(counts.backbone), what="without the pretraining heads"),
    )


def _embedding_parameters(spec: Spec) -> Value:
    components = count_parameters(spec).components
    return Decimal(sum(components.get(name, 0) for name in EMBEDDINGS))


def _key_sharing(spec: Spec) -> Value:
    if spec.kv_heads == spec.heads:
        return "multi-head"
    return "multi-query" if spec.kv_heads == 1 else "grouped-query"


def _style(entry: Entry) -> tuple[Known, ...]:
    known = entry.known if isinstance(entry, Sketch) else entry
    objectives = (known.network if isinstance(known, Network) else known.architecture).objective
    return (Known(value="masked" if set(objectives) & MASKED else "autoregressive"),)


def _disclosed(entry: Entry) -> tuple[Known, ...]:
    return (Known(value=not isinstance(entry, Sketch)),)


def _of_a_transformer(value: Callable[[Spec], Value]) -> Callable[[Entry], tuple[Known, ...]]:
    def of(entry: Entry) -> tuple[Known, ...]:
        if isinstance(entry, Network):
            return (Known(value=NOTHING),)
        return (Known(value=value(entry.known if isinstance(entry, Sketch) else entry)),)

    return of


QUANTITIES: dict[str, Callable[[Entry], tuple[Known, ...]]] = {
    # in total, or without the pretraining heads: documents mean either
    "parameters": _parameters,
    # the token table and its projection
    "embedding_parameters": _of_a_transformer(_embedding_parameters),
    # beside `layers`, those of the stack that writes the logits
    "encoder_layers": _of_a_transformer(lambda spec: Decimal(spec.encoder_depth)),
    # numbers in a row of the token table
    "embedding_size": _of_a_transformer(lambda spec: Decimal(spec.embedding_size)),
    # the queries of all heads side by side
    "attention_size": _of_a_transformer(lambda spec: Decimal(spec.heads * spec.head_dim)),
    # how many query heads share a key head
    "key_sharing": _of_a_transformer(_key_sharing),
    # whether it predicts what was hidden, or what comes next
    "style": _style,
    # whether everything is known that it takes to build it
    "disclosed": _disclosed,
}
