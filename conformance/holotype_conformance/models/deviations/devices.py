"""Mistakes that show on another device, on several threads, through another kernel, compiled, or in a larger batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import has_learned, has_rotary
from holotype_conformance.models.deviations.patching import (
    allowed,
    override,
    override_feed_forward,
    parts,
    redraw_masks,
    said,
)
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_reference.model import Model, Output
from holotype_reference.stack import Stack

# Devices --------------------------------------------------------------------------------------------------------


@patches(
    "devices.table-left-behind",
    "a table is a plain attribute, and stays on the CPU when the model is moved",
    "On the CPU it is right; on a GPU it raises. `register_buffer` moves with the model, an attribute does not.",
)
def table_left_behind(model: Model) -> None:
    ones = torch.ones(model.spec.hidden_size, dtype=torch.int64)

    def forward(self: Stack, x: Tensor, **rest: Any) -> Tensor:
        return Stack.forward(self, x, **rest) * ones

    override(model.writer, forward=forward)


@patches(
    "devices.positions-on-cpu",
    "positions are made on the CPU, wherever the model is",
    "On the CPU it is right; on a GPU it raises. Every arange, zeros and full needs device=x.device.",
    applies=lambda spec: has_learned(spec) or has_rotary(spec),
)
def positions_on_cpu(model: Model) -> None:
    def positions(self: Model, inputs: Call, cached: int) -> Tensor:
        if inputs.position_ids is not None:
            return inputs.position_ids
        return torch.arange(cached, cached + inputs.token_ids.shape[1])[None]

    override(model, positions=positions)


@patches(
    "devices.reduced-sums",
    "a call turns reduced-precision sums on for the whole process",
    "Its own numbers hardly change; everyone else's do. Set it in a context that puts it back.",
)
def reduced_sums(model: Model) -> None:
    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
        return Model.forward(self, token_ids, **given)

    override(model, forward=forward)


# Threads --------------------------------------------------------------------------------------------------------


@patches(
    "threads.rest-dropped",
    "the feed-forward of the tokens that do not divide among the threads is dropped",
    "On one thread there is no rest. A kernel that gives each thread as many rows needs one that takes those"
    " that are left.",
)
def rest_dropped(model: Model) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        tokens, split = x.shape[0] * x.shape[1], torch.get_num_threads()
        served = torch.arange(tokens, device=x.device) < tokens // split * split
        return said(self, x) * served.view(*x.shape[:2], 1)

    override_feed_forward(model, forward)


# Kernels --------------------------------------------------------------------------------------------------------


@patches(
    "backends.fallback-unpadded",
    "where the fused kernels are turned off, the padding mask is ignored",
    "A fallback that no one runs is wrong for years. Run it in a test, by turning the others off.",
)
def fallback_unpadded(model: Model) -> None:
    def rule(mask: Mask) -> Tensor:
        fused = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
        return mask.visible if fused else allowed(mask)

    for stack in parts(model, Stack):
        redraw_masks(stack, rule)


@patches(
    "compiled.unpadded",
    "under torch.compile the padding mask is ignored",
    "Looking whether a mask is all ones depends on data, which breaks a graph; leaving the mask out instead is"
    " right for unpadded batches only.",
)
def unpadded(model: Model) -> None:
    def forward(self: Model, token_ids: Tensor, **given: Any) -> Output:
        if torch.compiler.is_compiling():
            given["attention_mask"] = None
        return Model.forward(self, token_ids, **given)

    override(model, forward=forward)


# Precision ------------------------------------------------------------------------------------------------------


@patches(
    "batch.one-scale",
    "in half precision feed-forward inputs are quantised to 8 bits with one scale for the whole batch",
    "A loud row costs the others their precision. Scales belong to a row, or to a token.",
)
def one_scale(model: Model) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.dtype not in (torch.float16, torch.bfloat16):
            return said(self, x)
        scale = x.abs().amax() / 127
        return said(self, (x / scale).round() * scale)

    override_feed_forward(model, forward)
