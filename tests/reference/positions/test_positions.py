"""Rotary and bucketed positions, against values worked by hand and the formula as published."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from holotype_reference import oracle
from holotype_reference.positions.learned import LearnedPositions
from holotype_reference.positions.relative_bias import Alibi, RelativeBias, bucket_starts
from holotype_reference.positions.rope_scaling import scaled_frequencies
from holotype_reference.positions.rotary import Rotary
from holotype_reference.positions.sinusoidal import Sinusoidal
from holotype_spec import schema
from holotype_spec.schema import Llama3Scaling


def published_bucket(distance: int, buckets: int, max_distance: int, dtype: torch.dtype) -> int:
    """Raffel et al.'s formula for a distance that is not negative, its logarithm taken in `dtype`."""
    exact = buckets // 2
    if distance < exact:
        return distance
    ratio = torch.log(torch.tensor(distance, dtype=dtype) / exact) / math.log(max_distance / exact)
    return min(exact + int(ratio * (buckets - exact)), buckets - 1)


def table(buckets: int, max_distance: int, *, bidirectional: bool, heads: int = 1) -> RelativeBias:
    return RelativeBias(buckets, heads, max_distance=max_distance, bidirectional=bidirectional)


def test_starts_of_the_published_buckets_as_worked_by_hand() -> None:
    # A bidirectional stack has 16 buckets a side: 0 … 7 alone, then from 8 · 2^(k/2):
    # 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5.
    assert bucket_starts(16, 128) == (*range(1, 8), 8, 12, 16, 23, 32, 46, 64, 91)


def test_starts_of_small_buckets_as_worked_by_hand() -> None:
    # 4 · 3^(k/4): 4, 5.26, 6.93, 9.12.
    assert bucket_starts(8, 12) == (1, 2, 3, 4, 6, 7, 10)
    # 2 · 6^(k/2): 2, 4.90.
    assert bucket_starts(4, 12) == (1, 2, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("buckets", [16, 32])
def test_published_constants_give_the_same_buckets_in_any_precision(
    buckets: int, dtype: torch.dtype
) -> None:
    distances = torch.arange(1000)
    ours = table(buckets, 128, bidirectional=False).bucket(-distances).tolist()
    assert ours == [published_bucket(d, buckets, 128, dtype) for d in range(1000)]


def test_keys_behind_count_from_zero_and_keys_ahead_from_half() -> None:
    ahead = torch.tensor([-12, -2, -1, 0, 1, 2, 12])
    assert table(8, 12, bidirectional=True).bucket(ahead).tolist() == [3, 2, 1, 0, 5, 6, 7]


def test_causal_stack_uses_all_buckets_for_keys_behind() -> None:
    behind = torch.tensor([0, -1, -3, -4, -5, -6, -7, -9, -10, -400])
    buckets = table(8, 12, bidirectional=False).bucket(behind)
    assert buckets.tolist() == [0, 1, 3, 4, 4, 5, 6, 6, 7, 7]


def test_bias_of_a_pair_is_the_row_of_its_bucket_for_each_head() -> None:
    bias = table(8, 12, bidirectional=True, heads=2)
    bias.weight.data = torch.arange(16.0).view(8, 2)
    result = bias(torch.tensor([1, 2]), torch.tensor([0, 1, 2]))
    # buckets: query 1: [1, 0, 5], query 2: [2, 1, 0]; head h of bucket b holds 2 b + h.
    assert result.shape == (1, 2, 2, 3)
    assert result[0, 0].tolist() == [[2, 0, 10], [4, 2, 0]]
    assert result[0, 1].tolist() == [[3, 1, 11], [5, 3, 1]]


def test_learned_position_reads_the_row_beyond_the_offset() -> None:
    learned = LearnedPositions(3, 1, offset=2)
    learned.weight.data = torch.tensor([[0.0], [10.0], [20.0], [30.0], [40.0]])
    assert learned(torch.tensor([[0, 2]])).flatten().tolist() == [20.0, 40.0]


def turned(pairing: str, position: int, vector: list[float], theta: float = 100.0) -> list[float]:
    rotary = Rotary(len(vector), theta=theta, pairing=pairing)  # type: ignore[arg-type]  # from a table of strings
    x = torch.tensor(vector, dtype=torch.float64).view(1, 1, 1, -1)
    turns = rotary.turns(torch.tensor([[position]]), torch.float64)
    result: list[float] = rotary.rotate(x, turns).flatten().tolist()
    return result


def test_rotation_turns_each_pair_by_position_times_its_frequency() -> None:
    # theta 100 and 4 dimensions: θ_0 = 1, θ_1 = 100^(-2/4) = 0.1. At position 3 unit vectors turn by 3 and 0.3.
    c, s, c1, s1 = math.cos(3), math.sin(3), math.cos(0.3), math.sin(0.3)
    assert turned("interleaved", 3, [1, 0, 0, 0]) == pytest.approx([c, s, 0, 0])
    assert turned("interleaved", 3, [0, 0, 0, 1]) == pytest.approx([0, 0, -s1, c1])
    assert turned("half-split", 3, [1, 0, 0, 0]) == pytest.approx([c, 0, s, 0])
    assert turned("half-split", 3, [0, 0, 0, 1]) == pytest.approx([0, -s1, 0, c1])


# Press et al. 2021, section 3: of 8 heads 1/2 … 1/256, of 16 the square roots of these between them. Their release on
# other numbers: those of the power of two below, then every other one of the power above.
EIGHT = [2.0**-i for i in range(1, 9)]


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (8, EIGHT),
        (16, [2.0 ** (-i / 2) for i in range(1, 17)]),
        (11, [*EIGHT, 2.0**-0.5, 2.0**-1.5, 2.0**-2.5]),
        (3, [2.0**-4, 2.0**-8, 2.0**-2]),
    ],
)
def test_alibi_has_the_slopes_of_the_paper_and_of_its_release(
    heads: int, slopes: list[float]
) -> None:
    assert Alibi(heads).slopes() == pytest.approx(slopes, rel=1e-15)
    assert oracle.alibi_slopes(heads) == pytest.approx(slopes, rel=1e-14)


