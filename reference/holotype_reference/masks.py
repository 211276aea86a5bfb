"""Which keys each query may see, described as data and turned into a boolean matrix in one place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from einops import rearrange
from torch import Tensor

from holotype_spec import schema


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Query i, at index cached + i of the sequence, may see key j if the pattern allows it and key j is real.

    Attributes:
        pattern: which keys a query may see by their places.
        queries, keys: how many there are.
        cached: how many keys stand before the first query.
        padding: (batch, keys) boolean, true for a real key, or None when all are real.
        device: where the matrix is wanted.

    `is_full` and `is_causal` say what `visible` holds without building it, for kernels that need no matrix then; who
    overrides `allowed` must override them too.
    """

    pattern: schema.Pattern
    queries: int
    keys: int
    cached: int
    padding: Tensor | None
    device: torch.device

    @cached_property
    def visible(self) -> Tensor:
        """(batch or 1, 1, queries, keys) boolean, true where query i may see key j; the 1 is for the heads."""
        allowed = rearrange(self.allowed(), "queries keys -> 1 1 queries keys")
        if self.padding is None:
            return allowed
        return allowed & rearrange(self.padding, "batch keys -> batch 1 1 keys")

    @cached_property
    def sighted(self) -> Tensor:
        """(batch or 1, 1, queries, 1) boolean, false for a query that sees no key at all."""
        return self.visible.any(dim=-1, keepdim=True)

    @cached_property
    def open(self) -> Tensor:
        """`visible`, but a query that sees no key sees them all: for kernels that cannot stand a row without any."""
        return self.visible if self.padding is None else self.visible | ~self.sighted

    def silence(self, x: Tensor) -> Tensor:
        """Zero for the queries that see no key. x: (batch, heads, queries, anything)"""
        # Only padding can hide all keys from a query: every pattern shows each query its own place.
        return x if self.padding is None else x.masked_fill(~self.sighted, 0.0)

    def allowed(self) -> Tensor:
        """(queries, keys) boolean: the pattern alone."""
        i = rearrange(torch.arange(self.queries, device=self.device) + self.cached, "i -> i 1")
        j = rearrange(torch.arange(self.keys, device=self.device), "j -> 1 j")
        match self.pattern:
            case schema.Bidirectional():
                return (i >= 0) & (j >= 0)
            case schema.Causal():
                return j <= i
            case schema.SlidingWindow(window=window):
                return (j <= i) & (j > i - window)
            case _:
                raise unknown(self.pattern)

    @property
    def is_full(self) -> bool:
        """Every query sees every key, as far as this can be known without reading the padding."""
        if self.padding is not None:
            return False
        match self.pattern:
            case schema.Bidirectional():
                return True
            case schema.Causal():
                return self.queries == 1 and self.keys == self.cached + 1
            case schema.SlidingWindow(window=window):
                return self.queries == 1 and self.keys == self.cached + 1 <= window
            case _:
                raise unknown(self.pattern)

    @property
    def is_causal(self) -> bool:
        """Exactly the lower triangle of a square, which kernels know without a matrix."""
        if self.padding is not None or self.cached or self.queries != self.keys:
            return False
        match self.pattern:
            case schema.Bidirectional():
                return False
            case schema.Causal():
                return True
            case schema.SlidingWindow(window=window):
                return self.keys <= window
            case _:
                raise unknown(self.pattern)


def unknown(pattern: schema.Pattern) -> NotImplementedError:
    """What `holotype_reference.support` keeps from getting here."""
    return NotImplementedError(f"no mask for {type(pattern).__name__}")
