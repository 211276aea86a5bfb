"""How a model knows the order of its tokens: one class for each mechanism.

Learned positions are rows added to the embeddings (see `holotype_reference.embeddings`); rotary positions turn queries
and keys; relative buckets add a bias to the scores.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, log, tau
from typing import Literal

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from holotype_reference.linear import Table
from holotype_reference.masks import Prefix
from holotype_reference.normalization import compute_dtype
from holotype_spec import schema


class LearnedPositions(Table):
    """A trained row for each position (Radford et al. 2018, section 3.1): position p reads row p + offset."""

    def __init__(self, positions: int, size: int, *, offset: int) -> None:
        super().__init__(positions + offset, size)
        self.offset = offset

    def forward(self, positions: Tensor) -> Tensor:
        """positions: (batch or 1, length) -> (batch or 1, length, hidden_size)"""
        return super().forward(positions + self.offset)


class Sinusoidal(nn.Module):
    """Sines and cosines of the position, added like learned rows but computed (Vaswani et al. 2017, section 3.5).

    Of d numbers pair i turns by theta^(-2i / d) a position: PE(p, 2i) = sin, PE(p, 2i + 1) = cos. The layout
    "halves" has all sines first. The angles are computed in float64, since positions go far.
    """

    def __init__(self, size: int, described: schema.Sinusoidal) -> None:
        super().__init__()
        self.size = size
        self.theta = described.theta
        self.layout = described.layout
        self.offset = described.offset

    def forward(self, positions: Tensor) -> Tensor:
        """positions: (batch or 1, length) -> (batch or 1, length, size), in float64"""
        wide = (positions + self.offset).to(torch.float64)
        pairs = torch.arange(0, self.size, 2, dtype=torch.float64, device=positions.device)
        frequencies = torch.pow(self.theta, -pairs / self.size)
        angles = einsum(wide, frequencies, "batch length, pair -> batch length pair")
        both = [angles.sin(), angles.cos()]
        match self.layout:
            case "interleaved":
                return rearrange(both, "two batch length pair -> batch length (pair two)")
            case "halves":
                return rearrange(both, "two batch length pair -> batch length (two pair)")


def has_two_positions(spec: schema.Spec) -> bool:
    """Whether a token has a place in the text and one within its span."""
    two = schema.TwoDimensionalPositions | schema.TwoDimensionalRotary
    return isinstance(spec.architecture.positions, two)


def spans(cached: int, length: int, prefix: Prefix | None, device: torch.device) -> Tensor:
    """(batch or 1, 2, length): the two places of the tokens behind `cached` others (Du et al. 2021, section 2.2).

    The prefix is a text whose last token is the mask of the only span, and the span follows. A token of the text has
    its own place and 0; the tokens of the span all have the place of the mask, and 1, 2, 3, … (figure 2; the ChatGLM-6B
    release, get_position_ids). Without a prefix there is no mask: all is text. Texts with several spans have their
    positions given.
    """
    lengths = (prefix or 0,) if not isinstance(prefix, tuple) else prefix
    p = rearrange(torch.tensor(lengths, device=device), "batch -> batch 1")
    place = rearrange(torch.arange(cached, cached + length, device=device), "length -> 1 length")
    in_span = (place >= p) & (p > 0)
    first = torch.where(in_span, p - 1, place)
    second = torch.where(in_span, place - p + 1, 0)
    return rearrange([first, second], "two batch length -> batch two length")


@dataclass(frozen=True, kw_only=True)
class Turns:
    """The angles by which each position turns each pair of dimensions, as cosines and sines.

    Both are (batch or 1, 1, length, rotary_dim / 2), the axis of 1 for the heads.
    """

    cos: Tensor
    sin: Tensor


class Rotary(nn.Module):
    """Pairs of dimensions of queries and keys turn by angles proportional to the position (Su et al. 2021, 3.2).

    At position m pair i turns by m θ_i with θ_i = theta^(-2i / rotary_dim) (their equation 15), so that the product of
    a query at m with a key at n depends on m - n only. It has no parameters.

    The first rotary_dim dimensions of a head turn; the others, if there are any, stay as they are (Wang & Komatsuzaki
    2021, the GPT-J release).
    """

    def __init__(
        self,
        rotary_dim: int,
        *,
        theta: float,
        pairing: Literal["half-split", "interleaved"],
        scaling: schema.Scaling,
    ) -> None:
        super().__init__()
        self.rotary_dim = rotary_dim
        self.theta = theta
        self.pairing = pairing
        self.scaling = scaling

    def frequencies(self, like: Tensor) -> Tensor:
        """By how much each pair turns a position: (rotary_dim / 2), in the dtype and on the device of `like`."""
        match self.scaling:
            case schema.NoScaling() | schema.DynamicScaling():  # see `slowed` for the latter
                return self.unscaled(like)
            case schema.LinearScaling(factor=factor):
                return self.unscaled(like) / factor
            case schema.Llama3Scaling() as scaling:
                return scaled_frequencies(self.unscaled(like), scaling)
            case schema.YarnScaling(factor=factor) as scaling:
                slow = self.ramp(scaling).to(like)
                return self.unscaled(like) * (1 - slow + slow / factor)
            case other:
                raise ValueError(f"the reference has no formula for {other!r}")

    def ramp(self, scaling: schema.YarnScaling) -> Tensor:
        """How slow each pair is, from 0 for fast ones to 1, by its index (Peng et al. 2023b, section 3.2, who say it
        by wavelength; the DeepSeek-V2 release, yarn_find_correction_range and yarn_linear_ramp_mask). (d / 2)"""
        low, high = self.bounds(scaling)
        pairs = torch.arange(self.rotary_dim // 2, dtype=torch.float64)
        # Where both bounds are one pair it is fast, and the next one slow.
        return ((pairs - low) / (high - low or 0.001)).clamp(0, 1)

    def bounds(self, scaling: schema.YarnScaling) -> tuple[int, int]:
        """The last fast pair and the first slow one, rounded outwards: those that turn `beta_fast` and `beta_slow`
        times within the original length."""
        low, high = (self.turning(n, scaling) for n in (scaling.beta_fast, scaling.beta_slow))
        return max(floor(low), 0), min(ceil(high), self.rotary_dim - 1)

    def turning(self, times: float, scaling: schema.YarnScaling) -> float:
        """The index i, not whole, of the pair that turns so often: 2π · times = original length · theta^(-2i / d)."""
        wavelength = scaling.original_max_positions / (tau * times)
        return self.rotary_dim * log(wavelength) / (2 * log(self.theta))

    @property
    def amplitude(self) -> float:
        """What cosines and sines are multiplied by (Peng et al. 2023b, section 3.3)."""
        if not isinstance(self.scaling, schema.YarnScaling):
            return 1.0
        return yarn_factor(self.scaling, self.scaling.mscale) / yarn_factor(
            self.scaling, self.scaling.mscale_all_dim
        )

    def unscaled(self, like: Tensor) -> Tensor:
        """θ_i for each pair: (rotary_dim / 2), in the dtype and on the device of `like`."""
        pairs = torch.arange(0, self.rotary_dim, 2, dtype=like.dtype, device=like.device)
        return torch.pow(self.theta, -pairs / self.rotary_dim)

    @property
    def grows(self) -> bool:
        """Whether theta depends on how many tokens are read together."""
        return isinstance(self.scaling, schema.DynamicScaling)

    def growth(self, context: Tensor) -> Tensor:
        """a = 2^ceil(log2(n / original_max_positions) + 1) - 1, at least 1, for each n of `context`: 1, 3, 7, …

        (The Qwen release, get_ntk_alpha.) The logarithm is taken by counting, which does not round: a new a begins
        beyond each original_max_positions · 2^k.
        """
        assert isinstance(self.scaling, schema.DynamicScaling)
        edges = [self.scaling.original_max_positions << k for k in range(32)]
        doublings = torch.bucketize(context, torch.tensor(edges, device=context.device))
        return 2 ** (doublings + 1) - 1

    def slowed(self, context: Tensor, like: Tensor) -> Tensor:
        """What frequencies are multiplied by as theta grows to theta · a^(d / (d - 2)), where d dimensions turn: pair i
        by a^(-2i / (d - 2)). (batch or 1, length or 1) -> (batch or 1, length or 1, d / 2), as `like`."""
        pairs = torch.arange(0, self.rotary_dim, 2, dtype=like.dtype, device=like.device)
        return torch.pow(self.growth(context).to(like)[..., None], -pairs / (self.rotary_dim - 2))

    def turns(self, positions: Tensor, dtype: torch.dtype, context: Tensor | None = None) -> Turns:
        """positions: (batch or 1, length); context: (batch or 1, length or 1), how many tokens are read together,
        where theta grows with them. The angles are computed in at least float32."""
        wide = positions.to(compute_dtype(dtype))
        angles = einsum(wide, self.frequencies(wide), "batch length, pair -> batch length pair")
        if context is not None:
            angles = angles * self.slowed(context, wide)
        angles = rearrange(angles, "batch length pair -> batch 1 length pair")
        return Turns(cos=angles.cos() * self.amplitude, sin=angles.sin() * self.amplitude)

    def rotate(self, x: Tensor, turns: Turns) -> Tensor:
        """(batch, heads, length, head_dim) -> the same: each pair (a, b) turned (their equation 34).

        As in the LLaMA release the product is taken in at least float32 and cast back.
        """
        turning, still = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        a, b = self.pairs(turning.to(turns.cos.dtype))
        turned = self.unpair(a * turns.cos - b * turns.sin, a * turns.sin + b * turns.cos)
        turned = turned.to(x.dtype)
        return torch.cat((turned, still), dim=-1) if still.shape[-1] else turned

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, heads, length, rotary_dim) -> the first and the second of each pair, (…, rotary_dim / 2) each."""
        match self.pairing:
            case "half-split":
                a, b = rearrange(
                    x, "batch heads length (two pair) -> two batch heads length pair", two=2
                )
            case "interleaved":
                a, b = rearrange(
                    x, "batch heads length (pair two) -> two batch heads length pair", two=2
                )
        return a, b

    def unpair(self, a: Tensor, b: Tensor) -> Tensor:
        """The inverse of `pairs`."""
        match self.pairing:
            case "half-split":
                return rearrange(
                    [a, b], "two batch heads length pair -> batch heads length (two pair)"
                )
            case "interleaved":
                return rearrange(
                    [a, b], "two batch heads length pair -> batch heads length (pair two)"
                )


