"""The number of parameters of a model: sums over its table, straight from the spec (no torch)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holotype_spec.network_parameters import table
from holotype_spec.networks import Network
from holotype_spec.parameters import (
    Parameter,
    Stack,
    layer_rows,
    norm_rows,
    rows,
    stack_layers,
    stacks,
)
from holotype_spec.schema import Spec
from holotype_spec.sketch import answers


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Exact numbers of unique trainable parameters; buffers are not parameters.

    `active` leaves out the experts that a token does not use. `apart` are modules that only training needs and
    that are in none of the other numbers.
    """

    total: int
    backbone: int
    components: dict[str, int]
    active: int
    apart: dict[str, int]


def _network_count(network: Network) -> Counts:
    rows = table(network)
    total = sum(row.size for row in rows)
    components: dict[str, int] = {}
    for row in rows:
        components[row.component] = components.get(row.component, 0) + row.size
    return Counts(
        total=total,
        backbone=sum(row.size for row in rows if row.backbone),
        components=components,
        active=total,
        apart={},
    )


@answers("the parameter count", network=_network_count)
def count_parameters(spec: Spec) -> Counts:
    """Exact counts, without building the full table of a deep model: one layer of a kind, times those of its kind."""
    components: dict[str, int] = {}
    backbone = active = 0
    for parameter, runs in _distinct(spec):
        times = 1 if spec.architecture.layer_sharing == "all" else runs
        size = parameter.size * times
        components[parameter.component] = components.get(parameter.component, 0) + size
        backbone += size if parameter.backbone else 0
        active += _used(spec, parameter) * times
    return Counts(
        total=sum(components.values()),
        backbone=backbone,
        components=components,
        active=active,
        apart=_apart(spec),
    )


# Run once a sequence, or once for each distance, however many tokens there are.
NOT_PER_TOKEN = (
    "pooler.weight",
    "next_sentence.weight",
    "position_key.weight",
    "position_query.weight",
)


def count_matrix_weights(spec: Spec) -> int:
    """Weights of all matrices that every token is multiplied with, the output matrix among them, tied or not.

    A layer whose parameters serve all layers counts once for each. What runs once a sequence (the pooler and
    the matrix of sentence pairs) or once for each distance (projections of relative positions) is left out.
    """
    weights = sum(
        _used(spec, parameter) * runs
        for parameter, runs in _distinct(spec)
        if parameter.role == "matrix" and not parameter.name.endswith(NOT_PER_TOKEN)
    )
    if not spec.architecture.tied_embeddings or spec.logit_size != spec.vocab_size:
        return weights
    return weights + spec.vocab_size * spec.embedding_size


SOURCE_ONLY = ("cross_attention.key.weight", "cross_attention.value.weight")


def count_source_weights(spec: Spec) -> int:
    """Of an encoder-decoder, those of these weights that a token of the source is multiplied with and no other.

    The encoder's, and the projections to the keys and values of cross-attention.
    """
    return sum(
        _used(spec, parameter) * runs
        for parameter, runs in _distinct(spec)
        if parameter.role == "matrix"
        and (parameter.name.startswith("encoder.") or parameter.name.endswith(SOURCE_ONLY))
    )


def _distinct(spec: Spec) -> Iterator[tuple[Parameter, int]]:
    """Every parameter, of layers that are alike that of the first one alone, and how many layers run with it."""
    alike = {stack: _layers_alike(spec, stack) for stack in stacks(spec)}
    for parameter in rows(spec, alike):
        name, _, within = parameter.name.partition(".layers.")
        stack: Stack = "encoder" if name == "encoder" else "decoder"
        yield parameter, alike[stack][int(within.partition(".")[0])] if within else 1


def _layers_alike(spec: Spec, stack: Stack) -> dict[int, int]:
    """The first layer of each kind, and how many layers are of that kind."""
    return spec.architecture.feed_forward.layers_alike(stack_layers(spec, stack))


def _used(spec: Spec, parameter: Parameter) -> int:
    """The numbers of a parameter that one token uses."""
    return spec.architecture.feed_forward.used(parameter)


def _apart(spec: Spec) -> dict[str, int]:
    """The modules that predict the tokens after the next one, in training alone."""
    norm = sum(parameter.size for parameter in norm_rows(spec, "", ""))
    layer = sum(parameter.size for parameter in layer_rows(spec, "decoder", "", spec.layers - 1))
    return spec.architecture.head.apart(spec, norm=norm, layer=layer)
