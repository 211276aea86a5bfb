"""Scaling of RoPE to inputs longer than those trained on."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import msgspec

from holotype_spec.schema.mechanism import Mechanism, Probing
from holotype_spec.schema.values import Count, Positive

# Of a probe. With theta 500,000 the eight pairs of a wide head turn 6.4, 1.2, 0.24 … times within 40 positions: one is
# left alone, one lies between. Theta that grows does so within a short input, twice.
ORIGINAL_POSITIONS, GROWING_FROM = 40, 9


class RotaryScaling(Mechanism):
    """A scaling that treats all pairs alike, in inputs of every length."""

    wide_probe: ClassVar[bool] = False  # several pairs must turn before it shows
    grows: ClassVar[bool] = False  # with the length of the input

    def read_alike(self, *lengths: int) -> bool:
        """Whether inputs of these lengths turn their pairs at the same speeds."""
        return True


class NoScaling(RotaryScaling, tag="none", tag_field="kind"):
    """Every pair turns at the speed that theta gives it."""


class LinearScaling(RotaryScaling, tag="linear", tag_field="kind"):
    """Every pair turns `factor` times slower, as if positions were divided by it (Chen et al. 2023, section 3.2)."""

    factor: Positive


class Llama3Scaling(RotaryScaling, tag="llama3", tag_field="kind"):
    """Slow pairs turn `factor` times slower, fast ones as before (the LLaMA 3.1 release, apply_scaling).

    What counts is how often a pair turns within `original_max_positions`: more than `high_freq_factor` times
    is fast, less than `low_freq_factor` times slow, and between the two the speed goes over linearly.
    """

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_positions: Count

    wide_probe: ClassVar[bool] = True

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, original_max_positions=ORIGINAL_POSITIONS)


class YarnScaling(RotaryScaling, tag="yarn", tag_field="kind"):
    """Slow pairs turn `factor` times slower, fast ones as before (Peng et al. 2023b, section 3.2).

    A pair that turns more than `beta_fast` times within `original_max_positions` is fast, less than `beta_slow`
    times slow; between the two (by the pair's index, the bounds rounded outwards) the speed goes over linearly.
    With m(s) = 0.1 s ln(factor) + 1, cosines and sines are multiplied by m(`mscale`) / m(`mscale_all_dim`) and all
    scores by m(`mscale_all_dim`)² (section 3.3; the DeepSeek-V2 release, yarn_get_mscale and softmax_scale).
    """

    factor: Positive
    original_max_positions: Count
    beta_fast: Positive
    beta_slow: Positive
    mscale: Positive
    mscale_all_dim: Positive

    # As it is in a probe, too: there it scales two fast pairs, two between and a slow one.
    wide_probe: ClassVar[bool] = True


class DynamicScaling(RotaryScaling, tag="dynamic-ntk", tag_field="kind"):
    """Beyond `original_max_positions` theta grows with the input (bloc97 2023, NTK-aware scaled rotary positions).

    An input of n tokens gives a = 2^ceil(log2(n / original_max_positions) + 1) - 1, at least 1, and theta is
    multiplied by a^(d / (d - 2)), where d dimensions of a head turn (the Qwen release, get_ntk_alpha).
    """

    original_max_positions: Count

    wide_probe: ClassVar[bool] = True
    grows: ClassVar[bool] = True

    def read_alike(self, *lengths: int) -> bool:
        trained = self.original_max_positions
        return len({math.ceil(math.log2(max(each, trained) / trained)) for each in lengths}) == 1

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, original_max_positions=GROWING_FROM)


Scaling = NoScaling | LinearScaling | Llama3Scaling | YarnScaling | DynamicScaling
