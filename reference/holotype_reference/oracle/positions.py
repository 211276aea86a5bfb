"""Positions: sinusoids, rotations, slopes and buckets."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from holotype_reference.oracle.basics import Array, Ids, Stream
from holotype_spec.schema import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    RelativeBuckets,
    Rotary,
    Sinusoidal,
    TwoDimensionalRotary,
    YarnScaling,
)


def sinusoids(described: Sinusoidal, positions: Ids, d: int) -> Array:
    """PE(p, 2i) = sin(p theta^(-2i/d)), PE(p, 2i + 1) = cos of the same (Vaswani et al. 2017, section 3.5)."""
    table = np.zeros((*positions.shape, d))
    for i in range(d // 2):
        angle = (positions + described.offset) * described.theta ** (-2 * i / d)
        sine, cosine = (2 * i, 2 * i + 1) if described.layout == "interleaved" else (i, i + d // 2)
        table[..., sine], table[..., cosine] = np.sin(angle), np.cos(angle)
    return table


def rotate(rotary: Rotary | TwoDimensionalRotary, x: Array, stream: Stream) -> Array:
    """Turn pair i of each vector by the angle m theta^(-2 i / d) (Su et al. 2021, equation 34).

    x is (batch, length, head_dim), m its positions, d how many of its dimensions turn: the first ones.
    """
    if isinstance(rotary, TwoDimensionalRotary):
        return _rotate_halves(rotary, x, stream.positions)
    pairs = np.arange(round(x.shape[-1] * rotary.fraction) // 2)
    rows = [_frequencies(rotary, 2 * len(pairs), int(real.sum())) for real in stream.real]
    angles = stream.positions[..., None] * np.array(rows)[:, None, :]
    half_split = rotary.pairing == "half-split"
    first = pairs if half_split else 2 * pairs
    second = pairs + len(pairs) if half_split else 2 * pairs + 1
    a, b = x[..., first], x[..., second]
    rotated = x.copy()
    size = 1.0
    if isinstance(rotary.scaling, YarnScaling):  # of all cosines and sines
        size = mscale(rotary.scaling, rotary.scaling.mscale)
        size /= mscale(rotary.scaling, rotary.scaling.mscale_all_dim)
    rotated[..., first] = size * (a * np.cos(angles) - b * np.sin(angles))
    rotated[..., second] = size * (a * np.sin(angles) + b * np.cos(angles))
    return rotated


def _rotate_halves(rotary: TwoDimensionalRotary, x: Array, positions: Ids) -> Array:
    """Each half of a head turns by a position of its own, (batch, 2, length) (the ChatGLM-6B release, SelfAttention).

    A pair is a complex number, its real parts the first quarter of the head, and turning it is a product (Su et al.
    2021, equation 12).
    """
    quarter = x.shape[-1] // 4
    turned = []
    for half, places in zip(
        np.split(x, 2, axis=-1), (positions[:, 0], positions[:, 1]), strict=True
    ):
        frequencies = rotary.theta ** (-np.arange(quarter) / quarter)
        spin = np.exp(1j * places[..., None] * frequencies)
        whole = (half[..., :quarter] + 1j * half[..., quarter:]) * spin
        turned += [whole.real, whole.imag]
    return np.concatenate(turned, axis=-1)


def _frequencies(rotary: Rotary, d: int, tokens: int) -> list[float]:
    """The angle by which each pair turns from one position to the next, slow pairs slowed down where the spec says so.

    The three cases by wavelength are those of the LLaMA 3.1 release (apply_scaling).
    """
    scaling, theta = rotary.scaling, rotary.theta
    if isinstance(scaling, DynamicScaling):
        theta = theta * ntk_alpha(tokens, scaling.original_max_positions) ** (d / (d - 2))
    frequencies = [theta ** (-2 * i / d) for i in range(d // 2)]
    if isinstance(scaling, LinearScaling):  # a position counts for as many fewer
        frequencies = [frequency * (1 / scaling.factor) for frequency in frequencies]
    if isinstance(scaling, Llama3Scaling):
        longest = scaling.original_max_positions / scaling.low_freq_factor
        shortest = scaling.original_max_positions / scaling.high_freq_factor
        for i, frequency in enumerate(frequencies):
            wavelength = 2 * math.pi / frequency
            if wavelength > longest:
                frequencies[i] = frequency / scaling.factor
            elif wavelength >= shortest:
                smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
                    scaling.high_freq_factor - scaling.low_freq_factor
                )
                frequencies[i] = (1 - smooth) * frequency / scaling.factor + smooth * frequency
    if isinstance(scaling, YarnScaling):
        frequencies = _yarn(frequencies, scaling, theta, d)
    return frequencies


def _yarn(frequencies: list[float], scaling: YarnScaling, theta: float, d: int) -> list[float]:
    """Fast pairs stay, slow ones are interpolated (Peng et al. 2023b, section 3.2); between by the index of the pair.

    Pair i turns θ_i L / 2π times within L positions, so that i = d ln(L / 2πn) / (2 ln theta) turns n times; the
    DeepSeek-V2 release rounds the two ends outwards (yarn_find_correction_range).
    """

    def index(times: float) -> float:
        length = scaling.original_max_positions
        return d * math.log(length / (2 * math.pi * times)) / (2 * math.log(theta))

    last_fast = max(math.floor(index(scaling.beta_fast)), 0)
    first_slow = min(math.ceil(index(scaling.beta_slow)), d - 1)
    if first_slow == last_fast:
        first_slow = last_fast + 1
    slow = [
        min(max((i - last_fast) / (first_slow - last_fast), 0), 1) for i in range(len(frequencies))
    ]
    return [f * (1 - s) + f / scaling.factor * s for f, s in zip(frequencies, slow, strict=True)]


def mscale(scaling: YarnScaling, slope: float) -> float:
    """0.1 s ln(factor) + 1 (Peng et al. 2023b, section 3.3; the DeepSeek-V2 release, yarn_get_mscale)."""
    return 0.1 * slope * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0


def ntk_alpha(tokens: int, trained: int) -> int:
    """By how much the base grows for an input of so many tokens (the Qwen release, get_ntk_alpha)."""
    if tokens <= trained:
        return 1
    return int(2 ** math.ceil(math.log2(tokens / trained) + 1) - 1)


def log_length(positions: Ids, trained: int) -> Array:
    """log_trained(m + 1), at least 1, for a query at position m (Su 2021, kexue.fm 8823; the Qwen release)."""
    return np.array([[max(1.0, math.log(m + 1, trained)) for m in row] for row in positions])


def alibi_slopes(heads: int) -> list[float]:
    """By how much each head's scores fall from one key to the one before it (Press et al. 2021, section 3).

    For a power of two the slopes are a geometric sequence that starts at its own ratio and ends at 2^-8. Other
    numbers the paper leaves to its release (get_slopes): the sequence of the power below, then the first, third,
    fifth … slope of the power above.
    """
    power = 2 ** math.floor(math.log2(heads))
    ratio = 2 ** (-8 / power)
    slopes = [ratio**i for i in range(1, power + 1)]
    above = [math.sqrt(ratio) ** i for i in range(1, 2 * power + 1)]
    return slopes + above[::2][: heads - power]


def relative_buckets(positions: RelativeBuckets, distance: Ids, bidirectional: bool) -> Ids:
    """The bucket of every distance, key position minus query position."""
    farthest = int(np.abs(distance).max())
    table = [
        bucket(d, positions.buckets, positions.max_distance, bidirectional)
        for d in range(-farthest, farthest + 1)
    ]
    return np.array(table, dtype=np.int64)[distance + farthest]


@lru_cache(maxsize=4096)
def bucket(distance: int, buckets: int, max_distance: int, bidirectional: bool) -> int:
    """The bucket of one distance (Raffel et al. 2019, section 2.1, and the released code).

    The paper says that buckets widen with the logarithm of the distance; only the code says how.
    Half of the buckets hold one distance each, the others distances up to `max_distance` evenly on
    a logarithmic scale; the last one holds all beyond. An encoder keeps half of all buckets for
    keys after the query; a decoder, which never sees those, puts them with distance 0.

    The released code takes the logarithm in float32 and we take it in float64. A test checks that
    both give the same bucket for every distance, with the published (32, 128) as with the (8, 12)
    of probes.

    Args:
        distance: position of the key minus position of the query.
        buckets: how many there are in all.
        max_distance: where the last bucket starts at the latest.
        bidirectional: whether keys after the query have buckets of their own.
    """
    offset, n = 0, max(-distance, 0)
    if bidirectional:
        buckets //= 2
        offset, n = (buckets if distance > 0 else 0), abs(distance)
    exact = buckets // 2
    if n < exact:
        return offset + n
    growth = math.log(n / exact) / math.log(max_distance / exact)
    return offset + min(exact + int(growth * (buckets - exact)), buckets - 1)
