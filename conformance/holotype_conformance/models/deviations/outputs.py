"""Outputs that are something else than the logits of each position, though shapes and dtypes fit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import detects, without
from holotype_conformance.models.deviations.patching import override
from holotype_reference.model import Model

CAP = 30.0


def _handed_out(model: Model, change: Callable[[Tensor], Tensor]) -> None:
    kind = type(model.head)
    override(model.head, forward=lambda self, x, table: change(kind.forward(self, x, table)))


@patches(
    "output.log-probabilities",
    "log-probabilities are returned instead of logits",
    "A softmax of them changes nothing, so that sampling and the loss are right; temperatures, logit biases and"
    " whatever compares with a release are not. Take the log-softmax in the loss.",
    applies=without(detects),
)
def log_probabilities(model: Model) -> None:
    _handed_out(model, lambda logits: logits.log_softmax(dim=-1))


@patches(
    "output.probabilities",
    "probabilities are returned instead of logits",
    "The greatest stays the greatest, so that greedy decoding is right. The loss takes the softmax again: it is flat"
    " and hardly learns.",
    applies=without(detects),
)
def probabilities(model: Model) -> None:
    _handed_out(model, lambda logits: logits.softmax(dim=-1))


@patches(
    "output.capped",
    f"logits are capped, {CAP:.0f} · tanh(logit / {CAP:.0f})",
    "Other decoders cap their logits, and code that is shared with them has a default. Small logits hardly change.",
)
def capped(model: Model) -> None:
    _handed_out(model, lambda logits: CAP * torch.tanh(logits / CAP))


@patches(
    "output.float16",
    "logits are rounded to float16 on their way out",
    "The dtype that comes back is the right one, the digits are gone: a cast, an autocast, or a buffer that logits are"
    " written into. Ties of the most likely tokens are broken by chance.",
)
def float16(model: Model) -> None:
    _handed_out(model, lambda logits: logits.to(torch.float16).to(logits.dtype))


@patches(
    "output.bfloat16",
    "logits are rounded to bfloat16 on their way out",
    "The dtype that comes back is the right one, eight bits of each number are left: a cast, an autocast, or a buffer"
    " that logits are written into.",
)
def bfloat16(model: Model) -> None:
    _handed_out(model, lambda logits: logits.to(torch.bfloat16).to(logits.dtype))


@patches(
    "output.one-late",
    "a position has the logits of the one before it",
    "Logits of a position are about the token behind it. Who shifts labels or inputs shifts one of them, once.",
)
def one_late(model: Model) -> None:
    _handed_out(model, lambda logits: logits.roll(1, dims=1))
