"""Every trainable parameter of a model: its name, shape and component, straight from the spec (no torch).

This table is the statement of what a model *has*, and the exact counts are sums over it. The reference model's
``state_dict`` has the names and shapes of `holotype_spec.tensors.tensor_table`, which adds what is not trained.
Matrices are written (outputs, inputs), as `torch.nn.Linear` stores them, those of experts (experts, outputs,
inputs). Tied parameters stand once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Literal

import msgspec

from holotype_spec.networks import Network
from holotype_spec.schema import (
    Disentangled,
    EnhancedMaskDecoder,
    Experts,
    FactorisedEmbedding,
    GatedFeedForward,
    GatedRelativeBuckets,
    LatentAttention,
    LayerNorm,
    LayerwiseRelativeBuckets,
    LearnedPositions,
    MaskedLanguageModelHead,
    Permutation,
    RelativeBuckets,
    ReplacedTokenHead,
    Spec,
    TransformerXLPositions,
    TwoDimensionalPositions,
)
from holotype_spec.sketch import answers

EXPERTS = "experts"  # the component of those of which a token uses a few
Role = Literal["embedding", "matrix", "bias", "gain", "shift", "score-bias", "choice-bias"]
Stack = Literal["encoder", "decoder"]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One trainable tensor.

    `role` says how it acts (a `gain` multiplies after a norm, a `shift` adds to it, a `score-bias` adds to
    attention scores, a `choice-bias` to what experts are chosen by); `component` groups counts; `residual` says
    that what it produces is written into the residual stream; `backbone` is false for what only the pretraining
    heads own.
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
    shared = spec.architecture.layer_sharing == "all"
    depths = {stack: 1 if shared else stack_layers(spec, stack) for stack in stacks(spec)}
    return tuple(rows(spec, {stack: range(depth) for stack, depth in depths.items()}))


def rows(spec: Spec, layers: Mapping[Stack, Iterable[int]]) -> Iterator[Parameter]:
    """The table with these layers of each stack."""
    yield from _embeddings(spec)
    for stack, indices in layers.items():
        yield from _stack(spec, stack, indices)
    yield from _head(spec)


def stack_layers(spec: Spec, stack: Stack) -> int:
    """How many layers a stack runs."""
    return spec.encoder_depth if stack == "encoder" else spec.layers


# Embeddings ------------------------------------------------------------------------------------------------


def _embeddings(spec: Spec) -> Iterator[Parameter]:
    architecture, d = spec.architecture, spec.hidden_size
    width = architecture.embeddings.width
    yield _table("embeddings.token", spec.vocab_size, spec.embedding_size, "token embeddings")
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
    if places_each_stack(spec):
        yield from _placed(spec, "source_embeddings")


def places_each_stack(spec: Spec) -> bool:
    """Whether the encoder of an encoder-decoder adds to the rows of its tokens what has parameters of its own."""
    architecture = spec.architecture
    return architecture.structure == "encoder-decoder" and (
        isinstance(architecture.positions, LearnedPositions)
        or architecture.normalization.embedding
        or architecture.token_types > 0
    )


def _placed(spec: Spec, name: str) -> Iterator[Parameter]:
    """What one stack adds to the rows of its tokens, and the norm of the sum."""
    architecture, width = spec.architecture, spec.architecture.embeddings.width
    narrow = isinstance(width, FactorisedEmbedding) and width.tables == "all"
    size = spec.embedding_size if narrow else spec.hidden_size
    if isinstance(architecture.positions, LearnedPositions):
        yield _table(f"{name}.position", spec.position_rows, size, "position embeddings")
    if isinstance(architecture.positions, TwoDimensionalPositions):
        for table in ("position", "block_position"):
            yield _table(f"{name}.{table}", spec.position_rows, size, "position embeddings")
    of_target = architecture.structure == "encoder-decoder" and name == "embeddings"
    if architecture.token_types and not of_target:
        yield _table(f"{name}.token_type", architecture.token_types, size, "token-type embeddings")
    if architecture.normalization.embedding:
        yield from norm_rows(spec, f"{name}.norm", "norms", residual=True, size=size)


def _table(name: str, rows: int, size: int, component: str) -> Parameter:
    # A post-norm or an embedding norm stands between these tables and the residual stream.
    return Parameter(
        name=f"{name}.weight",
        shape=(rows, size),
        role="embedding",
        component=component,
        residual=True,
    )


def norm_rows(
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


def _stack(spec: Spec, stack: Stack, layers: Iterable[int]) -> Iterator[Parameter]:
    yield from _positions(spec, stack)
    for layer in layers:
        yield from layer_rows(spec, stack, f"{stack}.layers.{layer}", layer)
    if spec.architecture.normalization.final:
        yield from norm_rows(spec, f"{stack}.final_norm", "norms")


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


def layer_rows(spec: Spec, stack: Stack, name: str, layer: int) -> Iterator[Parameter]:
    if spec.architecture.residual == "parallel":
        yield from norm_rows(spec, f"{name}.norm", "norms")
        yield from _attention(spec, f"{name}.self_attention", "self-attention")
        yield from _feed_forward(spec, f"{name}.feed_forward", layer)
        return
    post = spec.architecture.residual in ("post-norm", "deep-norm")
    blocks = ["self_attention"]
    if stack == "decoder" and spec.architecture.structure == "encoder-decoder":
        blocks.append("cross_attention")
    for block in blocks:
        yield from _attention(spec, f"{name}.{block}", block.replace("_", "-"))
        yield from norm_rows(spec, f"{name}.{block}_norm", "norms", residual=post)
    yield from _feed_forward(spec, f"{name}.feed_forward", layer)
    yield from norm_rows(spec, f"{name}.feed_forward_norm", "norms", residual=post)
    blocks_of_experts = spec.architecture.feed_forward
    if isinstance(blocks_of_experts, Experts) and blocks_of_experts.dense_after:
        yield from _dense_after(spec, blocks_of_experts, name, layer, post=post)


def _dense_after(
    spec: Spec, blocks: Experts, name: str, layer: int, *, post: bool
) -> Iterator[Parameter]:
    """The block that follows a layer of experts."""
    if spec.has_experts(layer):
        gated = blocks.dense == "gated"
        yield from _block(spec, f"{name}.dense_after", "feed-forward", spec.ffn_size, gated=gated)
        yield from norm_rows(spec, f"{name}.dense_after_norm", "norms", residual=post)


def _attention(spec: Spec, name: str, component: str) -> Iterator[Parameter]:
    if isinstance(spec.architecture.attention, LatentAttention):
        yield from _latent_attention(spec, spec.architecture.attention, name, component)
        return
    d, query, key = spec.hidden_size, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    if component == "self-attention":
        yield from _places_of_queries(spec, name)
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
        case LayerwiseRelativeBuckets(buckets=buckets):
            yield Parameter(
                name=f"{name}.relative_bias.weight",
                shape=(buckets, spec.heads),
                role="score-bias",
                component="relative position biases",
            )
        case GatedRelativeBuckets():
            for gate in ("gate_update", "gate_reset"):
                yield _vector(f"{name}.{gate}", (spec.head_dim,), "bias")
            yield _vector(f"{name}.gate_weight", (spec.heads,), "bias")
        case Disentangled(terms=terms):
            if "content-to-position" in terms:
                yield from _linear(f"{name}.position_key", size, d, component, bias=False)
            if "position-to-content" in terms:
                yield from _linear(f"{name}.position_query", size, d, component, bias=True)
        case TransformerXLPositions():
            yield from _linear(f"{name}.position_key", size, d, component, bias=False)


def _places_of_queries(spec: Spec, name: str) -> Iterator[Parameter]:
    """The vectors that take the place of queries (Dai et al. 2019, section 3.3), and the rows of segments."""
    positions, size = spec.architecture.positions, spec.heads * spec.head_dim
    if isinstance(positions, TransformerXLPositions):
        yield _vector(f"{name}.content_bias", (size,), "bias")
        yield _vector(f"{name}.position_bias", (size,), "bias")
        if positions.relative_segments:
            yield _vector(f"{name}.segment_bias", (size,), "bias")
            yield _vector(f"{name}.segments", (2, size), "embedding")


def _vector(name: str, shape: tuple[int, ...], role: Role) -> Parameter:
    return Parameter(name=name, shape=shape, role=role, component="relative positions")


def _latent_attention(
    spec: Spec, attention: LatentAttention, name: str, component: str
) -> Iterator[Parameter]:
    d, heads, rank = spec.hidden_size, spec.heads, attention.kv_rank
    query, value = heads * spec.head_dim, heads * attention.value_head_dim

    def linear(part: str, outputs: int, inputs: int) -> Iterator[Parameter]:
        bias = part in attention.biases
        residual = part == "output"
        return _linear(f"{name}.{part}", outputs, inputs, component, bias=bias, residual=residual)

    if attention.query_rank == "none":
        yield from linear("query", query, d)
    else:
        yield from linear("query_latent", attention.query_rank, d)
        yield from norm_rows(spec, f"{name}.query_norm", component, size=attention.query_rank)
        yield from linear("query", query, attention.query_rank)
    yield from linear("latent", rank, d)
    yield from linear("rotary_key", attention.rope_head_dim, d)
    yield from norm_rows(spec, f"{name}.latent_norm", component, size=rank)
    yield from linear("key", heads * spec.nope_head_dim, rank)
    yield from linear("value", value, rank)
    yield from linear("output", d, value)


def _feed_forward(spec: Spec, name: str, layer: int) -> Iterator[Parameter]:
    match spec.architecture.feed_forward:
        case Experts() as blocks if spec.has_experts(layer):
            yield from _experts(spec, blocks, name)
        case Experts(dense=kind):
            yield from _block(spec, name, "feed-forward", spec.ffn_size, gated=kind == "gated")
        case blocks:
            gated = isinstance(blocks, GatedFeedForward)
            yield from _block(spec, name, "feed-forward", spec.ffn_size, gated=gated)


def _experts(spec: Spec, blocks: Experts, name: str) -> Iterator[Parameter]:
    gated, size = blocks.expert == "gated", blocks.expert_size
    yield from _linear(
        f"{name}.router", blocks.experts, spec.hidden_size, "router", bias=False, residual=False
    )
    for parameter in _block(spec, f"{name}.experts", EXPERTS, size, gated=gated):
        yield msgspec.structs.replace(parameter, shape=(blocks.experts, *parameter.shape))
    if blocks.shared_experts:
        # One block as wide as all of them computes their sum.
        size *= blocks.shared_experts
        yield from _block(spec, f"{name}.shared_experts", "shared experts", size, gated=gated)


def _block(spec: Spec, name: str, component: str, size: int, *, gated: bool) -> Iterator[Parameter]:
    d, bias = spec.hidden_size, spec.architecture.feed_forward.bias
    if gated:
        yield from _linear(f"{name}.gate", size, d, component, bias=bias)
    yield from _linear(f"{name}.up", size, d, component, bias=bias)
    yield from _linear(f"{name}.down", d, size, component, bias=bias, residual=True)


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
            residual=True,
        )
    if isinstance(head, MaskedLanguageModelHead | EnhancedMaskDecoder):
        yield from _linear("head.transform", width, d, "head", bias=True)
        yield from norm_rows(spec, "head.norm", "head", size=width)
    elif isinstance(spec.architecture.embeddings.width, FactorisedEmbedding):
        yield from _linear("head.projection", width, d, "head", bias=False)
    for parameter in _linear("head.output", spec.vocab_size, width, "head", bias=head.bias):
        if not (spec.architecture.tied_embeddings and parameter.role == "matrix"):
            yield parameter


def _pretraining(parameter: Parameter) -> Parameter:
    return msgspec.structs.replace(parameter, backbone=False)
