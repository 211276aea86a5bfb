"""Every trainable parameter of a model: its name, shape and component, straight from the spec (no torch).

This table is the statement of what a model *has*, and the exact counts are sums over it. The reference model's
``state_dict`` has the names and shapes of `holotype_spec.tensors.tensor_table`, which adds what is not trained.
Matrices are written (outputs, inputs), as `torch.nn.Linear` stores them, those of experts (experts, outputs,
inputs). Tied parameters stand once.

What a mechanism has stands with its class in `holotype_spec.schema`; here is the order in which the parts follow each
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from holotype_spec import network_parameters
from holotype_spec.schema import Spec
from holotype_spec.schema.rows import EXPERTS as EXPERTS
from holotype_spec.schema.rows import Parameter as Parameter
from holotype_spec.schema.rows import Role as Role
from holotype_spec.schema.rows import Stack as Stack
from holotype_spec.schema.rows import table
from holotype_spec.sketch import answers


def stacks(spec: Spec) -> tuple[Stack, ...]:
    """The stacks of layers, in the order in which the data passes them."""
    match spec.architecture.structure:
        case "encoder":
            return ("encoder",)
        case "decoder":
            return ("decoder",)
        case "encoder-decoder":
            return ("encoder", "decoder")


@answers("the table of parameters", network=network_parameters.table)
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
    """The number of layers that a stack runs."""
    return spec.encoder_depth if stack == "encoder" else spec.layers


# Embeddings ------------------------------------------------------------------------------------------------


def _embeddings(spec: Spec) -> Iterator[Parameter]:
    architecture = spec.architecture
    yield table("embeddings.token", spec.vocab_size, spec.embedding_size, "token embeddings")
    yield from _added(spec, "embeddings")
    yield from architecture.embeddings.width.parameters(spec.hidden_size)
    yield from architecture.attention.pattern.parameters(spec)
    if places_each_stack(spec):
        yield from _added(spec, "source_embeddings")


def places_each_stack(spec: Spec) -> bool:
    """Whether the encoder of an encoder-decoder adds to the rows of its tokens what has parameters of its own."""
    architecture = spec.architecture
    return architecture.structure == "encoder-decoder" and (
        architecture.positions.trained
        or architecture.normalization.embedding
        or architecture.token_types > 0
    )


def _added(spec: Spec, name: str) -> Iterator[Parameter]:
    """The tables that one stack adds to the rows of its tokens, and the norm of the sum."""
    architecture = spec.architecture
    size = architecture.embeddings.width.added_size(spec.hidden_size)
    yield from architecture.positions.table_parameters(spec, name, size)
    of_target = architecture.structure == "encoder-decoder" and name == "embeddings"
    if architecture.token_types and not of_target:
        yield table(f"{name}.token_type", architecture.token_types, size, "token-type embeddings")
    if architecture.normalization.embedding:
        yield from norm_rows(spec, f"{name}.norm", "norms", residual=True, size=size)


def norm_rows(
    spec: Spec, name: str, component: str, *, residual: bool = False, size: int | None = None
) -> Iterator[Parameter]:
    norm = spec.architecture.normalization
    return norm.parameters(name, size or spec.hidden_size, component, residual=residual)


# Layers ----------------------------------------------------------------------------------------------------


def _stack(spec: Spec, stack: Stack, layers: Iterable[int]) -> Iterator[Parameter]:
    yield from spec.architecture.positions.stack_parameters(spec, stack)
    for layer in layers:
        yield from layer_rows(spec, stack, f"{stack}.layers.{layer}", layer)
    if spec.architecture.normalization.final:
        yield from norm_rows(spec, f"{stack}.final_norm", "norms")


def layer_rows(spec: Spec, stack: Stack, name: str, layer: int) -> Iterator[Parameter]:
    architecture, norm = spec.architecture, spec.architecture.normalization
    if architecture.residual == "parallel":
        yield from norm_rows(spec, f"{name}.norm", "norms")
        yield from _attention(spec, f"{name}.self_attention", "self-attention")
        yield from architecture.feed_forward.parameters(spec, f"{name}.feed_forward", layer)
        return
    post = architecture.residual in ("post-norm", "deep-norm")
    blocks = ["self_attention"]
    if stack == "decoder" and architecture.structure == "encoder-decoder":
        blocks.append("cross_attention")
    for block in blocks:
        yield from _attention(spec, f"{name}.{block}", block.replace("_", "-"))
        yield from norm_rows(spec, f"{name}.{block}_norm", "norms", residual=post)
    yield from architecture.feed_forward.parameters(spec, f"{name}.feed_forward", layer)
    yield from norm_rows(spec, f"{name}.feed_forward_norm", "norms", residual=post)
    yield from architecture.feed_forward.later_parameters(spec, name, layer, norm, post=post)


def _attention(spec: Spec, name: str, component: str) -> Iterator[Parameter]:
    architecture = spec.architecture
    return architecture.attention.parameters(
        spec, name, component, architecture.normalization, architecture.positions
    )


# Heads -----------------------------------------------------------------------------------------------------


def _head(spec: Spec) -> Iterator[Parameter]:
    architecture = spec.architecture
    return architecture.head.parameters(
        spec,
        architecture.embeddings.width,
        architecture.normalization,
        tied=architecture.tied_embeddings,
    )
