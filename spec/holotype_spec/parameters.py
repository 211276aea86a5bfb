"""Every trainable parameter of a model: its name, shape and component, straight from the spec (no torch).

This table is the statement of what a model *has*. The reference model's ``state_dict`` has exactly these
names and shapes, weights travel under these names, and the exact counts are sums over it. Matrices are
written (outputs, inputs), as `torch.nn.Linear` stores them. Tied parameters stand once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import msgspec

from holotype_spec.networks import Network
from holotype_spec.schema import (
    Disentangled,
    EnhancedMaskDecoder,
    FactorisedEmbedding,
    GatedFeedForward,
    GatedRelativeBuckets,
    LayerNorm,
    LearnedPositions,
    MaskedLanguageModelHead,
    Permutation,
    RelativeBuckets,
    ReplacedTokenHead,
    Spec,
    TransformerXLPositions,
)
from holotype_spec.sketch import answers

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

    def __post_init__(self) -> None:
        prod(
            self.shape
        )  # which an undisclosed size refuses here, and not when somebody reads the shape

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


def _network_table(network: Network) -> tuple[Parameter, ...]:
    from holotype_spec.network_parameters import table

    return table(network)


@answers("the table of parameters", network=_network_table)
def parameter_table(spec: Spec) -> tuple[Parameter, ...]:
    """Every trainable parameter of the pretraining model, tied ones once, in the order of the data."""
    rows = list(_embeddings(spec))
    for stack in stacks(spec):
        rows += _stack(spec, stack)
    rows += _head(spec)
    return tuple(rows)


def stack_layers(spec: Spec, stack: Stack) -> int:
    """How many layers a stack runs."""
    return spec.encoder_depth if stack == "encoder" else spec.layers


def _network_count(network: Network) -> Counts:
    return _counts((row, row.size) for row in parameter_table(network))


@answers("the parameter count", network=_network_count)
def count_parameters(spec: Spec) -> Counts:
    """Exact counts, without building the full table of a deep model: one layer, times the layers."""
    shallow = parameter_table(_shallow(spec))
    return _counts((row, row.size * _copies(spec, row)) for row in shallow)


def _counts(sizes: Iterable[tuple[Parameter, int]]) -> Counts:
    components: dict[str, int] = {}
    backbone = 0
    for parameter, size in sizes:
        components[parameter.component] = components.get(parameter.component, 0) + size
        backbone += size if parameter.backbone else 0
    return Counts(total=sum(components.values()), backbone=backbone, components=components)


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
        parameter.size * _runs(spec, parameter)
        for parameter in parameter_table(_shallow(spec))
        if parameter.role == "matrix" and not parameter.name.endswith(NOT_PER_TOKEN)
    )
    if not spec.architecture.tied_embeddings or isinstance(
        spec.architecture.head, ReplacedTokenHead
    ):
        return weights
    return weights + spec.vocab_size * spec.embedding_size


def _copies(spec: Spec, parameter: Parameter) -> int:
    shared = spec.architecture.layer_sharing == "all"
    return 1 if shared else _runs(spec, parameter)


def _runs(spec: Spec, parameter: Parameter) -> int:
    stack, _, layer = parameter.name.partition(".layers.")
    if not layer:
        return 1
    return stack_layers(spec, "encoder" if stack == "encoder" else "decoder")


def _shallow(spec: Spec) -> Spec:
    """The same with one layer a stack."""
    deep = spec.architecture.encoder_layers
    encoder_layers = deep if deep in ("none", "as-decoder") else 1
    architecture = msgspec.structs.replace(spec.architecture, encoder_layers=encoder_layers)
    return msgspec.structs.replace(spec, layers=1, architecture=architecture)


# Embeddings ------------------------------------------------------------------------------------------------


def _embeddings(spec: Spec) -> Iterator[Parameter]:
    architecture, d = spec.architecture, spec.hidden_size
    width = architecture.embeddings.width
    yield _table("embeddings.token", spec.vocab_size, spec.embedding_size, "token embeddings")
    if architecture.structure == "encoder-decoder":
        for stack in stacks(spec):
            yield from _placed(spec, f"embeddings.{stack}")
    else:
        yield from _placed(spec, "embeddings")
    if isinstance(width, FactorisedEmbedding):
        yield from _linear(
            "embeddings.projection",
            d,
            width.size,
            "embedding projection",
            bias=width.bias,
            residual=True,
        )
    if isinstance(architecture.attention.pattern, Permutation):
        yield _table("embeddings.query_stream", 1, d, "query stream")


def _placed(spec: Spec, name: str) -> Iterator[Parameter]:
    """What one stack adds to the rows of its tokens, and the norm of the sum."""
    architecture, width = spec.architecture, spec.architecture.embeddings.width
    narrow = isinstance(width, FactorisedEmbedding) and width.tables == "all"
    size = spec.embedding_size if narrow else spec.hidden_size
    if isinstance(architecture.positions, LearnedPositions):
        yield _table(f"{name}.position", spec.position_rows, size, "position embeddings")
    if architecture.token_types and not name.endswith(".decoder"):
        yield _table(f"{name}.token_type", architecture.token_types, size, "token-type embeddings")
    if architecture.normalization.embedding:
        yield from _norm(spec, f"{name}.norm", "norms", residual=True, size=size)


def _table(name: str, rows: int, size: int, component: str) -> Parameter:
    # A post-norm or an embedding norm stands between these tables and the residual stream.
    return Parameter(
        name=f"{name}.weight",
        shape=(rows, size),
        role="embedding",
        component=component,
        residual=True,
    )


def _norm(
    spec: Spec, name: str, component: str, *, residual: bool = False, size: int | None = None
) -> Iterator[Parameter]:
    shape = (size or spec.hidden_size,)
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


# Layers ----------------------------------------------------------------------------------------------------


def _stack(spec: Spec, stack: Stack) -> Iterator[Parameter]:
    yield from _positions(spec, stack)
    distinct = 1 if spec.architecture.layer_sharing == "all" else stack_layers(spec, stack)
    for layer in range(distinct):
        yield from _layer(spec, stack, f"{stack}.layers.{layer}")
    if spec.architecture.normalization.final:
        yield from _norm(spec, f"{stack}.final_norm", "norms")


def _positions(spec: Spec, stack: Stack) -> Iterator[Parameter]:
    """What the layers of a stack share to tell distances."""
    match spec.architecture.positions:
        case RelativeBuckets(buckets=buckets) | GatedRelativeBuckets(buckets=buckets):
            yield Parameter(
                name=f"{stack}.relative_bias.weight",
                shape=(buckets, spec.heads),
                role="score-bias",
                component="relative position biases",
            )
        case Disentangled(max_distance=distance):
            yield Parameter(
                name=f"{stack}.relative.weight",
                shape=(2 * distance, spec.hidden_size),
                role="embedding",
                component="relative position embeddings",
            )


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
    if component == "self-attention":
        yield from _attended_positions(spec, name)


def _attended_positions(spec: Spec, name: str) -> Iterator[Parameter]:
    """What the self-attention of a layer has of its own to tell distances."""
    d, component, size = spec.hidden_size, "relative positions", spec.heads * spec.head_dim
    match spec.architecture.positions:
        case GatedRelativeBuckets():
            for gate in ("gate_update", "gate_reset"):
                yield _vector(f"{name}.{gate}", (spec.head_dim,), "bias")
            yield _vector(f"{name}.gate_weight", (spec.heads,), "bias")
        case Disentangled(terms=terms):
            if "content-to-position" in terms:
                yield from _linear(f"{name}.position_key", size, d, component, bias=False)
            if "position-to-content" in terms:
                yield from _linear(f"{name}.position_query", size, d, component, bias=True)
        case TransformerXLPositions(relative_segments=segments):
            yield from _linear(f"{name}.position_key", size, d, component, bias=False)
            yield _vector(f"{name}.content_bias", (size,), "bias")
            yield _vector(f"{name}.position_bias", (size,), "bias")
            if segments:
                yield _vector(f"{name}.segment_bias", (size,), "bias")
                yield _vector(f"{name}.segments", (2, size), "embedding")


def _vector(name: str, shape: tuple[int, ...], role: Role) -> Parameter:
    return Parameter(name=name, shape=shape, role=role, component="relative positions")


def _feed_forward(spec: Spec, name: str) -> Iterator[Parameter]:
    feed_forward, d, f = spec.architecture.feed_forward, spec.hidden_size, spec.ffn_size
    component = "feed-forward"
    if isinstance(feed_forward, GatedFeedForward):
        yield from _linear(f"{name}.gate", f, d, component, bias=feed_forward.bias)
    yield from _linear(f"{name}.up", f, d, component, bias=feed_forward.bias)
    yield from _linear(f"{name}.down", d, f, component, bias=feed_forward.bias, residual=True)


# Heads -----------------------------------------------------------------------------------------------------


def _head(spec: Spec) -> Iterator[Parameter]:
    yield from _pooled(spec)
    yield from map(_pretraining, _pretraining_head(spec))


def _pooled(spec: Spec) -> Iterator[Parameter]:
    head, d = spec.architecture.head, spec.hidden_size
    if isinstance(head, MaskedLanguageModelHead) and head.sentence_pair != "none":
        yield from _linear("pooler", d, d, "pooler", bias=True)
        yield from map(_pretraining, _linear("next_sentence", 2, d, "head", bias=True))


def _pretraining_head(spec: Spec) -> Iterator[Parameter]:
    head, d, width = spec.architecture.head, spec.hidden_size, spec.embedding_size
    if isinstance(head, ReplacedTokenHead):
        yield from _linear("head.transform", d, d, "head", bias=True)
        yield from _linear("head.output", 1, d, "head", bias=True)
        return
    if isinstance(head, EnhancedMaskDecoder):
        yield Parameter(
            name="head.position.weight",
            shape=(spec.max_positions, d),
            role="embedding",
            component="head",
        )
    if isinstance(head, MaskedLanguageModelHead | EnhancedMaskDecoder):
        yield from _linear("head.transform", width, d, "head", bias=True)
        yield from _norm(spec, "head.norm", "head", size=width)
    elif isinstance(spec.architecture.embeddings.width, FactorisedEmbedding):
        yield from _linear("head.projection", width, d, "head", bias=False)
    for parameter in _linear("head.output", spec.vocab_size, width, "head", bias=head.bias):
        if not (spec.architecture.tied_embeddings and parameter.role == "matrix"):
            yield parameter


def _pretraining(parameter: Parameter) -> Parameter:
    return replace(parameter, backbone=False)
