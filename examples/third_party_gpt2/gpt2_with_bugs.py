"""The GPT-2 of `gpt2.py` with three bugs that real ports have had. Each is one line of difference.

`plant` puts any of them into a model; without a name it plants all three.
"""

from __future__ import annotations

import torch
from gpt2 import GPT2, Attention, FeedForward, LayerCache
from torch import Tensor
from torch.nn import functional as F


class AttentionSeeingAhead(Attention):
    """Bug `sees-ahead`: the mask is off by one, and each token sees the one after it."""

    def visible(self, new: int, total: int, device: torch.device) -> Tensor:
        places = torch.arange(total, device=device)
        return places <= places[total - new :, None] + 1


class FeedForwardExact(FeedForward):
    """Bug `exact-gelu`: the exact GELU where GPT-2 was trained with the tanh form."""

    def activate(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class GPT2Restarting(GPT2):
    """Bug `positions-restart`: the words after a cached text are counted from 0 again."""

    def next_places(self, words: Tensor, past: list[LayerCache] | None) -> Tensor:
        return torch.arange(words.shape[1], device=words.device)


BUGS = {
    "sees-ahead": (Attention, AttentionSeeingAhead),
    "exact-gelu": (FeedForward, FeedForwardExact),
    "positions-restart": (GPT2, GPT2Restarting),
}


def plant(model: GPT2, *names: str) -> GPT2:
    """Put the named bugs, or all of them, into `model`."""
    for sound, broken in (BUGS[name] for name in names or BUGS):
        for module in model.modules():
            if type(module) is sound:
                module.__class__ = broken  # the same weights, another method
    return model
