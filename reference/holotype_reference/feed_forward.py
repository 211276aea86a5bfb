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
    """down(activation(up(x))) (Vaswani et al. 2017, equation 2), with dropout in front of `down` if the spec has it.

    A gated one is down(activation(gate(x)) * up(x)) (Shazeer 2020, equation 6; with silu it is his SwiGLU). By
    default it is the block of a layer without experts.
    """

    def __init__(
        self, spec: schema.Spec, size: int | None = None, *, gated: bool | None = None
    ) -> None:
        super().__init__()
        kind, size = spec.architecture.feed_forward, size or spec.ffn_size
        if gated is None:
            gated = kind.dense_gated
        d, bias = spec.hidden_size, spec.architecture.feed_forward.bias
        self.gate = Linear(d, size, bias=bias) if gated else None
        self.up = Linear(d, size, bias=bias)
        self.down = Linear(size, d, bias=bias)
        self.activation = spec.architecture.feed_forward.activation
        self.dropout = nn.Dropout(spec.architecture.dropout.at("feed-forward"))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> the same"""
        y: Tensor = self.down(self.dropout(self.inner(x)))
        return y

    def inner(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, ffn_size)"""
        up: Tensor = self.up(x)
        return self.activate(up) if self.gate is None else self.activate(self.gate(x)) * up

    def activate(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](x)
