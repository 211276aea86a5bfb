"""Biases of the scores that depend on the distance alone: trained buckets, and ALiBi."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from holotype_reference.attention import Positioning, Positions
from holotype_reference.inputs import Call
from holotype_spec import schema


@dataclass(frozen=True, kw_only=True)
class Biased(Positioning):
    """Scores with something added, the same for all layers.

    Attributes:
        added: (1, heads, queries, keys).
    """

    added: Tensor

    def bias(self, query: Tensor, key: Tensor) -> Tensor:
        return self.added


class DistanceBias(Positions):
    """A bias of each score for the distance of its query and its key. Padding counts as tokens do."""

    name = "relative_bias"

    def at(self, x: Tensor, inputs: Call) -> Positioning:
        keys = torch.arange(inputs.cached + x.shape[1], device=x.device)
        bias: Tensor = self(keys[inputs.cached :], keys)
        return Biased(added=bias.to(x.dtype))


class RelativeBias(DistanceBias):
    """A trained bias for each head and each bucket of distance, added to the scores (Raffel et al. 2019, section 2.1).

    A stack has one, shared by the self-attention of all its layers. Near distances have a bucket each, those up to
    `max_distance` share buckets that widen logarithmically, and everything beyond shares the last one. A bidirectional
    stack gives half of its buckets to keys after the query; elsewhere these never count and all buckets look back.
    """

    def __init__(self, buckets: int, heads: int, *, max_distance: int, bidirectional: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(buckets, heads))
        self.buckets = buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions of queries (queries) and keys (keys) -> bias (1, heads, queries, keys)."""
        ahead = rearrange(keys, "keys -> 1 keys") - rearrange(queries, "queries -> queries 1")
        bias = F.embedding(self.bucket(ahead), self.weight)
        return rearrange(bias, "queries keys heads -> 1 heads queries keys")

    def bucket(self, ahead: Tensor) -> Tensor:
        """The distance of each key ahead of its query (negative: behind it) -> the index of its bucket."""
        if self.bidirectional:
            half = self.buckets // 2
            return self.count_starts(ahead.abs(), half) + half * (ahead > 0)
        return self.count_starts((-ahead).clamp(min=0), self.buckets)

    def count_starts(self, distance: Tensor, buckets: int) -> Tensor:
        """The index of a distance's bucket is the number of buckets, after bucket 0, that start at or below it."""
        starts = torch.tensor(bucket_starts(buckets, self.max_distance), device=distance.device)
        return torch.bucketize(distance, starts, right=True)


class Alibi(DistanceBias):
    """Each score is lowered by the distance times the slope of its head (Press et al. 2021, section 3).

    It has no parameters. Distances count tokens, padding too, as those of relative biases do.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions of queries (queries) and keys (keys) -> bias (1, heads, queries, keys), in float64."""
        behind = rearrange(queries, "queries -> queries 1") - rearrange(keys, "keys -> 1 keys")
        slopes = torch.tensor(self.slopes(), dtype=torch.float64, device=keys.device)
        return -einsum(slopes, behind.double(), "heads, queries keys -> heads queries keys")[None]

    def slopes(self) -> list[float]:
        """Of n = 2^k heads 2^(-8/n), 2^(-16/n), …; of others those of as many as fit, and every other one of twice
        as many (the authors' release, get_slopes)."""
        n = 2 ** (self.heads.bit_length() - 1)
        between = range(1, 2 * (self.heads - n), 2)
        return [2 ** (-8 * i / n) for i in range(1, n + 1)] + [2 ** (-4 * i / n) for i in between]


@cache
def bucket_starts(buckets: int, max_distance: int) -> tuple[int, ...]:
    """The first distance of each bucket but bucket 0 (which starts at distance 0).

    The first half of the buckets, e of them, holds one distance each; distance d ≥ e has the bucket
    e + floor(log(d / e) / log(max_distance / e) · (buckets - e)), at most buckets - 1 (the T5 release,
    mesh_tensorflow/transformer/transformer_layers.py, _relative_position_bucket).

    The published code takes these logarithms in float32, where rounding decides to which side a distance on the edge
    between two buckets falls. We decide it exactly, in whole numbers: bucket e + k starts at the smallest d with
    (d / e)^(buckets - e) ≥ (max_distance / e)^k. For the published constants both agree at every distance (tested).
    """
    exact = buckets // 2
    wide = buckets - exact

    def start(k: int) -> int:
        def reached(distance: int) -> bool:
            return bool(distance**wide * exact**k >= exact**wide * max_distance**k)

        return exact + bisect_left(range(exact, max_distance + 1), True, key=reached)

    return (*range(1, exact), *(start(k) for k in range(wide)))


def relative_bias(
    described: schema.RelativeBuckets, heads: int, pattern: schema.Pattern
) -> RelativeBias:
    """The biases of a stack whose layers see by this pattern."""
    return RelativeBias(
        described.buckets,
        heads,
        max_distance=described.max_distance,
        bidirectional=pattern.both_ways,
    )
