"""Disentangled attention: contents and rows of distances meet each other (He et al. 2020, DeBERTa)."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.attention import LayerInputs, SelfAttention, WeightedSum, share
from holotype_reference.basics import Linear
from holotype_reference.cache import KeysValues
from holotype_reference.positions.distances import Distances, Met, SharedDistances, added
from holotype_spec import schema


class RelativeRows(SharedDistances):
    """2 k trained rows for distances, which all layers share (He et al. 2020, section 3.1).

    A query at i and a key at j have the row k + i - j, at least the first one and at most the last (their equation 3).
    """

    def __init__(self, spec: schema.Spec, described: schema.Disentangled) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2 * described.max_distance, spec.hidden_size))
        self.max_distance = described.max_distance

    def distances(self, queries: Tensor, keys: Tensor, like: Tensor) -> Distances:
        """Positions of queries (queries) and keys (keys) -> the rows, and which is whose."""
        behind = rearrange(queries, "queries -> queries 1") - rearrange(keys, "keys -> 1 keys")
        index = (behind + self.max_distance).clamp(0, 2 * self.max_distance - 1)
        return Distances(rows=self.weight[None], index=index)


class DisentangledAttention(SelfAttention):
    """Content meets content, and positions meet content twice (He et al. 2020, section 3.1, equation 4).

        score(i, j) = scale · (q_i k_jᵀ + q_i K_δᵀ + k_j Q_δᵀ),     δ the row of i and j

    K and Q are the rows of distances, projected by matrices of the layer's own. The paper gives the last term the row
    of the opposite distance, δ(j, i). The release gathers by -δ along the keys and transposes, which is δ(i, j) again
    (disentangled_attention.py, disentangled_att_bias), and so were the published weights trained.
    """

    def __init__(
        self, spec: schema.Spec, described: schema.Disentangled, *, weigh: WeightedSum
    ) -> None:
        super().__init__(spec, weigh=weigh)
        size = spec.heads * spec.head_dim
        self.position_key: Linear | None = None
        self.position_query: Linear | None = None
        if "content-to-position" in described.terms:
            self.position_key = Linear(spec.hidden_size, size, bias=False)
        if "position-to-content" in described.terms:
            self.position_query = Linear(spec.hidden_size, size)
        # The release drops some of the rows, in each layer anew (pos_dropout).
        self.row_dropout = nn.Dropout(spec.architecture.dropout.at("embeddings"))

    def forward(self, x: Tensor, given: LayerInputs, cache: KeysValues | None) -> Tensor:
        """(batch, length, hidden_size) -> the same"""
        met = Met(attention=self, distances=given.positions)
        return super().forward(x, replace(given, positions=met), cache)

    def score_bias(self, query: Tensor, key: Tensor, distances: Distances) -> Tensor | None:
        """Query (batch, heads, queries, head_dim), key (batch, kv_heads, keys, head_dim) -> (batch, heads, queries,
        keys)."""
        bias: Tensor | None = None
        rows = self.row_dropout(distances.rows)
        if self.position_key is not None:
            bias = added(bias, self.content_to_position(query, rows, distances))
        if self.position_query is not None:
            of_keys = self.position_to_content(share(key, query.shape[1]), rows, distances)
            bias = added(bias, of_keys)
        return bias

    def content_to_position(self, query: Tensor, rows: Tensor, distances: Distances) -> Tensor:
        """scale · q_i K_δᵀ, for each query and the row of each key: (batch, heads, queries, keys)"""
        assert self.position_key is not None
        return distances.pick((query * self.scale) @ self.split(self.position_key(rows)).mT)

    def position_to_content(self, key: Tensor, rows: Tensor, distances: Distances) -> Tensor:
        """scale · k_j Q_δᵀ, for each key and the row of each query: (batch, heads, queries, keys)"""
        assert self.position_query is not None
        products = (key * self.scale) @ self.split(self.position_query(rows)).mT
        turned = Distances(rows=distances.rows, index=distances.index.mT)
        return turned.pick(products).mT