class TwoDimensionalRotary(Rotary):
    """The first half of a head turns by a token's first position, the second by its other one.

    Each half is a rotation of its own, of d / 2 dimensions in pairs (i, i + d / 4) (the ChatGLM-6B release,
    position_encoding_2d).
    """

    def __init__(self, head_dim: int, *, theta: float) -> None:
        super().__init__(head_dim, theta=theta, pairing="half-split", scaling=schema.NoScaling())

    def unscaled(self, like: Tensor) -> Tensor:
        """θ_i for each pair of one half: (rotary_dim / 4)"""
        half = self.rotary_dim // 2
        pairs = torch.arange(0, half, 2, dtype=like.dtype, device=like.device)
        return torch.pow(self.theta, -pairs / half)

    def turns(self, positions: Tensor, dtype: torch.dtype, context: Tensor | None = None) -> Turns:
        """positions: (batch or 1, 2, length)"""
        wide = positions.to(compute_dtype(dtype))
        frequencies = self.frequencies(wide)
        angles = einsum(wide, frequencies, "batch half length, pair -> batch length half pair")
        angles = rearrange(angles, "batch length half pair -> batch 1 length (half pair)")
        return Turns(cos=angles.cos(), sin=angles.sin())

    def pairs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs of the first half, then those of the second."""
        a, b = rearrange(
            x,
            "batch heads length (half two pair) -> two batch heads length (half pair)",
            half=2,
            two=2,
        )
        return a, b

    def unpair(self, a: Tensor, b: Tensor) -> Tensor:
        """The inverse of `pairs`."""
        return rearrange(
            [a, b],
            "two batch heads length (half pair) -> batch heads length (half two pair)",
            half=2,
        )


def scaled_frequencies(frequencies: Tensor, scaling: schema.Llama3Scaling) -> Tensor:
    """Slow pairs slowed down for inputs longer than those trained on: (pairs) -> (pairs).

    A pair that turns n times within the original length keeps the share s = (n - low) / (high - low), between 0 and 1,
    of its frequency, and 1 - s of it is divided by the factor (the LLaMA 3.1 release, apply_scaling).
    """
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = frequencies * (scaling.original_max_positions / tau)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling.factor


def yarn_factor(scaling: schema.YarnScaling, slope: float) -> float:
    """m(s) = 0.1 s ln(factor) + 1 (Peng et al. 2023b, equation 22; the DeepSeek-V2 release, yarn_get_mscale)."""
    return 0.1 * slope * log(max(scaling.factor, 1.0)) + 1


def score_factor(spec: schema.Spec) -> float:
    """What all scores are multiplied by beside their scale: under YaRN m(mscale_all_dim)² (the DeepSeek-V2 release)."""
    match spec.architecture.positions:
        case schema.Rotary(scaling=schema.YarnScaling(mscale_all_dim=slope) as scaling):
            return yarn_factor(scaling, slope) ** 2
        case _:
            return 1.0


class RelativeBias(nn.Module):
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
        """How far each key is ahead of its query (negative: behind it) -> the index of its bucket."""
        if self.bidirectional:
            half = self.buckets // 2
            return self.count_starts(ahead.abs(), half) + half * (ahead > 0)
        return self.count_starts((-ahead).clamp(min=0), self.buckets)

    def count_starts(self, distance: Tensor, buckets: int) -> Tensor:
        """The index of a distance's bucket is the number of buckets, after bucket 0, that start at or below it."""
        starts = torch.tensor(bucket_starts(buckets, self.max_distance), device=distance.device)
        return torch.bucketize(distance, starts, right=True)


class Alibi(nn.Module):
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


def rotary(spec: schema.Spec) -> Rotary | None:
    """The rotation of a spec, if it has one."""
    match spec.architecture.positions:
        case schema.Rotary(theta=theta, pairing=pairing, scaling=scaling):
            return Rotary(spec.rotary_dim, theta=theta, pairing=pairing, scaling=scaling)
        case schema.TwoDimensionalRotary(theta=theta):
            return TwoDimensionalRotary(spec.head_dim, theta=theta)
        case _:
            return None


def relative_bias(spec: schema.Spec, pattern: schema.Pattern) -> RelativeBias | Alibi | None:
    """What one stack adds to its scores for each distance, if anything."""
    match spec.architecture.positions:
        case schema.Alibi():
            return Alibi(spec.heads)
        case schema.RelativeBuckets(buckets=buckets, max_distance=max_distance):
            return RelativeBias(
                buckets,
                spec.heads,
                max_distance=max_distance,
                bidirectional=isinstance(pattern, schema.Bidirectional),
            )
        case _:
            return None
