"""Multi-head attention, its heads grouped or not, over its own sequence or over a source.

    scores  = scale · q kᵀ (+ bias)                       (batch, heads, queries, keys)
    output  = softmax(scores, masked keys left out) v     (batch, heads, queries, head_dim)

(Vaswani et al. 2017, section 3.2; grouped queries: Ainslie et al. 2023, section 2.2.) A query that sees no key at
all, such as one of padding, has the empty sum as its output: zero, with zero gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor, finfo, nn

from holotype_reference.cache import KeysValues
from holotype_reference.linear import Linear
from holotype_reference.masks import Mask
from holotype_reference.normalization import compute_dtype
from holotype_spec import schema

Path = Literal["fused", "eager"]


class Attention(nn.Module):
    """What self- and cross-attention share: projections, heads, scale, and the weighted sum."""

    def __init__(self, spec: schema.Spec, *, path: Path) -> None:
        super().__init__()
        d, biases = spec.hidden_size, spec.architecture.attention.biases
        queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.query = Linear(d, queries, bias="query" in biases)
        self.key = Linear(d, keys, bias="key" in biases)
        self.value = Linear(d, keys, bias="value" in biases)
        self.output = Linear(queries, d, bias="output" in biases)
        self.head_dim = spec.head_dim
        self.group = spec.heads // spec.kv_heads
        self.scaling = spec.architecture.attention.scale
        self.dropout = spec.architecture.dropout.at("attention")
        self.path = path

    def split(self, x: Tensor) -> Tensor:
        """(batch, length, heads · head_dim) -> (batch, heads, length, head_dim)"""
        return rearrange(
            x,
            "batch length (heads head_dim) -> batch heads length head_dim",
            head_dim=self.head_dim,
        )

    def share(self, x: Tensor) -> Tensor:
        """(batch, kv_heads, keys, head_dim) -> (batch, heads, keys, head_dim)

        Query head h reads key-value head h // group: neighbouring query heads share.
        """
        if self.group == 1:
            return x
        return repeat(
            x,
            "batch kv_heads keys head_dim -> batch (kv_heads group) keys head_dim",
            group=self.group,
        )

    def scale(self) -> float:
        """What the products of queries and keys are multiplied by (Vaswani et al. 2017, section 3.2.1)."""
        match self.scaling:
            case "inverse-sqrt-head-dim":
                return float(self.head_dim**-0.5)
            case "inverse-sqrt-three-head-dims":
                return float((3 * self.head_dim) ** -0.5)
            case "none":
                return 1.0

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
    ) -> Tensor:
        """Query (batch, heads, queries, head_dim), key and value (batch, kv_heads, keys, head_dim), bias (1, heads,
        queries, keys) or None -> (batch, queries, hidden_size)."""
        mixed = PATHS[self.path](
            query,
            self.share(key),
            self.share(value),
            mask=mask,
            bias=bias,
            scale=self.scale(),
            dropout=self.dropout if self.training else 0.0,
        )
        y: Tensor = self.output(
            rearrange(mixed, "batch heads queries head_dim -> batch queries (heads head_dim)")
        )
        return y


class SelfAttention(Attention):
    """Queries, keys and values from one sequence."""

    def forward(
        self,
        x: Tensor,
        *,
        mask: Mask,
        turn: Callable[[Tensor], Tensor] | None,
        bias: Tensor | None,
        cache: KeysValues | None,
    ) -> Tensor:
        """(batch, length, hidden_size) -> the same.

        `turn` rotates queries and keys to their positions; `cache` is extended by this sequence's keys and values.
        """
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        if turn is not None:
            query, key = turn(query), turn(key)
        if cache is not None:
            key, value = cache.extend(key, value)
        return self.attend(query, key, value, mask, bias)


class CrossAttention(Attention):
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


class WeightedSum(Protocol):
    """softmax(scale · q kᵀ + bias, over the visible keys) v."""

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
        """All of (batch, heads, queries or keys, head_dim); the result is shaped as `query`."""
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
    """The formula, step by step. The softmax is taken in at least float32."""
    scores = scale * einsum(
        query, key, "batch heads i width, batch heads j width -> batch heads i j"
    )
    if bias is not None:
        scores = scores + bias
    scores = scores.to(compute_dtype(scores.dtype))
    # The lowest finite number, not -inf, which would make a row without any key NaN; exp turns it into exact zeros.
    scores = scores.masked_fill(~mask.visible, finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1).to(query.dtype)
    weights = F.dropout(mask.silence(weights), dropout)
    return einsum(weights, value, "batch heads i j, batch heads j width -> batch heads i width")


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Mask,
    bias: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """The same through `torch.nn.functional.scaled_dot_product_attention`, told in the cheapest exact way."""
    if bias is None and (mask.is_full or mask.is_causal):
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=not mask.is_full, scale=scale
        )
    # Kernels differ in what they make of a row without any key: it sees everything, and its result is left out.
    told = mask.open if bias is None else bias.masked_fill(~mask.open, float("-inf"))
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=told, dropout_p=dropout, scale=scale
    )
    return mask.silence(mixed)


PATHS: dict[Path, WeightedSum] = {"fused": fused, "eager": eager}