def test_alibi_lowers_a_score_by_its_slope_for_each_token_between() -> None:
    bias = Alibi(2)(torch.tensor([2, 3]), torch.tensor([0, 1, 2, 3]))
    assert bias.shape == (1, 2, 2, 4)
    # Two heads: 2^-4 and 2^-8.
    assert bias[0, 0, 1].tolist() == [-3 / 16, -2 / 16, -1 / 16, 0]
    assert bias[0, 1, 0, :3].tolist() == [-2 / 256, -1 / 256, 0]


def test_dimensions_beyond_those_that_turn_stay_as_they_are() -> None:
    rotary = Rotary(2, theta=100.0, pairing="interleaved")
    x = torch.tensor([1.0, 0.0, 5.0, -7.0], dtype=torch.float64).view(1, 1, 1, 4)
    turned = rotary.rotate(x, rotary.turns(torch.tensor([[3]]), torch.float64)).flatten().tolist()
    assert turned == pytest.approx([math.cos(3), math.sin(3), 5.0, -7.0])


@pytest.mark.parametrize("pairing", ["interleaved", "half-split"])
def test_position_zero_turns_nothing(pairing: str) -> None:
    assert turned(pairing, 0, [1.0, -2.0, 3.0, 4.0]) == [1.0, -2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("model", "tables"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_angles_have_at_least_single_precision_and_that_of_a_double_model(
    model: torch.dtype, tables: torch.dtype
) -> None:
    rotary = Rotary(4, theta=100.0, pairing="half-split")
    turns = rotary.turns(torch.tensor([[0, 1]]), model)
    assert turns.cos.dtype == tables
    assert rotary.rotate(torch.ones(1, 1, 2, 4, dtype=model), turns).dtype == model


# Within 8 positions a pair that turns by 2 pi / w a position turns 8 / w times. Factor 10, slow below 1, fast above 2.
SCALING = Llama3Scaling(
    factor=10.0, low_freq_factor=1.0, high_freq_factor=2.0, original_max_positions=8
)


@pytest.mark.parametrize(
    ("wavelength", "kept"),
    [
        (2.0, 1.0),  # 4 times: fast, as before
        (4.0, 1.0),  # 2 times: the edge
        (5.0, 0.6 + 0.4 / 10),  # 1.6 times: 0.6 of the way from slow to fast
        (8.0, 0.1),  # once: the edge
        (80.0, 0.1),  # 0.1 times: slow
    ],
)
def test_scaling_divides_the_frequency_of_slow_pairs_and_leaves_that_of_fast_ones(
    wavelength: float, kept: float
) -> None:
    frequency = torch.tensor([2 * math.pi / wavelength], dtype=torch.float64)
    scaled = scaled_frequencies(frequency, SCALING)
    assert scaled.item() == pytest.approx(kept * frequency.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("layout", "offset", "expected"),
    [
        # Of width 4 the pairs turn by 1 and by 100^(-2/4) = 0.1 a position.
        ("interleaved", 0, [math.sin(3), math.cos(3), math.sin(0.3), math.cos(0.3)]),
        ("halves", 0, [math.sin(3), math.sin(0.3), math.cos(3), math.cos(0.3)]),
        ("halves", 2, [math.sin(5), math.sin(0.5), math.cos(5), math.cos(0.5)]),
    ],
)
def test_sinusoids_of_position_three_are_those_worked_by_hand(
    layout: Literal["interleaved", "halves"], offset: int, expected: list[float]
) -> None:
    described = schema.Sinusoidal(theta=100.0, layout=layout, offset=offset)
    positions = torch.tensor([[0, 3]])
    found = Sinusoidal(4, described)(positions)[0, 1]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    table = oracle.positions.sinusoids(described, positions.numpy(), 4)
    torch.testing.assert_close(torch.from_numpy(table)[0, 1], found)
