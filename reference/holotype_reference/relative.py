"""Self-attention whose scores the distances change by what queries and keys are: one class for each mechanism.

What depends on the distance alone is a bias, the same for all layers (see `holotype_reference.positions`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.attention import SelfAttention
from holotype_reference.formula import share
from holotype_reference.linear import Linear, Table
from holotype_reference.masks import Mask
from holotype_reference.positions import Sinusoidal
from holotype_reference.weighted_sum import Path
from holotype_spec import schema


@dataclass(frozen=True, kw_only=True)
class Distances:
    """What the layers of a stack are told of the distances.

    Attributes:
        rows: (batch or 1, rows, hidden_size), a vector for each distance that there is, or for several.
        index: (queries, keys), which of the rows is that of a query and a key.
        apart: (batch, queries, keys) whole numbers, 1 for a key of another segment than the query's and 0 for one of
            the same; None when all are of one.
    """

    rows: Tensor
    index: Tensor
    apart: Tensor | None = None

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

    def distances(self, queries: Tensor, keys: Tensor, _like: Tensor) -> Distances:
        """Positions of queries (queries) and keys (keys) -> the rows, and which is whose."""
        behind = rearrange(queries, "queries -> queries 1") - rearrange(keys, "keys -> 1 keys")
        index = (behind + self.max_distance).clamp(0, 2 * self.max_distance - 1)
        return Distances(rows=self.weight[None], index=index)


class RelativeSinusoids(nn.Module):
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
        return distances.pick((query * self.scale()) @ self.split(self.position_key(rows)).mT)

    def position_to_content(self, key: Tensor, rows: Tensor, distances: Distances) -> Tensor:
        """scale · k_j Q_δᵀ, for each key and the row of each query: (batch, heads, queries, keys)"""
        assert self.position_query is not None
        products = (key * self.scale()) @ self.split(self.position_query(rows)).mT
        turned = Distances(rows=distances.rows, index=distances.index.mT)
        return turned.pick(products).mT


class TransformerXLAttention(SelfAttention):
    """Queries meet contents and sinusoids of distances, beside two trained vectors (Dai et al. 2019, section 3.3).

        score(i, j) = scale · ((q_i + u) k_jᵀ + (q_i + v) (W R_(i-j))ᵀ + (q_i + s) e_ijᵀ)

    u is the content bias and v the position bias. The last term is XLNet's (Yang et al. 2019, section 2.5): e is one
    row for keys of the same segment and another for those of other ones, s a third bias.
    """

    def __init__(
        self, spec: schema.Spec, described: schema.TransformerXLPositions, *, path: Path
    ) -> None:
        super().__init__(spec, path=path)
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

    def score_bias(
        self, query: Tensor, key: Tensor, bias: Tensor | None, distances: Distances | None
    ) -> Tensor | None:
        """Query (batch, heads, queries, head_dim) -> (batch, heads, queries, keys)"""
        assert distances is not None
        bias = added(bias, self.of_positions(query, distances))
        if distances.apart is None:  # the same for all keys, which softmax does not see
            return bias
        return added(bias, self.of_segments(query, distances.apart))

    def of_positions(self, query: Tensor, distances: Distances) -> Tensor:
        """scale · (q_i + v) (W R_(i-j))ᵀ: (batch, heads, queries, keys)"""
        keys = self.split(self.position_key(distances.rows))
        return distances.pick((query + self.by_head(self.position_bias)) * self.scale() @ keys.mT)

    def of_segments(self, query: Tensor, apart: Tensor) -> Tensor:
        """scale · (q_i + s) e_ijᵀ, of which segments are apart (batch, queries, keys): (batch, heads, queries, keys)"""
        assert self.segments is not None
        assert self.segment_bias is not None
        rows = self.by_head(self.segments)
        products = (query + self.by_head(self.segment_bias)) * self.scale() @ rows.mT
        index = rearrange(apart, "batch i j -> batch 1 i j").expand(-1, products.shape[1], -1, -1)
        return products.gather(-1, index)

    def by_head(self, x: Tensor) -> Tensor:
        """(heads · head_dim) or (rows, heads · head_dim) -> (1, heads, 1 or rows, head_dim)"""
        return self.split(x.view(1, -1, x.shape[-1]))


def added(bias: Tensor | None, term: Tensor) -> Tensor:
    """The sum, the one that may be missing being zero."""
    return term if bias is None else bias + term


def self_attention(spec: schema.Spec, *, path: Path) -> SelfAttention:
    """The self-attention of a spec's layers."""
    match spec.architecture.positions:
        case schema.Disentangled() as described:
            return DisentangledAttention(spec, described, path=path)
        case schema.TransformerXLPositions() as described:
            return TransformerXLAttention(spec, described, path=path)
        case _:
            return SelfAttention(spec, path=path)


def relative_rows(spec: schema.Spec) -> RelativeRows | RelativeSinusoids | None:
    """What the layers of a stack share to be told of distances, if anything."""
    match spec.architecture.positions:
        case schema.Disentangled() as described:
            return RelativeRows(spec, described)
        case schema.TransformerXLPositions() as described:
            return RelativeSinusoids(spec, described)
        case _:
            return None
