"""Multi-head attention, its heads grouped or not.

    scores  = scale · q kᵀ (+ bias)                       (batch, heads, queries, keys)
    output  = softmax(scores, masked keys left out) v     (batch, heads, queries, head_dim)

(Vaswani et al. 2017, section 3.2; grouped queries: Ainslie et al. 2023, section 2.2.) A query that sees no key at
all, such as one of padding, has the empty sum as its output: zero, with zero gradients. What positions do to it is one
object, a `Positioning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor, finfo, nn

from holotype_reference.basics import Linear, compute_dtype
from holotype_reference.cache import KeysValues
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_spec import schema


class Positioning:
    """The effect of positions on self-attention in one pass; by default none."""

    def rotate(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, heads, length, width) each -> the same, turned to their positions."""
        return query, key

    def scale(self, query: Tensor) -> Tensor:
        """(batch, heads, queries, head_dim) -> the same, multiplied by what grows with the position."""
        return query

    def bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        """The bias of the scores, (batch or 1, heads, queries, keys), or None."""
        return None


class Positions(nn.Module):
    """The part of positions that the layers of a stack share: here nothing, as where the embeddings have them."""

    name = "positions"  # under which a stack has it

    def at(self, x: Tensor, inputs: Call) -> Positioning:
        """For one pass over vectors (batch, length, hidden_size) that stand where the inputs say."""
        return Positioning()


@dataclass(frozen=True, kw_only=True)
class Source:
    """The encoder's output, as cross-attention reads it.

    Attributes:
        encoded: (batch, source length, hidden_size), or None when the cache holds its keys and values.
        mask: which of its tokens the queries see.
    """

    encoded: Tensor | None
    mask: Mask


@dataclass(frozen=True, kw_only=True)
class LayerInputs:
    """The inputs that all layers of a stack share in one pass.

    Attributes:
        mask: which keys the queries of self-attention see.
        positions: what positions do to it.
        source: what cross-attention looks at, in a decoder that has a source.
    """

    mask: Mask
    positions: Positioning
    source: Source | None

    def read(self, x: Tensor) -> Tensor:
        """The vectors that keys and values are projected from, (batch, length, hidden_size): those of the queries."""
        return x


class WeightedSum(Protocol):
    """softmax(scale · q kᵀ + bias, over the visible keys) v; `holotype_reference.kernels.paths` has faster ones."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        mask: Mask,
        bias: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        """Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim), bias (1, heads,
        queries, keys) or None, dropout the probability with which a weight is lost -> as query."""
        ...


def eager(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    bias: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """The formula, step by step, as a `WeightedSum`. The softmax is taken in at least float32."""
    if key.shape[1] != query.shape[1]:
        key, value = share(key, query.shape[1]), share(value, query.shape[1])
    weights = F.dropout(softmax(query, key, mask, bias, scale).to(query.dtype), dropout)
    return einsum(weights, value, "batch heads i j, batch heads j width -> batch heads i width")


def softmax(query: Tensor, key: Tensor, mask: Mask, bias: Tensor | None, scale: float) -> Tensor:
    """(batch, heads, queries, keys), in at least float32; zero for a query that sees nothing."""
    # Scaled before the product, which would leave the range of float16 otherwise.
    scores = einsum(
        query * scale, key, "batch heads i width, batch heads j width -> batch heads i j"
    )
    if bias is not None:
        scores = scores + bias
    scores = scores.to(compute_dtype(scores.dtype))
    # The lowest finite number, not -inf, which would make a row without any key NaN; exp turns it into exact zeros.
    scores = scores.masked_fill(~mask.visible, finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    return weights if mask.shows_all else mask.silence(weights)


def share(x: Tensor, heads: int) -> Tensor:
    """(batch, kv_heads, keys, width) -> (batch, heads, keys, width): query head h reads head h // group."""
    if x.shape[1] == heads:
        return x
    group = heads // x.shape[1]
    return repeat(x, "batch kv_heads keys width -> batch (kv_heads group) keys width", group=group)


class Attention(nn.Module):
    """The base of all kinds of attention: the scale, the weighted sum, and the matrix that writes its result.

    Attributes:
        scale: what the products of queries and keys are multiplied by (Vaswani et al. 2017, section 3.2.1).
    """

    output: Linear

    def __init__(self, spec: schema.Spec, *, weigh: WeightedSum) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.group = spec.heads // spec.kv_heads
        match spec.architecture.attention.scale:
            case "inverse-sqrt-head-dim" | "inverse-sqrt-head-dim-log-length":
                self.scale = float(spec.head_dim**-0.5)
            case "inverse-sqrt-three-head-dims":
                self.scale = float((3 * spec.head_dim) ** -0.5)
            case "none":
                self.scale = 1.0
            case other:
                raise ValueError(f"the reference has no formula for the scale {other!r}")
        self.dropout = spec.architecture.dropout.at("attention")
        self.weighted_sum = weigh

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
    ) -> Tensor:
        """Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim; values may have
        another width), bias (1, heads, queries, keys) or None -> (batch, queries, hidden_size)."""
        lost = self.dropout if self.training else 0.0
        mixed = self.weighted_sum(
            query, key, value, mask=mask, bias=bias, scale=self.scale, dropout=lost
        )
        y: Tensor = self.output(
            rearrange(mixed, "batch heads queries head_dim -> batch queries (heads head_dim)")
        )
        return y


class MultiHeadAttention(Attention):
    """Each head has matrices of its own for queries, and each group of heads for keys and values."""

    def __init__(self, spec: schema.Spec, *, weigh: WeightedSum) -> None:
        super().__init__(spec, weigh=weigh)
        d, biases = spec.hidden_size, spec.architecture.attention.biases
        queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.query = Linear(d, queries, bias="query" in biases)
        self.key = Linear(d, keys, bias="key" in biases)
        self.value = Linear(d, keys, bias="value" in biases)
        self.output = Linear(queries, d, bias="output" in biases)

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, heads · head_dim) -> (batch, heads, length, head_dim)"""
        by_head = "batch length (heads width) -> batch heads length width"
        return rearrange(x, by_head, width=self.head_dim)


class SelfAttention(MultiHeadAttention):
    """Queries, keys and values from one sequence."""

    def forward(self, x: Tensor, given: LayerInputs, cache: KeysValues | None) -> Tensor:
        """(batch, length, hidden_size) -> the same; `cache` is extended by this sequence's keys and values."""
        query, key, value = self.placed(x, given)
        if cache is not None:
            key, value = cache.extend(key, value)
        return self.attend(query, key, value, given.mask, given.positions.bias(query, key))

    def placed(self, x: Tensor, given: LayerInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head, the first two turned to their positions."""
        read = given.read(x)
        query, key = self.split(self.query(x)), self.split(self.key(read))
        query, key = given.positions.rotate(query, key)
        return given.positions.scale(query), key, self.split(self.value(read))
