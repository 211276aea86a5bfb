"""Every trainable parameter of a model: its name, shape and component, straight from the spec (no torch).

This table is the statement of what a model *has*. The reference model's ``state_dict`` has exactly these
names and shapes, weights travel under these names, and the exact counts are sums over it. Matrices are
written (outputs, inputs), as `torch.nn.Linear` stores them. Tied parameters stand once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import msgspec

from holotype_spec.schema import (
    GatedFeedForward,
    LayerNorm,
    LearnedPositions,
    MaskedLanguageModelHead,
    RelativeBuckets,
    Spec,
)

Role = Literal["embedding", "matrix", "bias", "gain", "shift", "score-bias"]
Stack = Literal["encoder", "decoder"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One trainable tensor.

    `role` says how it acts (a `gain` multiplies after a norm, a `shift` adds to it, a `score-bias` adds to
    attention scores); `component` groups counts; `residual` says that what it produces is written into the
    residual stream; `backbone` is false for what only the pretraining heads own.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    component: str
    residual: bool = False
    backbone: bool = True

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Exact numbers of unique trainable parameters; buffers are not parameters."""

    total: int
    backbone: int
    components: dict[str, int]


def stacks(spec: Spec) -> tuple[Stack, ...]:
    """The stacks of layers, in the order in which the data passes them."""
    match spec.architecture.structure:
        case "encoder":
            return ("encoder",)
        case "decoder":
            return ("decoder",)
        case "encoder-decoder":
            return ("encoder", "decoder")


def parameter_table(spec: Spec) -> tuple[Parameter, ...]:
    """Every trainable parameter of the pretraining model, tied ones once, in the order of the data."""
    rows = list(_embeddings(spec))
    for stack in stacks(spec):
        rows += _stack(spec, stack)
    rows += _head(spec)
    return tuple(rows)


def count_parameters(spec: Spec) -> Counts:
    """Exact counts, without building the full table of a deep model: one layer, times the layers."""
    shallow = parameter_table(_with_layers(spec, 1))
    components: dict[str, int] = {}
    backbone = 0
    for parameter in shallow:
        size = parameter.size * (spec.layers if ".layers." in parameter.name else 1)
        components[parameter.component] = components.get(parameter.component, 0) + size
        backbone += size if parameter.backbone else 0
    return Counts(total=sum(components.values()), backbone=backbone, components=components)


def count_matrix_weights(spec: Spec) -> int:
    """Weights of all matrices that every token is multiplied with, the output matrix among them, tied or not.

    The pooler and the next-sentence matrix run once a sequence and are not counted.
    """
    once_a_sequence = ("pooler.weight", "next_sentence.weight")
    weights = sum(
        parameter.size * (spec.layers if ".layers." in parameter.name else 1)
        for parameter in parameter_table(_with_layers(spec, 1))
        if parameter.role == "matrix" and parameter.name not in once_a_sequence
    )
    tied_output = spec.vocab_size * spec.hidden_size if spec.architecture.tied_embeddings else 0
    return weights + tied_output


def _with_layers(spec: Spec, layers: int) -> Spec:
    return msgspec.structs.replace(spec, layers=layers)


def _embeddings(spec: Spec) -> Iterator[Parameter]:
    architecture, d = spec.architecture, spec.hidden_size
    # A post-norm or an embedding norm stands between these tables and the residual stream.
    tables = [("token", spec.vocab_size)]
    if isinstance(architecture.positions, LearnedPositions):
        tables.append(("position", spec.position_rows))
    if architecture.token_types:
        tables.append(("token_type", architecture.token_types))
    for table, rows in tables:
        yield Parameter(
            name=f"embeddings.{table}.weight",
            shape=(rows, d),
            role="embedding",
            component=f"{table.replace('_', '-')} embeddings",
            residual=True,
        )
    if architecture.normalization.embedding:
        yield from _norm(spec, "embeddings.norm", "norms", residual=True)


