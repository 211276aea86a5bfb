"""Rotary positions: queries and keys turn by angles proportional to the position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum, rearrange
from torch import Tensor

from holotype_reference.attention import Positioning, Positions
from holotype_reference.basics import compute_dtype
from holotype_reference.inputs import Call
from holotype_spec import schema


@dataclass(frozen=True, kw_only=True)
class Turns:
    """The angles by which each position turns each pair of dimensions, as cosines and sines.

    Both are (batch or 1, 1, length, rotary_dim / 2), the axis of 1 for the heads.
    """

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True, kw_only=True)
class Rotated(Positioning):
    """Queries and keys turn by the angles of their positions."""

    rotary: Rotary
    turns: Turns

    def rotate(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        return self.rotary.rotate(query, self.turns), self.rotary.rotate(key, self.turns)


class Rotary(Positions):
    """Pairs of dimensions of queries and keys turn by angles proportional to the position (Su et al. 2021, 3.2).

    At position m pair i turns by m θ_i with θ_i = theta^(-2i / rotary_dim) (their equation 15), so that the product of
    a query at m with a key at n depends on m - n only. It has no parameters.

    The first rotary_dim dimensions of a head turn; the others, if there are any, stay as they are (Wang & Komatsuzaki
    2021, the GPT-J release).
    """

    def __init__(
        self, rotary_dim: int, *, theta: float, pairing: Literal["half-split", "interleaved"]
    ) -> None:
        super().__init__()
        self.rotary_dim = rotary_dim
        self.theta = theta
        self.layout = {"half-split": "(two pair)", "interleaved": "(pair two)"}[pairing]
        self.pairs = "pair"
        self.axes = {"two": 2}

    def at(self, x: Tensor, inputs: Call) -> Positioning:
        assert inputs.position_ids is not None
        return Rotated(rotary=self, turns=self.turns(inputs.position_ids, x.dtype))

    def frequencies(self, like: Tensor) -> Tensor:
        """θ_i, by which each pair turns a position: (rotary_dim / 2), in the dtype and on the device of `like`."""
        pairs = torch.arange(0, self.rotary_dim, 2, dtype=like.dtype, device=like.device)
        return torch.pow(self.theta, -pairs / self.rotary_dim)

    def turns(self, positions: Tensor, dtype: torch.dtype) -> Turns:
        """positions: (batch or 1, length). The angles are computed in at least float32."""
        wide = positions.to(compute_dtype(dtype))
        angles = einsum(wide, self.frequencies(wide), "batch length, pair -> batch length pair")
        angles = rearrange(angles, "batch length pair -> batch 1 length pair")
        return Turns(cos=angles.cos(), sin=angles.sin())

    def rotate(self, x: Tensor, turns: Turns) -> Tensor:
        """(batch, heads, length, head_dim) -> the same: each pair (a, b) turned (their equation 34).

        As in the LLaMA release the product is taken in at least float32 and cast back.
        """
        turning, still = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        whole = f"batch heads length {self.layout}"
        pairs = f"two batch heads length {self.pairs}"
        a, b = rearrange(turning.to(turns.cos.dtype), f"{whole} -> {pairs}", **self.axes)
        both = [a * turns.cos - b * turns.sin, a * turns.sin + b * turns.cos]
        turned = rearrange(both, f"{pairs} -> {whole}", **self.axes).to(x.dtype)
        return torch.cat((turned, still), dim=-1) if still.shape[-1] else turned


def rotary(spec: schema.Spec, kind: schema.Rotary, pattern: schema.Pattern) -> Rotary:
    """The rotary positions of a stack."""
    return Rotary(spec.rotary_dim, theta=kind.theta, pairing=kind.pairing)
