"""The feed-forward block: its activation, its gate and its biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import Deviation, patches, respecifies
from holotype_conformance.models.deviations.features import (
    biased_feed_forward,
    gated,
    set_otherwise,
)
from holotype_conformance.models.deviations.patching import (
    override,
    override_activation,
    override_all,
    parts,
)
from holotype_reference.basics import Linear
from holotype_reference.experts import Blocks
from holotype_reference.feed_forward import FeedForward
from holotype_reference.model import Model
from holotype_spec import schema
from holotype_spec.schema import Spec


def _activation(spec: Spec) -> schema.Activation:
    return spec.architecture.feed_forward.activation


def _other_activation(activation: schema.Activation) -> Deviation:
    return respecifies(
        f"activation.{activation}",
        lambda spec: f"the activation is {activation} instead of {_activation(spec)}",
        "The activations of this field are close to each other, the two forms of GELU to three"
        " digits: outputs are nearly right and the error grows with depth. Names differ between"
        " libraries: `gelu` is the exact one in some and the tanh form in others.",
        applies=lambda spec: _activation(spec) != activation,
    )(lambda spec: set_otherwise(spec, "feed_forward.activation", activation))


_ACTIVATIONS: tuple[schema.Activation, ...] = ("relu", "gelu", "gelu-tanh", "silu")
for _name in _ACTIVATIONS:
    _other_activation(_name)


@patches(
    "activation.quick-gelu",
    lambda spec: f"the activation is x · sigmoid(1.702 x) instead of {_activation(spec)}",
    "A cheap stand-in that some families were trained with, and this one was not.",
    applies=lambda spec: _activation(spec).startswith("gelu"),
)
def quick_gelu(model: Model) -> None:
    override_activation(model, lambda self, x: x * torch.sigmoid(1.702 * x))


@patches(
    "activation.dropped",
    "the feed-forward block has no activation",
    "The block is linear. Freshly initialised models of a few layers do not show it by their loss.",
)
def activation_dropped(model: Model) -> None:
    override_activation(model, lambda self, x: x)


def _regate(model: Model, inner: Callable[[Any, Tensor], Tensor]) -> None:
    for block in parts(model, FeedForward):
        if block.gate is not None:
            override(block, inner=inner)


@patches(
    "gate.swapped",
    "the activation is applied to the up projection instead of the gate",
    "The halves of a fused matrix are cut in the other order. Shapes are the same. Look at the"
    " order of gate and up in the checkpoint.",
    applies=gated,
    reports=("ooples/AiDotNet.Tensors#46",),
)
def gate_swapped(model: Model) -> None:
    _regate(model, lambda self, x: self.gate(x) * self.activate(self.up(x)))
    override_all(
        model, Blocks, inner=lambda self, x, e: self.gate(x, e) * self.activate(self.up(x, e))
    )


@patches(
    "gate.dropped",
    "the feed-forward block is not gated: the gate projection is not read",
    "A plain block, whose gate matrix is loaded and unused.",
    applies=gated,
)
def gate_dropped(model: Model) -> None:
    _regate(model, lambda self, x: self.activate(self.up(x)) + 0 * self.gate(x))
    override_all(
        model,
        Blocks,
        inner=lambda self, x, e: self.activate(self.up(x, e)) + 0 * self.gate(x, e),
    )


def _bias_dropped(part: str) -> Deviation:
    return patches(
        f"bias.feed-forward-{part}-dropped",
        f"the bias of the feed-forward block's {part} projection is not added",
        "The checkpoint has the bias, and the code does not add it. Freshly initialised biases"
        " are zero and show nothing.",
        applies=biased_feed_forward,
    )(lambda model: _drop_biases(model, part))


def _drop_biases(model: Model, part: str) -> None:
    for block in parts(model, FeedForward):
        override(getattr(block, part), forward=_unbiased)


def _unbiased(linear: Linear, x: Tensor) -> Tensor:
    return Linear.forward(linear, x) - linear.bias


for _part in ("up", "down"):
    _bias_dropped(_part)
