"""Multi-head attention, its heads grouped or not, over its own sequence or over a source.

    scores  = scale · q kᵀ (+ bias)                       (batch, heads, queries, keys)
    output  = softmax(scores, masked keys left out) v     (batch, heads, queries, head_dim)

(Vaswani et al. 2017, section 3.2; grouped queries: Ainslie et al. 2023, section 2.2.) A query that sees no key at
all, such as one of padding, has the empty sum as its output: zero, with zero gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from einops import rearrange
from torch import Tensor, nn

from holotype_reference.cache import KeysValues
from holotype_reference.kernels.paths import PATHS, Path
from holotype_reference.linear import Linear
from holotype_reference.masks import Mask
from holotype_reference.positions.rotary import score_factor
from holotype_spec import schema

if TYPE_CHECKING:
    from holotype_reference.positions.distances import Distances


class Attention(nn.Module):
    """What all kinds of attention share: the scale, the weighted sum, and the matrix that writes its result."""

    output: Linear

    def __init__(self, spec: schema.Spec, *, path: Path) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.group = spec.heads // spec.kv_heads
        self.scaling = spec.architecture.attention.scale
        self.lifted = score_factor(spec)
        self.dropout = spec.architecture.dropout.at("attention")
        self.weighted_sum = PATHS[path]

    def scale(self) -> float:
        """What the products of queries and keys are multiplied by (Vaswani et al. 2017, section 3.2.1)."""
        match self.scaling:
            case "inverse-sqrt-head-dim" | "inverse-sqrt-head-dim-log-length":
                return self.lifted * float(self.head_dim**-0.5)
            case "inverse-sqrt-three-head-dims":
                return self.lifted * float((3 * self.head_dim) ** -0.5)
            case "none":
                return self.lifted
            case other:
                raise ValueError(f"the reference has no formula for the scale {other!r}")

    def placed(
        self, query: Tensor, key: Tensor, turn: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Queries and keys, or what turns of them, rotated to their positions."""
        return (query, key) if turn is None else (turn(query), turn(key))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
    ) -> Tensor:
        """Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim; values may have
        another width), bias (1, heads, queries, keys) or None -> (batch, queries, hidden_size)."""
        mixed = self.weighted_sum(
            query,
            key,
            value,
            mask=mask,
            bias=bias,
            scale=self.scale(),
            dropout=self.dropout if self.training else 0.0,
        )
        y: Tensor = self.output(
            rearrange(mixed, "batch heads queries head_dim -> batch queries (heads head_dim)")
        )
        return y


class MultiHeadAttention(Attention):
    """Each head has matrices of its own for queries, and each group of heads for keys and values."""

    def __init__(self, spec: schema.Spec, *, path: Path) -> None:
        super().__init__(spec, path=path)
        d, biases = spec.hidden_size, spec.architecture.attention.biases
        queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.query = Linear(d, queries, bias="query" in biases)
        self.key = Linear(d, keys, bias="key" in biases)
        self.value = Linear(d, keys, bias="value" in biases)
        self.output = Linear(queries, d, bias="output" in biases)

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, heads · head_dim) -> (batch, heads, length, head_dim)"""
        return rearrange(
            x,
            "batch length (heads head_dim) -> batch heads length head_dim",
            head_dim=self.head_dim,
        )


class SelfAttention(MultiHeadAttention):
    """Queries, keys and values from one sequence."""

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask,
        turn: Callable[[Tensor], Tensor] | None,
        sharpen: Callable[[Tensor], Tensor] | None,
        bias: Tensor | None,
        cache: KeysValues | None,
        distances: Distances | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """(batch, length, hidden_size) -> the same.

        `turn` rotates queries and keys to their positions, `sharpen` scales queries by theirs; `cache` is extended by
        this sequence's keys and values; `memory`, like x, is what keys and values are made of instead of x.
        """
        read = x if memory is None else memory
        query = self.split(self.query(x))
        key, value = self.split(self.key(read)), self.split(self.value(read))
        query, key = self.placed(query, key, turn)
        if sharpen is not None:
            query = sharpen(query)
        if cache is not None:
            key, value = cache.extend(key, value)
        return self.attend(query, key, value, mask, self.score_bias(query, key, bias, distances))

    def score_bias(
        self, query: Tensor, key: Tensor, bias: Tensor | None, distances: Distances | None
    ) -> Tensor | None:
        """What is added to the scores, (batch or 1, heads, queries, keys): here the stack's bias alone."""
        return bias


class CrossAttention(MultiHeadAttention):
    """Queries from the decoder, keys and values from the encoder's output (Vaswani et al. 2017, section 3.2.3)."""

    def forward(
        self, x: Tensor, *, source: Tensor | None, mask: Mask, cache: KeysValues | None
    ) -> Tensor:
        """(batch, length, hidden_size) -> the same.

        `source` (batch, source length, hidden_size) may be None when `cache` already holds its keys and values.
        """
        key, value = self.remember(source, cache)
        return self.attend(self.split(self.query(x)), key, value, mask, bias=None)

    def remember(self, source: Tensor | None, cache: KeysValues | None) -> tuple[Tensor, Tensor]:
        """The source's keys and values, computed once."""
        if cache is not None and cache.keys is not None and cache.values is not None:
            return cache.keys, cache.values
        assert source is not None, (
            "the model encodes the source whenever the cache does not hold it"
        )
        key, value = self.split(self.key(source)), self.split(self.value(source))
        return (key, value) if cache is None else cache.extend(key, value)