def _norm(spec: Spec, name: str, component: str, *, residual: bool = False) -> Iterator[Parameter]:
    shape = (spec.hidden_size,)
    yield Parameter(
        name=f"{name}.weight", shape=shape, role="gain", component=component, residual=residual
    )
    if isinstance(spec.architecture.normalization, LayerNorm):
        yield Parameter(
            name=f"{name}.bias", shape=shape, role="shift", component=component, residual=residual
        )


def _linear(
    name: str, outputs: int, inputs: int, component: str, *, bias: bool, residual: bool = False
) -> Iterator[Parameter]:
    yield Parameter(
        name=f"{name}.weight",
        shape=(outputs, inputs),
        role="matrix",
        component=component,
        residual=residual,
    )
    if bias:
        yield Parameter(
            name=f"{name}.bias",
            shape=(outputs,),
            role="bias",
            component=component,
            residual=residual,
        )


def _stack(spec: Spec, stack: Stack) -> Iterator[Parameter]:
    positions = spec.architecture.positions
    if isinstance(positions, RelativeBuckets):
        yield Parameter(
            name=f"{stack}.relative_bias.weight",
            shape=(positions.buckets, spec.heads),
            role="score-bias",
            component="relative position biases",
        )
    for layer in range(spec.layers):
        yield from _layer(spec, stack, f"{stack}.layers.{layer}")
    if spec.architecture.normalization.final:
        yield from _norm(spec, f"{stack}.final_norm", "norms")


def _layer(spec: Spec, stack: Stack, name: str) -> Iterator[Parameter]:
    post = spec.architecture.residual == "post-norm"
    blocks = ["self_attention"]
    if stack == "decoder" and spec.architecture.structure == "encoder-decoder":
        blocks.append("cross_attention")
    for block in blocks:
        yield from _attention(spec, f"{name}.{block}", block.replace("_", "-"))
        yield from _norm(spec, f"{name}.{block}_norm", "norms", residual=post)
    yield from _feed_forward(spec, f"{name}.feed_forward")
    yield from _norm(spec, f"{name}.feed_forward_norm", "norms", residual=post)


def _attention(spec: Spec, name: str, component: str) -> Iterator[Parameter]:
    d, query, key = spec.hidden_size, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    biases = spec.architecture.attention.biases
    for part, width in (("query", query), ("key", key), ("value", key)):
        yield from _linear(f"{name}.{part}", width, d, component, bias=part in biases)
    yield from _linear(
        f"{name}.output", d, query, component, bias="output" in biases, residual=True
    )


def _feed_forward(spec: Spec, name: str) -> Iterator[Parameter]:
    feed_forward, d, f = spec.architecture.feed_forward, spec.hidden_size, spec.ffn_size
    component = "feed-forward"
    if isinstance(feed_forward, GatedFeedForward):
        yield from _linear(f"{name}.gate", f, d, component, bias=feed_forward.bias)
    yield from _linear(f"{name}.up", f, d, component, bias=feed_forward.bias)
    yield from _linear(f"{name}.down", d, f, component, bias=feed_forward.bias, residual=True)


def _head(spec: Spec) -> Iterator[Parameter]:
    head, d, vocabulary = spec.architecture.head, spec.hidden_size, spec.vocab_size
    if isinstance(head, MaskedLanguageModelHead):
        if head.next_sentence:
            yield from _linear("pooler", d, d, "pooler", bias=True)
            yield from map(_pretraining, _linear("next_sentence", 2, d, "head", bias=True))
        yield from map(_pretraining, _linear("head.transform", d, d, "head", bias=True))
        yield from map(_pretraining, _norm(spec, "head.norm", "head"))
    output = _linear("head.output", vocabulary, d, "head", bias=head.bias)
    for parameter in output:
        if not (spec.architecture.tied_embeddings and parameter.role == "matrix"):
            yield _pretraining(parameter)


def _pretraining(parameter: Parameter) -> Parameter:
    return replace(parameter, backbone=False)
