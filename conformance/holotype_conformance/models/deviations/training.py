"""Mistakes in train mode alone: a mask, gradients that stop where a layer is computed again, a router's noise."""

from __future__ import annotations

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import has_experts
from holotype_conformance.models.deviations.patching import (
    allowed,
    override_all,
    parts,
    redraw_masks,
    said,
)
from holotype_reference.attention import LayerInputs
from holotype_reference.cache import LayerCache
from holotype_reference.experts import Experts
from holotype_reference.model import Model
from holotype_reference.stack import Layer, Stack


@patches(
    "training.padding-forgotten",
    "in train mode the padding mask is ignored",
    "Evaluation is right, and so is training on texts of one length. Look at the arguments with which a checkpointed"
    " layer is computed again, and at a kernel for training that is given no mask.",
)
def padding_forgotten(model: Model) -> None:
    for stack in parts(model, Stack):
        redraw_masks(stack, lambda mask: allowed(mask) if model.training else mask.visible)


@patches(
    "training.stream-detached",
    "in train mode the gradient of each layer stops at the layer before",
    "Results are right, and so are gradients in eval mode; in training the last layer learns alone. Look at what a"
    " checkpointed layer is given: a tensor that was detached, or the reentrant form with inputs without a gradient.",
)
def stream_detached(model: Model) -> None:
    def forward(self: Layer, x: Tensor, given: LayerInputs, cache: LayerCache | None) -> Tensor:
        return Layer.forward(self, x.detach() if self.training else x, given, cache)

    override_all(model, Layer, forward=forward)


@patches(
    "training.experts-jittered",
    "in train mode what experts read is multiplied by noise of a hundredth",
    "Evaluation is right; training follows a recipe that is not the model's. Look at a `jitter` that another model's"
    " configuration brought along.",
    applies=has_experts,
)
def experts_jittered(model: Model) -> None:
    def forward(self: Experts, x: Tensor) -> Tensor:
        return said(self, x * (1 + (torch.rand_like(x) - 0.5) / 50) if self.training else x)

    override_all(model, Experts, forward=forward)
