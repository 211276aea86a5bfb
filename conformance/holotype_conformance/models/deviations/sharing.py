"""Layers that share their parameters: how often the one layer runs, and whether it is one."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

from torch import Tensor, nn

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import shares_layers
from holotype_conformance.models.deviations.heads import fill_when_loaded
from holotype_conformance.models.deviations.patching import parts
from holotype_reference.model import Model
from holotype_reference.stack import Stack


@patches(
    "sharing.once-too-few",
    lambda spec: f"the shared layer runs {spec.layers - 1} times instead of {spec.layers}",
    "A loop that counts its first pass apart, or from 1. Everything loads, since there is one layer"
    " anyway.",
    applies=shares_layers,
)
def once_too_few(model: Model) -> None:
    for stack in parts(model, Stack):
        stack.depth -= 1


@patches(
    "sharing.once-too-often",
    lambda spec: f"the shared layer runs {spec.layers + 1} times instead of {spec.layers}",
    "A loop that repeats the layer behind its first pass as often as there are layers.",
    applies=shares_layers,
)
def once_too_often(model: Model) -> None:
    for stack in parts(model, Stack):
        stack.depth += 1


@patches(
    "sharing.lost",
    "each layer is a copy of the shared one instead of being it",
    "Right as long as nothing is trained; then the layers fall apart. The model has as many"
    " parameters as one that shares nothing. Run one module again and again; do not copy it.",
    applies=shares_layers,
)
def lost(model: Model) -> None:
    for stack_name, stack in model.named_modules():
        if isinstance(stack, Stack):
            _copy_layers(model, stack_name, stack)


def _copy_layers(model: Model, stack_name: str, stack: Stack) -> None:
    first = stack.layers[0]
    stack.layers = nn.ModuleList([first, *(deepcopy(first) for _ in range(1, stack.depth))])
    for index in range(1, stack.depth):
        for name, _ in first.named_parameters():
            source = f"{stack_name}.layers.0.{name}"
            fill_when_loaded(model, f"{stack_name}.layers.{index}.{name}", partial(_same, source))


def _same(name: str, state: dict[str, Tensor]) -> Tensor:
    return state[name]
