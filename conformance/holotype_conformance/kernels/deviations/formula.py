"""Attention in steps, in torch: what a call shows, its scores, its weights, its result. A deviation replaces a step.

The steps are those of `holotype_conformance.kernels.oracle`, on tensors, so that autograd has their gradients; the
sums are kept in float32 at least. The oracle stays what kernels are judged by: this is what they are made wrong from,
and what is compared with one that was found wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from holotype_conformance.kernels.candidate import Call

Told = Callable[[Call], Call]
Shown = Callable[[Call], Tensor | None]
Masked = Callable[[Tensor, Call], Tensor]
Weighed = Callable[[Tensor, Call], Tensor]
Shared = Callable[[Tensor, int], Tensor]
Scored = Callable[[Tensor, Tensor, Call], Tensor]
Returned = Callable[[Tensor, Call], Tensor]


# Which keys a query sees: boolean, true where it does ----------------------------------------------------------------


def lengths(call: Call) -> tuple[int, int]:
    """Queries and keys."""
    return call.q.shape[2], call.k.shape[2]


def places(call: Call) -> tuple[Tensor, Tensor]:
    """(queries, 1) the key at which each query stands, the last one at the last; (keys) that of each key."""
    queries, keys = lengths(call)
    at = torch.arange(queries, device=call.q.device)[:, None] + keys - queries
    return at, torch.arange(keys, device=call.q.device)


def distance(call: Call) -> Tensor:
    """(queries, keys): how far key j stands before the place of query i; negative behind it."""
    at, key = places(call)
    return at - key


def causal(call: Call) -> Tensor:
    """(queries, keys): the keys up to the diagonal."""
    return distance(call) >= 0


def everything(call: Call) -> Tensor:
    """(queries, keys): all keys."""
    return torch.ones(lengths(call), dtype=torch.bool, device=call.q.device)


def prefixes(call: Call) -> tuple[int, ...]:
    """The prefix of all rows of the batch, or of each."""
    prefix = call.prefix
    assert prefix is not None
    return prefix if isinstance(prefix, tuple) else (prefix,)


def packings(call: Call) -> tuple[tuple[int, ...], ...]:
    """The lengths of the documents of all rows of the batch, or of each."""
    found = call.documents or ()
    rows = tuple(row for row in found if isinstance(row, tuple))
    return rows or (tuple(length for length in found if isinstance(length, int)),)


def stacked(rows: Iterable[Tensor]) -> Tensor:
    """(queries, keys) of each row -> (rows, 1, queries, keys)."""
    return rearrange(torch.stack(list(rows)), "row query key -> row 1 query key")


def numbers(lengths: tuple[int, ...], call: Call) -> Tensor:
    """(keys): of which document each key is."""
    each = torch.tensor(lengths, device=call.q.device)
    number = torch.repeat_interleave(torch.arange(len(lengths), device=call.q.device), each)
    return number[: call.k.shape[2]]


def same_document(lengths: tuple[int, ...], call: Call) -> Tensor:
    """(queries, keys): whether a key is of the document in which the query stands, before it or behind."""
    if not call.k.shape[2]:
        return everything(call)
    number, (at, _) = numbers(lengths, call), places(call)
    return number[at.clamp(min=0)] == number


def shown(call: Call) -> Tensor | None:
    """(rows or 1, 1, queries, keys): what causal, window, prefix and documents show; None where none is told."""
    found: Tensor | None = None
    if call.prefix is not None:
        _, key = places(call)
        found = stacked(causal(call) | (key < size) for size in prefixes(call))
    elif call.documents is not None:
        found = stacked(causal(call) & same_document(row, call) for row in packings(call))
    elif call.causal:
        found = stacked([causal(call)])
    if call.window is None:
        return found
    near = stacked([distance(call).abs() < call.window])
    return near if found is None else found & near


# The other steps -----------------------------------------------------------------------------------------------------


def as_told(call: Call) -> Call:
    """The call as it is."""
    return call


def repeated(x: Tensor, group: int) -> Tensor:
    """Keys or values of each group for all of its heads: neighbours share."""
    return x if group == 1 else x.repeat_interleave(group, 1)


def is_grouped(call: Call) -> bool:
    """Whether heads share keys and values."""
    return 0 < call.k.shape[1] < call.q.shape[1]


def scale_of(call: Call) -> float:
    """The scale that was told, or 1/√head_dim."""
    return float(call.q.shape[-1] ** -0.5 if call.scale is None else call.scale)


def scored(q: Tensor, keys: Tensor, call: Call) -> Tensor:
    """Scaled products, (batch, heads, queries, keys), in the dtype of sums."""
    return wide(q) @ wide(keys).mT * scale_of(call)


def masked(scores: Tensor, call: Call) -> Tensor:
    """The scores under the mask that was told, boolean or to be added."""
    if call.mask is None:
        return scores
    if call.mask.dtype == torch.bool:
        return scores.masked_fill(~call.mask, -math.inf)
    return scores + call.mask


def softmax(scores: Tensor, call: Call) -> Tensor:
    """The weights: over the last axis; a row that sees nothing becomes zeros."""
    blind = scores.isneginf().all(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)


def as_found(result: Tensor, call: Call) -> Tensor:
    """The result as it is."""
    return result


def wide(x: Tensor) -> Tensor:
    """In the dtype of sums: at least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of the formula.

    Attributes:
        output: (batch, heads, queries, head_dim).
        size: the same sum over absolute values, the unit of rounding.
        rows: (batch, heads, queries, 1), false for queries without any weight, for which kernels may give anything.
    """

    output: Tensor
    size: Tensor
    rows: Tensor


@dataclass(frozen=True, kw_only=True)
class Formula:
    """The steps, of which a deviation is one other than these."""

    told: Told = as_told
    shown: Shown = shown
    shared: Shared = repeated
    scored: Scored = scored
    masked: Masked = masked
    weighed: Weighed = softmax
    returned: Returned = as_found

    def __call__(self, call: Call) -> Tensor:
        """The kernel: (batch, heads, queries, head_dim), of q's dtype."""
        weights, values = self.parts(call)
        return self.returned(weights.to(values.dtype) @ values, call)

    def parts(self, call: Call) -> tuple[Tensor, Tensor]:
        """The weights in the dtype of sums, and the values for all heads."""
        call = self.told(call)
        group = call.q.shape[1] // max(call.k.shape[1], 1)
        k, v, pattern = call.k, call.v, self.shown(call)
        if pattern is not None and call.q.shape[2]:
            # What no query sees may hold NaN, and 0 times NaN is NaN.
            unseen = ~rearrange(pattern.any(-2), "row head key -> row head key 1")
            k, v = k.masked_fill(unseen, 0.0), v.masked_fill(unseen, 0.0)
        keys, values = self.shared(k, group), self.shared(v, group)
        scores = self.masked(self.scored(call.q, keys, call), call)
        if pattern is not None:
            scores = scores.masked_fill(~pattern, -math.inf)
        return self.weighed(scores, call), values

    def result(self, call: Call) -> Result:
        """The result, with the unit of rounding."""
        weights, values = self.parts(call)
        weights = weights.to(values.dtype)
        return Result(
            output=self.returned(weights @ values, call),
            size=weights @ values.abs(),
            rows=(weights != 0.0).any(-1, keepdim=True),
        )
