"""Two positions a token, one in the text and one within its span (Du et al. 2021, section 2.2)."""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from torch import Tensor

from holotype_reference.basics import compute_dtype
from holotype_reference.inputs import Call
from holotype_reference.masks import Prefix
from holotype_reference.positions.packed import restarted
from holotype_reference.positions.rotary import Rotary, Turns


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


def places(inputs: Call, cached: int) -> Tensor:
    """(batch or 1, 2, length): the two places of each token behind so many cached ones, where none are given."""
    if inputs.documents is None:
        return spans(
            cached, inputs.token_ids.shape[1], inputs.visible_prefix, inputs.token_ids.device
        )
    first = restarted(inputs.documents, inputs.token_ids.device)
    return torch.stack([first, 0 * first], dim=1)


class TwoDimensionalRotary(Rotary):
    """The first half of a head turns by a token's first position, the second by its other one.

    Each half is a rotation of its own, of d / 2 dimensions in pairs (i, i + d / 4) (the ChatGLM-6B release,
    position_encoding_2d).
    """

    def __init__(self, head_dim: int, *, theta: float) -> None:
        super().__init__(head_dim, theta=theta, pairing="half-split")
        self.layout, self.pairs = "(half two pair)", "(half pair)"
        self.axes = {"half": 2, "two": 2}

    def frequencies(self, like: Tensor) -> Tensor:
        """θ_i for each pair of one half: (rotary_dim / 4)"""
        half = self.rotary_dim // 2
        pairs = torch.arange(0, half, 2, dtype=like.dtype, device=like.device)
        return torch.pow(self.theta, -pairs / half)

    def turns(self, positions: Tensor, dtype: torch.dtype) -> Turns:
        """positions: (batch or 1, 2, length)"""
        wide = positions.to(compute_dtype(dtype))
        frequencies = self.frequencies(wide)
        angles = einsum(wide, frequencies, "batch half length, pair -> batch length half pair")
        angles = rearrange(angles, "batch length half pair -> batch 1 length (half pair)")
        return Turns(cos=angles.cos(), sin=angles.sin())
