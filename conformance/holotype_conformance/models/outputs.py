"""Whether what a candidate returns has the shape and dtype that were promised, and if not, what it looks like."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holotype_conformance.judge.property import Violation

Shape = tuple[int, ...]


def demand_tensor(what: str, found: Any, shape: Shape, dtype: torch.dtype, said: str = "") -> None:
    """Demand a tensor of this shape, in this dtype or in float32; `said` is what a wrong shape looks like.

    Raises:
        Violation: it is none.
    """
    if not issubclass(type(found), Tensor):  # not isinstance: __class__ may lie
        raise Violation(f"the {what} are a {type(found).__name__}; expected a tensor")
    if tuple(found.shape) != shape:
        raise Violation(f"the {what} have the shape {tuple(found.shape)}; expected {shape}{said}")
    wider = torch.promote_types(dtype, torch.float32)  # some codes hand out logits in float32
    if found.dtype not in (dtype, wider):
        raise Violation(f"the {what} are {found.dtype}; expected {dtype}, as the parameters are")


def demand_logits(
    found: Any, shape: tuple[int, int, int], dtype: torch.dtype, hidden_size: int
) -> None:
    """Demand logits (batch, length, vocabulary).

    Raises:
        Violation: they are none.
    """
    own = tuple(found.shape) if issubclass(type(found), Tensor) else shape
    batch, _, size = shape
    if own != shape and own in ((batch, 1, size), (batch, size)):
        raise Violation(
            f"the logits are {own}, those of one position; expected those of all, {shape}: a"
            " `forward` of an adapter can ask for them"
        )
    demand_tensor("logits", found, shape, dtype, _looks_like(own, shape, hidden_size))


def _looks_like(found: Shape, shape: tuple[int, int, int], hidden_size: int) -> str:
    batch, length, size = shape
    if found == (length, batch, size):
        return ": the length stands before the batch"
    if found == (batch, size, length):
        return ": the vocabulary stands before the length"
    if found == (batch * length, size):
        return ": batch and length are one axis"
    if found[:2] != (batch, length) or len(found) != 3:
        return ""
    if found[2] == hidden_size:
        return ", and these are as wide as the hidden size: is the vocabulary matrix missing?"
    if found[2] > size:
        return (
            f": if the vocabulary is padded, a `forward` of an adapter cuts it off, [..., :{size}]"
        )
    return ""
