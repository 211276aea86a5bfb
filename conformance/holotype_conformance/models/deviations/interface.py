"""Broken promises beside the numbers: of parameters, of the outputs' shape and dtype, and of storage."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import (
    biased,
    has_learned,
    one_after_the_other,
    shares_layers,
    without,
)
from holotype_conformance.models.deviations.heads import fill_when_loaded
from holotype_conformance.models.deviations.patching import override, parts
from holotype_reference.attention import SelfAttention
from holotype_reference.latent import LatentAttention
from holotype_reference.model import Model, Output
from holotype_reference.stack import Stack
from holotype_spec.schema import Spec

# Parameters -----------------------------------------------------------------------------------------------------


@patches(
    "parameters.bias-added",
    "the value projections have a bias",
    "A bias of zero changes nothing until it is trained. Layers have biases unless they are told"
    " otherwise.",
    applies=without(biased("value")),
)
def bias_added(model: Model) -> None:
    for name, module in model.named_modules():
        if isinstance(module, SelfAttention | LatentAttention):
            zeros = torch.zeros_like(module.value.weight[:, 0]).detach()
            module.value.bias = nn.Parameter(zeros)
            fill_when_loaded(model, f"{name}.value.bias", partial(_constant, zeros))


def _constant(value: Tensor, _state: dict[str, Tensor]) -> Tensor:
    return value


@patches(
    "parameters.layers-shared",
    "all layers share the parameters of the last one",
    "The model has as many parameters as one of one layer. A list that repeats one layer,"
    " `[layer] * n`, is the usual cause.",
    applies=without(shares_layers),
)
def layers_shared(model: Model) -> None:
    for stack in parts(model, Stack):
        last = stack.layers[-1]
        for index in range(len(stack.layers)):
            stack.layers[index] = last


# Outputs --------------------------------------------------------------------------------------------------------


def _change_output(model: Model, change: Any) -> None:
    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        return change(Model.forward(self, token_ids, **given))  # type: ignore[no-any-return]

    override(model, forward=forward)


@patches(
    "interface.float32-logits",
    "the logits are float32, whatever the model computes in",
    "Half-precision models return four bytes a number, and float64 ones lose half of their"
    " digits. Upcast in the loss.",
)
def float32_logits(model: Model) -> None:
    def upcast(output: Output) -> Output:
        return Output(
            logits=output.logits.float(),
            next_sentence=output.next_sentence,
            cache=output.cache,
        )

    _change_output(model, upcast)


def _half(spec: Spec) -> int:
    return spec.max_positions // 2


@patches(
    "interface.length-limit",
    lambda spec: (
        f"inputs of more than {_half(spec)} tokens are refused, of {spec.max_positions} that the spec allows"
    ),
    "A buffer is shorter than the model. Look at a table or a mask whose size is a constant.",
    applies=has_learned,
)
def length_limit(model: Model) -> None:
    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        if token_ids.shape[1] > _half(self.spec):
            raise IndexError(f"no mask for {token_ids.shape[1]} tokens")
        return Model.forward(self, token_ids, **given)

    override(model, forward=forward)


@patches(
    "interface.padding-cut-off",
    "positions that are padding in every row are left out of the outputs",
    "Nested tensors are as long as their longest row. The outputs then fit neither the inputs nor the"
    " labels. Pad them again.",
    reports=("pytorch/pytorch#86120", "pytorch/pytorch#97111"),
)
def padding_cut_off(model: Model) -> None:
    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        output = Model.forward(self, token_ids, **given)
        mask = given.get("attention_mask")
        if mask is None:
            return output
        kept = mask[:, -token_ids.shape[1] :].any(dim=0)
        return replace(output, logits=output.logits[:, kept])

    override(model, forward=forward)


@patches(
    "interface.view-of-strided",
    "inputs that are views with other strides are refused",
    "`view` needs contiguous memory, `reshape` does not.",
)
def view_of_strided(model: Model) -> None:
    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        return Model.forward(self, token_ids.view(-1).view(token_ids.shape), **given)

    override(model, forward=forward)


# Storage --------------------------------------------------------------------------------------------------------


@patches(
    "storage.rounded",
    "weights are rounded to bfloat16 when they are saved",
    "What comes back is not what was there. Store in the dtype of the parameters.",
)
def rounded(model: Model) -> None:
    def narrow(_module: nn.Module, state: dict[str, Tensor], *_rest: object) -> None:
        for name, value in state.items():
            state[name] = value.bfloat16().to(value.dtype)

    model.register_state_dict_post_hook(narrow)  # type: ignore[no-untyped-call]


@patches(
    "storage.tensor-lost",
    "one gain is not saved, and reads as ones when it is restored",
    "A parameter under a name that saving skips and loading forgives. Never load with"
    " strict=False.",
    applies=one_after_the_other,
)
def tensor_lost(model: Model) -> None:
    name = next(name for name in model.state_dict() if name.endswith("feed_forward_norm.weight"))

    def lose(_module: nn.Module, state: dict[str, Tensor], *_rest: object) -> None:
        del state[name]

    model.register_state_dict_post_hook(lose)  # type: ignore[no-untyped-call]
    fill_when_loaded(model, name, partial(_constant, torch.ones(model.spec.hidden_size)))
