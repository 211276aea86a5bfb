"""Rotary positions for inputs longer than those trained on: how frequencies are scaled, and theta grows."""

from __future__ import annotations

from math import ceil, floor, log, tau

import torch
from einops import einsum, rearrange
from torch import Tensor

from holotype_reference.attention import Positioning
from holotype_reference.basics import compute_dtype
from holotype_reference.inputs import Call
from holotype_reference.masks import Documents
from holotype_reference.positions.rotary import Rotary, Rotated, Turns
from holotype_spec import schema


class ScaledRotary(Rotary):
    """Rotary positions whose frequencies are scaled, each pair by its own share, or all as the input grows."""

    def __init__(self, rotary_dim: int, rotary: schema.Rotary) -> None:
        super().__init__(rotary_dim, theta=rotary.theta, pairing=rotary.pairing)
        self.scaling = rotary.scaling

    def at(self, x: Tensor, inputs: Call) -> Positioning:
        assert inputs.position_ids is not None
        context = self.context(x, inputs)
        return Rotated(rotary=self, turns=self.turns(inputs.position_ids, x.dtype, context))

    def context(self, x: Tensor, inputs: Call) -> Tensor | None:
        """Real tokens that each token is read together with, (batch, length or 1), if theta grows with their number.

        The first call with a cache decides for all later ones.
        """
        cache = inputs.cache
        if not self.grows:
            return None
        if cache is not None and cache.context is not None:
            return cache.context
        found = real_tokens(x, inputs.padding, inputs.documents)
        if cache is not None:
            cache.context = found
        return found

    def scaled(self, frequencies: Tensor) -> Tensor:
        """By how much each pair turns a position, (rotary_dim / 2), of what it does without scaling."""
        match self.scaling:
            case schema.DynamicScaling() | schema.NoScaling():  # see `slowed` for the former
                return frequencies
            case schema.LinearScaling(factor=factor):
                return frequencies / factor
            case schema.Llama3Scaling() as scaling:
                return scaled_frequencies(frequencies, scaling)
            case schema.YarnScaling(factor=factor) as scaling:
                slow = self.ramp(scaling).to(frequencies)
                return frequencies * (1 - slow + slow / factor)
            case other:
                raise ValueError(f"the reference has no formula for {other!r}")

    def ramp(self, scaling: schema.YarnScaling) -> Tensor:
        """The slowness of each pair, from 0 for fast ones to 1, by its index (Peng et al. 2023b, section 3.2, who say
        it by wavelength; the DeepSeek-V2 release, yarn_find_correction_range and yarn_linear_ramp_mask). (d / 2)"""
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
        """The factor of cosines and sines (Peng et al. 2023b, section 3.3)."""
        if not isinstance(self.scaling, schema.YarnScaling):
            return 1.0
        return yarn_factor(self.scaling, self.scaling.mscale) / yarn_factor(
            self.scaling, self.scaling.mscale_all_dim
        )

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
        """The factor of frequencies as theta grows to theta · a^(d / (d - 2)), where d dimensions turn: pair i
        by a^(-2i / (d - 2)). (batch or 1, length or 1) -> (batch or 1, length or 1, d / 2), as `like`."""
        pairs = torch.arange(0, self.rotary_dim, 2, dtype=like.dtype, device=like.device)
        return torch.pow(self.growth(context).to(like)[..., None], -pairs / (self.rotary_dim - 2))

    def turns(self, positions: Tensor, dtype: torch.dtype, context: Tensor | None = None) -> Turns:
        """positions: (batch or 1, length); context: (batch or 1, length or 1), how many tokens are read together,
        where theta grows with them. The angles are computed in at least float32."""
        wide = positions.to(compute_dtype(dtype))
        angles = einsum(
            wide, self.scaled(self.frequencies(wide)), "batch length, pair -> batch length pair"
        )
        if context is not None:
            angles = angles * self.slowed(context, wide)
        angles = rearrange(angles, "batch length pair -> batch 1 length pair")
        return Turns(cos=angles.cos() * self.amplitude, sin=angles.sin() * self.amplitude)


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


def score_factor(scaling: schema.YarnScaling) -> float:
    """The factor of all scores beside their scale: m(mscale_all_dim)² (the DeepSeek-V2 release)."""
    return yarn_factor(scaling, scaling.mscale_all_dim) ** 2


def real_tokens(x: Tensor, padding: Tensor | None, documents: Documents | None) -> Tensor:
    """The number of real tokens of each row of `x` (batch, length, hidden_size), (batch, 1), or of each of the
    documents packed into it, (batch, length)."""
    real = x.new_ones(x.shape[:2], dtype=torch.bool) if padding is None else padding
    if documents is None:
        return real.sum(dim=-1, keepdim=True)
    rows = documents if len(documents) == len(real) else documents * len(real)
    return torch.stack(
        [
            torch.cat([part.sum().expand(len(part)) for part in row.split(list(lengths))])
            for row, lengths in zip(real, rows, strict=True)
        ]
    )
