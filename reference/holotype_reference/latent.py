"""Attention over latent vectors: keys and values made from one short vector a token, which alone is cached.

    c  = norm(W x)                                        (batch, length, kv_rank), the latent vector
    r  = R(W x)                                           (batch, length, rope_head_dim), turned to its position
    k  = [W c, r],  v = W c                               of each head, but for r, which all heads share
    q  = [a, R(b)]  where  [a, b] = W norm(W x)           of each head; R turns the last rope_head_dim numbers

(DeepSeek-AI 2024, V2, sections 2.1.2 and 2.1.3, equations 9 to 19; the norms are those of section 3.1.2.) What stands
to the right of W is each time another matrix. Scores are scaled by 1/√(all numbers of a query's head).

Here keys and values are made anew of everything cached in each call; the paper multiplies the matrices that make them
into those of queries and output instead, which gives the same.
"""

from __future__ import annotations

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from holotype_reference.attention import Attention, LayerInputs, WeightedSum
from holotype_reference.basics import Linear, norm
from holotype_reference.cache import KeysValues
from holotype_spec import schema


class LatentAttention(Attention):
    """Self-attention of one sequence (see the top of this file)."""

    def __init__(
        self, spec: schema.Spec, kind: schema.LatentAttention, *, weigh: WeightedSum
    ) -> None:
        super().__init__(spec, weigh=weigh)
        d, queries, biases = spec.hidden_size, spec.heads * spec.head_dim, kind.biases
        read = d
        self.query_latent: Linear | None = None
        self.query_norm: nn.Module | None = None
        if isinstance(kind.query_rank, int):
            read = kind.query_rank
            self.query_latent = Linear(d, read, bias=False)
            self.query_norm = norm(spec, read)
        self.query = Linear(read, queries, bias="query" in biases)
        self.latent = Linear(d, kind.kv_rank, bias=False)
        self.rotary_key = Linear(d, kind.rope_head_dim, bias=False)
        self.latent_norm = norm(spec, kind.kv_rank)
        self.key = Linear(kind.kv_rank, spec.heads * spec.nope_head_dim, bias="key" in biases)
        self.value = Linear(kind.kv_rank, spec.heads * spec.value_head_dim, bias="value" in biases)
        self.output = Linear(spec.heads * spec.value_head_dim, d, bias="output" in biases)
        self.heads = spec.heads
        self.turning = kind.rope_head_dim

    def forward(self, x: Tensor, given: LayerInputs, cache: KeysValues | None) -> Tensor:
        """(batch, length, hidden_size) -> the same.

        `cache` is extended by this sequence's latent vectors and rotary keys, as if they were the keys and values of
        one head.
        """
        query, latent, rotary_key = self.placed(x, given)
        if cache is not None:
            latent, rotary_key = cache.extend(latent, rotary_key)
        key, value = self.expand(latent, rotary_key)
        return self.attend(query, key, value, given.mask, given.positions.bias(query, key))

    def placed(self, x: Tensor, given: LayerInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Queries by head, latent vectors and rotary keys, what turns of them turned to their positions."""
        read = given.read(x)
        still, turning = self.parts(self.queries(x))
        latent = rearrange(
            self.latent_norm(self.latent(read)), "batch length rank -> batch 1 length rank"
        )
        rotary_key = rearrange(self.rotary_key(read), "batch length width -> batch 1 length width")
        turning, rotary_key = given.positions.rotate(turning, rotary_key)
        return given.positions.scale(self.whole(still, turning)), latent, rotary_key

    def queries(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, heads, length, head_dim)"""
        if self.query_latent is not None and self.query_norm is not None:
            x = self.query_norm(self.query_latent(x))
        return self.by_head(self.query(x))

    def by_head(self, x: Tensor) -> Tensor:
        """(batch, length, heads · width) -> (batch, heads, length, width)"""
        return rearrange(
            x, "batch length (heads width) -> batch heads length width", heads=self.heads
        )

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a head without positions and, at its end, the part that RoPE turns."""
        return x[..., : -self.turning], x[..., -self.turning :]

    def whole(self, still: Tensor, turning: Tensor) -> Tensor:
        """The inverse of `parts`."""
        return torch.cat((still, turning), dim=-1)

    def expand(self, latent: Tensor, rotary_key: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 1, keys, kv_rank), (batch, 1, keys, rope_head_dim) -> keys (batch, heads, keys, head_dim) and values
        (batch, heads, keys, value_head_dim)"""
        key, value = (self.by_head(part(latent[:, 0])) for part in (self.key, self.value))
        shared = repeat(
            rotary_key, "batch 1 keys width -> batch heads keys width", heads=self.heads
        )
        return self.whole(key, shared), value
