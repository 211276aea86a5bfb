"""Self-attention whose scores the distances change by what queries and keys are: one class for each mechanism.

What depends on the distance alone is a bias, the same for all layers (see `holotype_reference.positions`).
"""

from __future__ import annotations

from dataclasses import dataclass

from einops import einsum, rearrange
from torch import Tensor, nn

from holotype_reference.attention import SelfAttention
from holotype_reference.linear import Linear, Table
from holotype_reference.weighted_sum import Path, share
from holotype_spec import schema


@dataclass(frozen=True, kw_only=True)
class Distances:
    """What the layers of a stack are told of the distances.

    Attributes:
        rows: (rows, hidden_size), a vector for each distance that there is, or for several.
        index: (queries, keys), which of the rows is that of a query and a key.
    """

    rows: Tensor
    index: Tensor

    def pick(self, products: Tensor) -> Tensor:
        """Of products with every row (batch or 1, heads, queries, rows) those with its own row for each query and key:
        (batch or 1, heads, queries, keys)."""
        return products.gather(-1, self.index.expand(*products.shape[:2], *self.index.shape))


class RelativeRows(Table):
    """2 k trained rows for distances, which all layers share (He et al. 2020, section 3.1).

    A query at i and a key at j have the row k + i - j, at least the first one and at most the last (their equation 3).
    """

    def __init__(self, spec: schema.Spec, described: schema.Disentangled) -> None:
        super().__init__(2 * described.max_distance, spec.hidden_size)
        self.max_distance = described.max_distance

    def distances(self, queries: Tensor, keys: Tensor) -> Distances:
        """Positions of queries (queries) and keys (keys) -> the rows, and which is whose."""
        behind = rearrange(queries, "queries -> queries 1") - rearrange(keys, "keys -> 1 keys")
        index = (behind + self.max_distance).clamp(0, 2 * self.max_distance - 1)
        return Distances(rows=self.weight, index=index)


class DisentangledAttention(SelfAttention):
    """Content meets content, and positions meet content twice (He et al. 2020, section 3.1, equation 4).

        score(i, j) = scale · (q_i k_jᵀ + q_i K_δᵀ + k_j Q_δᵀ),     δ the row of i and j

    K and Q are the rows of distances, projected by matrices of the layer's own. The paper gives the last term the row
    of the opposite distance, δ(j, i). The release gathers by -δ along the keys and transposes, which is δ(i, j) again
    (disentangled_attention.py, disentangled_att_bias), and so were the published weights trained.
    """

    def __init__(self, spec: schema.Spec, described: schema.Disentangled, *, path: Path) -> None:
        super().__init__(spec, path=path)
        size = spec.heads * spec.head_dim
        self.position_key: Linear | None = None
        self.position_query: Linear | None = None
        if "content-to-position" in described.terms:
            self.position_key = Linear(spec.hidden_size, size, bias=False)
        if "position-to-content" in described.terms:
            self.position_query = Linear(spec.hidden_size, size)
        # The release drops some of the rows, in each layer anew (pos_dropout).
        self.row_dropout = nn.Dropout(spec.architecture.dropout.at("embeddings"))

    def score_bias(
        self, query: Tensor, key: Tensor, bias: Tensor | None, distances: Distances | None
    ) -> Tensor | None:
        """Query (batch, heads, queries, head_dim), key (batch, kv_heads, keys, head_dim) -> (batch, heads, queries,
        keys)."""
        assert distances is not None
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
        keys = self.by_head(self.position_key(rows))
        pattern = "batch heads i width, heads row width -> batch heads i row"
        return distances.pick(einsum(query * self.scale(), keys, pattern))

    def position_to_content(self, key: Tensor, rows: Tensor, distances: Distances) -> Tensor:
        """scale · k_j Q_δᵀ, for each key and the row of each query: (batch, heads, queries, keys)"""
        assert self.position_query is not None
        queries = self.by_head(self.position_query(rows))
        pattern = "batch heads j width, heads row width -> batch heads j row"
        products = einsum(key * self.scale(), queries, pattern)
        turned = Distances(rows=distances.rows, index=distances.index.mT)
        return turned.pick(products).mT

    def by_head(self, x: Tensor) -> Tensor:
        """(rows, heads · head_dim) -> (heads, rows, head_dim)"""
        return rearrange(x, "rows (heads head_dim) -> heads rows head_dim", head_dim=self.head_dim)


def added(bias: Tensor | None, term: Tensor) -> Tensor:
    """The sum, the one that may be missing being zero."""
    return term if bias is None else bias + term


def self_attention(spec: schema.Spec, *, path: Path) -> SelfAttention:
    """The self-attention of a spec's layers."""
    match spec.architecture.positions:
        case schema.Disentangled() as described:
            return DisentangledAttention(spec, described, path=path)
        case _:
            return SelfAttention(spec, path=path)


def relative_rows(spec: schema.Spec) -> RelativeRows | None:
    """What the layers of a stack share to be told of distances, if anything."""
    match spec.architecture.positions:
        case schema.Disentangled() as described:
            return RelativeRows(spec, described)
        case _:
            return None
