"""Relative sinusoids that queries meet (Dai et al. 2019, Transformer-XL), and XLNet's segments beside them."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.attention import LayerInputs, SelfAttention, WeightedSum
from holotype_reference.basics import Linear
from holotype_reference.cache import KeysValues
from holotype_reference.masks import Mask
from holotype_reference.positions.distances import Distances, Met, SharedDistances
from holotype_reference.positions.sinusoidal import Sinusoidal
from holotype_spec import schema


class RelativeSinusoids(SharedDistances):
    """A sinusoid for each distance, R_(i - j) for a query at i and a key at j (Dai et al. 2019, section 3.3).

    They are those of absolute positions (Vaswani et al. 2017, section 3.5), all sines in front of all cosines. In
    training they are dropped like embeddings, in each row of the batch by itself (the XLNet release, transformer_xl).
    """

    def __init__(self, spec: schema.Spec, described: schema.TransformerXLPositions) -> None:
        super().__init__()
        layout = schema.Sinusoidal(theta=described.theta, layout="halves", offset=0)
        self.sinusoids = Sinusoidal(spec.hidden_size, layout)
        self.dropout = nn.Dropout(spec.architecture.dropout.at("embeddings"))

    def distances(self, queries: Tensor, keys: Tensor, like: Tensor) -> Distances:
        """Positions of queries, the last of the keys, and of keys -> the rows, in the dtype of `like` (batch, …) and,
        where numbers are dropped, for each of its rows; and which is whose."""
        behind = rearrange(queries, "queries -> queries 1") - rearrange(keys, "keys -> 1 keys")
        first = 1 - len(queries)
        there_are = torch.arange(first, len(keys), device=keys.device)
        rows = self.sinusoids(there_are[None]).to(like.dtype)
        if self.training:
            rows = self.dropout(rows.expand(len(like), -1, -1))
        return Distances(rows=rows, index=behind - first)


class TransformerXLAttention(SelfAttention):
    """Queries meet contents and sinusoids of distances, beside two trained vectors (Dai et al. 2019, section 3.3).

        score(i, j) = scale · ((q_i + u) k_jᵀ + (q_i + v) (W R_(i-j))ᵀ + (q_i + s) e_ijᵀ)

    u is the content bias and v the position bias. The last term is XLNet's (Yang et al. 2019, section 2.5): e is one
    row for keys of the same segment and another for those of other ones, s a third bias.
    """

    def __init__(
        self, spec: schema.Spec, described: schema.TransformerXLPositions, *, weigh: WeightedSum
    ) -> None:
        super().__init__(spec, weigh=weigh)
        size = spec.heads * spec.head_dim
        self.position_key = Linear(spec.hidden_size, size, bias=False)
        self.content_bias = nn.Parameter(torch.empty(size))
        self.position_bias = nn.Parameter(torch.empty(size))
        self.segment_bias: nn.Parameter | None = None
        self.segments: nn.Parameter | None = None
        if described.relative_segments:
            self.segment_bias = nn.Parameter(torch.empty(size))
            self.segments = nn.Parameter(torch.empty(2, size))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
    ) -> Tensor:
        """As that of all attention, the content bias added to the queries."""
        return super().attend(query + self.by_head(self.content_bias), key, value, mask, bias)

    def forward(self, x: Tensor, given: LayerInputs, cache: KeysValues | None) -> Tensor:
        """(batch, length, hidden_size) -> the same"""
        met = Met(attention=self, distances=given.positions)
        return super().forward(x, replace(given, positions=met), cache)

    def score_bias(self, query: Tensor, key: Tensor, distances: Distances) -> Tensor:
        """Query (batch, heads, queries, head_dim) -> (batch, heads, queries, keys)"""
        bias = self.of_positions(query, distances)
        if distances.apart is None:  # the same for all keys, which softmax does not see
            return bias
        return bias + self.of_segments(query, distances.apart)

    def of_positions(self, query: Tensor, distances: Distances) -> Tensor:
        """scale · (q_i + v) (W R_(i-j))ᵀ: (batch, heads, queries, keys)"""
        keys = self.split(self.position_key(distances.rows))
        return distances.pick((query + self.by_head(self.position_bias)) * self.scale @ keys.mT)

    def of_segments(self, query: Tensor, apart: Tensor) -> Tensor:
        """scale · (q_i + s) e_ijᵀ, of which segments are apart (batch, queries, keys): (batch, heads, queries, keys)"""
        assert self.segments is not None
        assert self.segment_bias is not None
        rows = self.by_head(self.segments)
        products = (query + self.by_head(self.segment_bias)) * self.scale @ rows.mT
        index = rearrange(apart, "batch i j -> batch 1 i j").expand(-1, products.shape[1], -1, -1)
        return products.gather(-1, index)

    def by_head(self, x: Tensor) -> Tensor:
        """(heads · head_dim) or (rows, heads · head_dim) -> (1, heads, 1 or rows, head_dim)"""
        return self.split(x.view(1, -1, x.shape[-1]))
