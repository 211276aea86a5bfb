"""The feed-forward block: each position on its own, widened to ffn_size and back (Vaswani et al. 2017, section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_reference.basics import Linear
from holotype_spec import schema


def gelu_tanh_rounded(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(0.79788456 (x + 0.044715 x³))) (Megatron-LM, megatron/model/fused_bias_gelu.py, bias_gelu)."""
    return 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x * x * x)))


ACTIVATIONS: dict[schema.Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    # x Φ(x) with the exact normal distribution function (Hendrycks & Gimpel 2016, section 2)
    "gelu": partial(F.gelu, approximate="none"),
    # 0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))), the same authors' approximation
    "gelu-tanh": partial(F.gelu, approximate="tanh"),
    # The same with √(2/π) as Megatron-LM writes it
    "gelu-tanh-rounded": gelu_tanh_rounded,
    # x sigmoid(x), also called swish (Ramachandran et al. 2017)
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """What both kinds share: `inner` widens, `down` brings back, and dropout may stand between the two."""

    down: Linear

    def __init__(self, spec: schema.Spec) -> None:
        super().__init__()
        self.activation = spec.architecture.feed_forward.activation
        self.dropout = nn.Dropout(spec.architecture.dropout.at("feed-forward"))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> the same"""
        y: Tensor = self.down(self.dropout(self.inner(x)))
        return y

    def inner(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, ffn_size)"""
        raise NotImplementedError

    def activate(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](x)


class PlainFeedForward(FeedForward):
    """down(activation(up(x))) (Vaswani et al. 2017, equation 2)."""

    def __init__(self, spec: schema.Spec, size: int) -> None:
        super().__init__(spec)
        bias = spec.architecture.feed_forward.bias
        self.up = Linear(spec.hidden_size, size, bias=bias)
        self.down = Linear(size, spec.hidden_size, bias=bias)

    def inner(self, x: Tensor) -> Tensor:
        return self.activate(self.up(x))


class GatedFeedForward(FeedForward):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020, equation 6; with silu it is his SwiGLU)."""

    def __init__(self, spec: schema.Spec, size: int) -> None:
        super().__init__(spec)
        bias = spec.architecture.feed_forward.bias
        self.gate = Linear(spec.hidden_size, size, bias=bias)
        self.up = Linear(spec.hidden_size, size, bias=bias)
        self.down = Linear(size, spec.hidden_size, bias=bias)

    def inner(self, x: Tensor) -> Tensor:
        up: Tensor = self.up(x)
        return self.activate(self.gate(x)) * up


KINDS: dict[str, type[PlainFeedForward | GatedFeedForward]] = {
    "plain": PlainFeedForward,
    "gated": GatedFeedForward,
}


def dense(spec: schema.Spec) -> FeedForward:
    """The one feed-forward block of a layer, of the size ffn_size: of any layer that has no experts."""
    match spec.architecture.feed_forward:
        case schema.PlainFeedForward():
            return PlainFeedForward(spec, spec.ffn_size)
        case schema.GatedFeedForward():
            return GatedFeedForward(spec, spec.ffn_size)
        case schema.Experts(dense=kind):
            return KINDS[kind](spec, spec.ffn_size)
