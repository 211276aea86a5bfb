"""Weights in the wrong place: every shape fits, so that nothing is said when a checkpoint is loaded."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import (
    both,
    detects,
    multi_head,
    one_after_the_other,
    tied,
    without,
)
from holotype_conformance.models.deviations.patching import override, override_all, parts
from holotype_reference.attention import MultiHeadAttention
from holotype_reference.basics import Linear
from holotype_reference.embeddings import VocabularyMatrix
from holotype_reference.model import Model
from holotype_reference.stack import Layer
from holotype_spec.schema import Spec


def _square(spec: Spec) -> bool:
    """All heads together are as wide as the stream, in every size."""
    return spec.architecture.attention.head_dim != "independent"


def _exchange(one: nn.Module, other: nn.Module) -> None:
    """Each computes with the parameters of the other."""
    kind = type(one)
    override(one, forward=lambda self, x: kind.forward(other, x))
    override(other, forward=lambda self, x: kind.forward(one, x))


@patches(
    "loading.key-value-exchanged",
    "the projections of keys and values are exchanged",
    "Both have the same shape, and a fused matrix is cut into three: query, key, value, in this order. Look at the"
    " order in which it is cut, and at the names of a fused pair of keys and values.",
    applies=multi_head,
)
def key_value_exchanged(model: Model) -> None:
    for attention in parts(model, MultiHeadAttention):
        _exchange(attention.key, attention.value)


@patches(
    "loading.output-transposed",
    "the output projection of attention is transposed",
    "The matrix is square, so that it loads either way round. Releases that were trained with other frameworks have"
    " (inputs, outputs), as GPT-2's have, and torch.nn.Linear has (outputs, inputs).",
    applies=both(multi_head, _square),
)
def output_transposed(model: Model) -> None:
    for attention in parts(model, MultiHeadAttention):
        override(attention.output, forward=_transposed)


@patches(
    "loading.attention-transposed",
    "the square projections of attention are transposed",
    "They load either way round, and the others do not. Releases that were trained with other frameworks have"
    " (inputs, outputs), and torch.nn.Linear has (outputs, inputs).",
    applies=both(multi_head, _square),
)
def attention_transposed(model: Model) -> None:
    for attention in parts(model, MultiHeadAttention):
        for part in (attention.query, attention.key, attention.value, attention.output):
            if part.weight.shape[0] == part.weight.shape[1]:
                override(part, forward=_transposed)


def _transposed(self: Linear, x: Tensor) -> Tensor:
    return F.linear(x, self.weight.T, self.bias)


@patches(
    "loading.norms-exchanged",
    "the norms of attention and of the feed-forward block are exchanged",
    "They have the same shapes, and names that differ from release to release: post_attention_layernorm stands before"
    " the feed-forward block. Freshly initialised norms are alike and show nothing.",
    applies=one_after_the_other,
)
def norms_exchanged(model: Model) -> None:
    for layer in parts(model, Layer):
        _exchange(layer.self_attention_norm, layer.feed_forward_norm)


@patches(
    "loading.head-tied",
    "the vocabulary matrix is the table of token embeddings instead of one of its own",
    "The checkpoint has both, and one is not read. Configurations say whether they are tied, and what is said by"
    " default differs.",
    applies=without(lambda spec: tied(spec) or detects(spec)),
)
def head_tied(model: Model) -> None:
    def forward(self: VocabularyMatrix, x: Tensor, table: Tensor) -> Tensor:
        return F.linear(x, table, self.bias)

    override_all(model, VocabularyMatrix, forward=forward)
