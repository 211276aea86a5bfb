"""Modes, state, gradients and the caller's tensors: what a call must not do beside its result."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import drops, has_learned
from holotype_conformance.models.deviations.patching import (
    allowed,
    override,
    override_activation,
    override_all,
    override_feed_forward,
    parts,
    place,
    redraw_masks,
    said,
)
from holotype_reference.attention import Attention, LayerInputs
from holotype_reference.cache import LayerCache
from holotype_reference.embeddings import Embeddings
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_reference.memory import WithMemory
from holotype_reference.model import Model, Output
from holotype_reference.stack import Layer, Stack

# Dropout --------------------------------------------------------------------------------------------------------


@patches(
    "dropout.in-eval",
    "dropout is on in eval mode",
    "Every call gives something else, and all of it is a little wrong. A functional dropout needs"
    " `training=self.training`.",
    applies=drops,
)
def in_eval(model: Model) -> None:
    override_all(model, nn.Dropout, forward=lambda self, x: F.dropout(x, self.p, training=True))


@patches(
    "dropout.attention-in-eval",
    "dropout on attention weights is on in eval mode",
    "A fused kernel has no training flag: `dropout_p` must be 0 outside of training.",
    applies=lambda spec: "attention" in spec.architecture.dropout.sites,
    reports=("meta-pytorch/torchtune#1791", "pytorch/pytorch#124464"),
)
def attention_in_eval(model: Model) -> None:
    def train(self: Attention, mode: bool = True) -> Attention:
        return nn.Module.train(self, True)  # eval() is train(False), and does not reach it

    override_all(model, Attention, train=train)


@patches(
    "dropout.never",
    "dropout is never on",
    "Evaluation is right; training overfits. A rate that is read from no configuration, or from"
    " another key.",
    applies=drops,
)
def never(model: Model) -> None:
    override_all(model, nn.Dropout, forward=lambda self, x: x)
    for attention in parts(model, Attention):
        attention.dropout = 0.0


@patches(
    "dropout.attention-missing",
    "attention weights are not dropped in train mode",
    "Evaluation is right; training is another than the paper's. A kernel that is not told the rate"
    " drops nothing.",
    applies=lambda spec: "attention" in spec.architecture.dropout.sites,
)
def attention_missing(model: Model) -> None:
    for attention in parts(model, Attention):
        attention.dropout = 0.0


@patches(
    "dropout.final-missing",
    "what the last norm gives is not dropped in train mode",
    "Evaluation is right, and in training so is the mean of what the head says, which is linear. Its variance is not.",
    applies=lambda spec: "final" in spec.architecture.dropout.sites,
)
def final_missing(model: Model) -> None:
    model.writer.dropout.p = 0.0


LAYER_DROP = 0.08


def _dropping_layers(model: Model, draw: Callable[[], float]) -> None:
    def forward(self: Layer, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        y = Layer.forward(self, x, *rest, **named)
        return x if draw() < LAYER_DROP else y

    override_all(model, Layer, forward=forward)


@patches(
    "dropout.layers-by-python",
    f"each layer is skipped in {LAYER_DROP:.0%} of all calls, in eval mode too, by Python's random",
    "Layers are dropped at random in training, and nothing asks for the mode. A seed that is set before each call hides"
    " it: torch.manual_seed does not, and frameworks of tests set Python's for every case.",
)
def layers_by_python(model: Model) -> None:
    _dropping_layers(model, random.random)


@patches(
    "dropout.layers-by-numpy",
    f"each layer is skipped in {LAYER_DROP:.0%} of all calls, in eval mode too, by NumPy's random",
    "Layers are dropped at random in training, and nothing asks for the mode. A seed that is set before each call hides"
    " it: torch.manual_seed does not, and frameworks of tests set NumPy's for every case.",
)
def layers_by_numpy(model: Model) -> None:
    _dropping_layers(model, np.random.rand)


# Gradients ------------------------------------------------------------------------------------------------------


@patches(
    "gradient.keys-detached",
    "keys get no gradient",
    "Results are right; the key projections do not learn. Look for a detach, a no_grad or a"
    " `.data`, often around a cache.",
)
def keys_detached(model: Model) -> None:
    place(model, lambda query, key, turn: (turn(query), turn(key).detach()))


@patches(
    "gradient.block-detached",
    "the feed-forward blocks get no gradient",
    "Results are right; half of the parameters do not learn. Look for a detach, or a checkpointed"
    " block whose inputs need no gradient.",
)
def block_detached(model: Model) -> None:
    override_feed_forward(model, lambda self, x: said(self, x).detach())


@patches(
    "gradient.stream-detached",
    "the gradient of each layer stops at the layer before",
    "Results are right; only the last layer learns from the loss. Look for a detach between"
    " layers.",
)
def stream_detached(model: Model) -> None:
    def forward(self: Layer, x: Tensor, given: LayerInputs, cache: LayerCache | None) -> Tensor:
        if isinstance(given, WithMemory):
            given = replace(given, memory=given.memory.detach())
        return Layer.forward(self, x.detach(), given, cache)

    override_all(model, Layer, forward=forward)


@patches(
    "gradient.activation-straight-through",
    "the backward pass of the activation is that of the identity",
    "Results are right and every gradient below is wrong in size. Hand-written backward passes"
    " are compared with autograd's, in float64.",
)
def straight_through(model: Model) -> None:
    def activate(self: Any, x: Tensor) -> Tensor:
        activated: Tensor = type(self).activate(self, x)
        return x + (activated - x).detach()

    override_activation(model, activate)


@patches(
    "gradient.embeddings-frozen",
    "the token embeddings do not require a gradient",
    "Results are right; the embeddings stay as they were. Look for requires_grad.",
)
def embeddings_frozen(model: Model) -> None:
    model.embeddings.token.weight.requires_grad_(False)


# State ----------------------------------------------------------------------------------------------------------


@patches(
    "state.position-counter",
    "positions go on counting from one call to the next",
    "The first call is right. Look for a counter in the module that nothing resets.",
    applies=has_learned,
)
def position_counter(model: Model) -> None:
    read = [0]

    def positions(self: Model, inputs: Call, cached: int) -> Tensor:
        found = Model.positions(self, inputs, cached)
        if inputs.position_ids is None:
            found = (found + read[0]) % self.spec.max_positions
            read[0] += inputs.token_ids.shape[1]
        return found

    override(model, positions=positions)


@patches(
    "state.first-mask-kept",
    "the padding mask of the first call is kept for later calls of the same shape",
    "A buffer that is rebuilt only when the shape changes. A test that calls once, or always with"
    " the same mask, does not see it.",
    reports=("flashinfer-ai/flashinfer#1028",),
)
def first_mask_kept(model: Model) -> None:
    kept: dict[tuple[object, ...], Tensor] = {}

    def rule(mask: Mask) -> Tensor:
        visible = mask.visible
        shape = (mask.pattern, mask.padding is None, *visible.shape)
        return kept.setdefault(shape, visible)

    for stack in parts(model, Stack):
        redraw_masks(stack, rule)


@patches(
    "state.running-mean",
    "the last hidden states are centred by a mean of all calls so far",
    "Statistics meant for training are updated in eval mode: each call changes the next.",
)
def running_mean(model: Model) -> None:
    mean = [0.0]

    def forward(self: Stack, x: Tensor, **rest: Any) -> Tensor:
        y = Stack.forward(self, x, **rest)
        mean[0] = 0.9 * mean[0] + 0.1 * float(y.detach().mean())
        return y - mean[0]

    override(model.writer, forward=forward)


LONG_INPUT = 25


@patches(
    "state.long-input-stays",
    f"after an input of {LONG_INPUT} tokens or more shorter ones are read by what was made for it",
    "A table or a base that grows with the longest input so far, and is not made again for shorter ones. The first call"
    " of any length is right, so that a test with one call, or with rising lengths, does not see it.",
)
def long_input_stays(model: Model) -> None:
    longest = [0]

    def forward(self: Stack, x: Tensor, **rest: Any) -> Tensor:
        longest[0] = max(longest[0], x.shape[1])
        grown = longest[0] >= LONG_INPUT and x.shape[1] < LONG_INPUT
        y = Stack.forward(self, x, **rest)
        return y * torch.linspace(0.9, 1.1, y.shape[-1]).to(y) if grown else y

    override(model.writer, forward=forward)


@patches(
    "state.kept-for-batch-size",
    "what the first batch of each size gives in the mean is kept for later batches of that size",
    "A buffer whose key is the size of the batch alone. The first call with each size is right.",
)
def kept_for_batch_size(model: Model) -> None:
    kept: dict[int, float] = {}

    def forward(self: Stack, x: Tensor, **rest: Any) -> Tensor:
        y = Stack.forward(self, x, **rest)
        mean = float(y.detach().mean())
        return y + torch.linspace(-1, 1, y.shape[-1]).to(y) * (kept.setdefault(len(x), mean) - mean)

    override(model.writer, forward=forward)


@patches(
    "state.eval-inside",
    "a call puts the model into eval mode",
    "Every call is right; a training loop drops nothing after its first batch. Look for eval() inside"
    " forward, or in a helper that generates.",
)
def eval_inside(model: Model) -> None:
    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        output = Model.forward(self, token_ids, **given)
        self.eval()
        return output

    override(model, forward=forward)


@patches(
    "state.no-grad-path",
    "without gradients the padding mask is ignored",
    "A fast path for inference that masks otherwise, or not at all. Tests that run with gradients"
    " do not take it.",
    reports=("pytorch/pytorch#97111", "pytorch/pytorch#86120"),
)
def no_grad_path(model: Model) -> None:
    for stack in parts(model, Stack):
        redraw_masks(stack, lambda mask: mask.visible if torch.is_grad_enabled() else allowed(mask))


# The caller's tensors -------------------------------------------------------------------------------------------


def _around(model: Model, after: Callable[[Tensor, dict[str, Any]], None]) -> None:
    """Do something to the arguments when the call is done."""

    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        output = Model.forward(self, token_ids, **given)
        after(token_ids, given)
        return output

    override(model, forward=forward)


@patches(
    "inputs.mask-changed",
    "the caller's attention mask is turned into an additive one in place",
    "The first call is right. A caller who hands the same mask over again masks everything. Look"
    " for names that end in an underscore.",
)
def mask_changed(model: Model) -> None:
    def change(_ids: Tensor, given: dict[str, Any]) -> None:
        if given.get("attention_mask") is not None:
            given["attention_mask"].sub_(1)

    _around(model, change)


@patches(
    "inputs.ids-changed",
    "the caller's token ids are overwritten",
    "The first call is right. Look for assignments to a slice, such as one that puts a start"
    " token in.",
)
def ids_changed(model: Model) -> None:
    def change(ids: Tensor, _given: dict[str, Any]) -> None:
        ids[:, 0] = 0

    _around(model, change)


# Length ---------------------------------------------------------------------------------------------------------


@patches(
    "length.capacity",
    "positions beyond a capacity of half the input skip the feed-forward block",
    "A capacity that is computed from the length drops tokens in one input and keeps them in its"
    " continuation. Changing a token changes nothing that is forbidden: only another length shows"
    " it.",
)
def capacity(model: Model) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        kept = torch.arange(x.shape[1], device=x.device) < (x.shape[1] + 1) // 2
        return said(self, x) * kept[:, None]

    override_feed_forward(model, forward)


@patches(
    "length.mean-gate",
    "feed-forward blocks are gated by the mean of the whole input",
    "A statistic of the sequence decides, and with it the future and the padding. Routers and"
    " squeeze-and-excite blocks do so.",
    reports=("Shwai-He/MEO#2",),
)
def mean_gate(model: Model) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return said(self, x) * x.mean(dim=1, keepdim=True).sigmoid()

    override_feed_forward(model, forward)


@patches(
    "batch.shared-gate",
    "feed-forward blocks are gated by the mean of the whole batch",
    "A row's result depends on its company. Capacities and routers that are computed for the"
    " batch do so.",
)
def shared_gate(model: Model) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return said(self, x) * x.mean(dim=0, keepdim=True).sigmoid()

    override_feed_forward(model, forward)


@patches(
    "batch.first-row-embedded",
    "every row of a batch starts with the first row's first token",
    "A broadcast over the batch where each row was meant. A batch of one shows nothing.",
)
def first_row_embedded(model: Model) -> None:
    def forward(self: Embeddings, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        first = ids[:1, :1].expand(len(ids), 1)
        return Embeddings.forward(self, torch.cat([first, ids[:, 1:]], 1), positions, types)

    override(model.embeddings, forward=forward)
