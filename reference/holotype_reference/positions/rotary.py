"""Rotary positions: queries and keys turn by angles proportional to the position."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log, tau
from typing import Literal

import torch
from einops import einsum, rearrange
from torch import Tensor, nn

from holotype_reference.normalization import compute_dtype
from holotype_spec import schema


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
