"""Outputs that must not move, and how still a candidate can hold them.

Two calls of one model with inputs of one shape compute with tensors that lie alike: torch puts what it makes at
multiples of 64 bytes, and the weights are the same ones. Then every number that has no part in the change keeps its
very bits, on any processor, and a leak of one bit is a leak. A candidate that has its memory from elsewhere, or adds in
an order of its own each time, may round the same call in two ways. That is measured by what should change nothing,
the same call again, and is looked for only where something has moved by no more than rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from holotype_conformance.judge.tolerance import moved
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.subject import Subject

AGAIN = 8  # calls: of an output that rounds in two ways by turns, seven in eight are seen to in three of them


def logits(outputs: Outputs) -> Tensor:
    """(batch, length, vocabulary)."""
    return outputs.logits


def leaks(
    subject: Subject,
    model: nn.Module,
    inputs: Inputs,
    before: Tensor,
    after: Tensor,
    forbidden: Tensor,
    read: Callable[[Outputs], Tensor] = logits,
) -> Tensor:
    """(batch, length) bool, on the CPU: which outputs have moved that must not.

    Args:
        inputs: those that gave `before`.
        before: (batch, length, …), what `read` finds in the outputs of `model`.
        after: the same of other inputs of the same shapes.
        forbidden: (batch, length) bool, the outputs that must not move.
        read: what of the outputs is compared.
    """
    forbidden = forbidden.cpu()
    found = moved(before, after, subject.stillness).cpu() & forbidden
    if subject.stillness or not found.any():
        return found
    beyond = moved(before, after, subject.floor).cpu() & forbidden
    if torch.equal(beyond, found) or not rounds_anew(subject, model, inputs, before, read):
        return found
    return beyond


def rounds_anew(
    subject: Subject,
    model: nn.Module,
    inputs: Inputs,
    before: Tensor,
    read: Callable[[Outputs], Tensor] = logits,
) -> bool:
    """Whether the same call again gives other bits, and no more than that: another number is no rounding."""
    rows = real_rows(inputs).to(before.device)
    rows = rows if before.shape[1] == rows.shape[1] else rows[:, :1]
    held = []  # so that what is made next lies elsewhere
    found = False
    for number in range(AGAIN):
        held.append(torch.empty(1009 * (number + 1)))
        again = read(subject.forward(model, inputs))
        if (moved(before, again, subject.floor) & rows).any():
            return False
        found = found or bool((moved(before, again, 0.0) & rows).any())
    return found
