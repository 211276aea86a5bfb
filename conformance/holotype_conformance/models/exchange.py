"""The exchange between the suite and a candidate: a batch, what is returned for it, and labels."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from holotype_reference.inputs import Inputs as Inputs


def seen(inputs: Inputs) -> Tensor:
    """(batch or 1, length, length) boolean, [query, key]: what a prefix or a direction shows, padding aside.

    For a full pass, and for implementations that are told a whole mask. A batch with neither is taken for causal.
    """
    length, device = inputs.token_ids.shape[1], inputs.token_ids.device
    place = torch.arange(length, device=device)
    query, key = place[None, :, None], place[None, None, :]
    if inputs.right_to_left is not None:
        return key >= query
    prefix = inputs.prefix
    return key <= query if prefix is None else (key <= query) | (key < prefix[:, None, None])


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The outputs of a candidate.

    Attributes:
        logits: (batch, length, vocabulary); (batch, length) or (batch, length, 1) from a head that tells which tokens
            were replaced.
        next_sentence: (batch, 2), from a model with a next-sentence head.
        cache: anything; it is handed back to `Candidate.forward_cached` with the next tokens.
    """

    logits: Tensor
    next_sentence: Tensor | None = None
    cache: Any = None


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The targets of the loss; -100 marks a position without a label.

    Attributes:
        tokens: (batch, length) int64. For a causal model the token at each position itself: the loss of
            position i compares with the label at i + 1. For masked models: the label of position i. For
            a head that tells replaced tokens: 1 for those, 0 for the others, and all real tokens have one. For
            an encoder-decoder: what the decoder is to write, of which it also reads all but the last,
            after the start token; the positions without a label stand at the end of a row.
        next_sentence: (batch,) int64, or None.
    """

    tokens: Tensor
    next_sentence: Tensor | None = None


def as_outputs(returned: Any) -> Outputs:
    """Read logits, next-sentence logits and cache off whatever a model returned.

    Raises:
        TypeError: it is neither a tensor nor has logits.
    """
    if isinstance(returned, Outputs):
        return returned
    if isinstance(returned, Tensor):
        return Outputs(logits=returned)
    if isinstance(returned, tuple) and returned and isinstance(returned[0], Tensor):
        return Outputs(logits=returned[0])  # (logits, loss), (logits, cache), …
    given = SimpleNamespace(**returned) if isinstance(returned, Mapping) else returned
    logits = getattr(given, "logits", None)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model returned {type(returned).__name__}; expected a tensor of logits"
            " (batch, length, vocabulary), or an object or a dictionary with `logits`"
        )
    return Outputs(
        logits=logits,
        next_sentence=getattr(given, "next_sentence", None),
        cache=getattr(given, "past_key_values", None),
    )


def named_arguments(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """The optional inputs that are given, under the names by which `forward` takes them."""
    given = {
        "attention_mask": inputs.attention_mask,
        "position_ids": inputs.position_ids,
        "token_type_ids": inputs.token_types,
        "order": inputs.order,
    }
    # Whoever knows no prefix is called without one, and is checked for what it then is.
    views = {"prefix_lengths": inputs.prefix, "right_to_left": inputs.right_to_left}
    taken = inspect.signature(model.forward).parameters
    return present(given | {name: view for name, view in views.items() if name in taken})


def present(arguments: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Those arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def copies(inputs: Inputs) -> Inputs:
    """The same inputs in tensors of their own, so that a candidate which writes into them harms no one else."""
    return Inputs(**{name: tensor.clone() for name, tensor in inputs.tensors().items()})


def owned(outputs: Outputs) -> Outputs:
    """The outputs in memory of their own: a candidate that answers in one buffer would agree with its next answer."""
    sentence = outputs.next_sentence
    return Outputs(
        logits=outputs.logits.clone(),
        next_sentence=None if sentence is None else sentence.clone(),
        cache=outputs.cache,
    )


def real_rows(inputs: Inputs) -> Tensor:
    """(batch, length) bool: the positions whose output means something."""
    length = inputs.token_ids.shape[1]
    if inputs.attention_mask is None:
        real = torch.ones_like(inputs.token_ids, dtype=torch.bool)
    else:
        real = inputs.attention_mask[:, -length:].bool()
    return real if inputs.order is None else real & _follows_any(real, inputs.order)


def _follows_any(real: Tensor, order: Tensor) -> Tensor:
    """(batch, length) bool: the positions that have a real one before them in the order of prediction.

    From no token nothing is predicted: what a model makes of none is its own affair (Yang et al. 2019, section 2.3,
    predict only the last ones).
    """
    first = order.masked_fill(~real, order.shape[1]).amin(dim=1, keepdim=True)
    return order > first
