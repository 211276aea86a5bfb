"""Distances that the layers of a stack share, where queries and keys meet them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from einops import rearrange
from torch import Tensor

from holotype_reference.attention import Positioning, Positions
from holotype_reference.inputs import Call


@dataclass(frozen=True, kw_only=True)
class Distances(Positioning):
    """The distances that are passed to the layers of a stack.

    Attributes:
        rows: (batch or 1, rows, hidden_size), a vector for each distance that there is, or for several.
        index: (queries, keys), which of the rows is that of a query and a key.
        apart: (batch, queries, keys) whole numbers, 1 for a key of another segment than the query's and 0 for one of
            the same; None when all are of one.
    """

    rows: Tensor
    index: Tensor
    apart: Tensor | None = None

    def pick(self, products: Tensor) -> Tensor:
        """Of products with every row (batch or 1, heads, queries, rows) those with its own row for each query and key:
        (batch or 1, heads, queries, keys)."""
        return products.gather(-1, self.index.expand(*products.shape[:2], *self.index.shape))


class Meets(Protocol):
    """Attention whose own matrices meet distances."""

    def score_bias(self, query: Tensor, key: Tensor, distances: Distances) -> Tensor | None: ...


@dataclass(frozen=True, kw_only=True)
class Met(Positioning):
    """The effect of distances on the attention of one layer."""

    attention: Meets
    distances: Positioning

    def bias(self, query: Tensor, key: Tensor) -> Tensor | None:
        assert isinstance(self.distances, Distances)
        return self.attention.score_bias(query, key, self.distances)


class SharedDistances(Positions):
    """The distances that the layers of a stack share. Padding counts as tokens do."""

    name = "relative"

    def at(self, x: Tensor, inputs: Call) -> Positioning:
        keys = torch.arange(inputs.cached + x.shape[1], device=x.device)
        found = self.distances(keys[inputs.cached :], keys, x)
        if inputs.token_types is None:
            return found
        types = rearrange(inputs.token_types, "batch i -> batch i 1")
        return replace(found, apart=(types != types.mT).long())

    def distances(self, queries: Tensor, keys: Tensor, like: Tensor) -> Distances:
        """Positions of queries (queries), the last of the keys, and of keys (keys) -> the rows, in the dtype of `like`
        (batch, …), and which is whose."""
        raise NotImplementedError


def added(bias: Tensor | None, term: Tensor) -> Tensor:
    """The sum, the one that may be missing being zero."""
    return term if bias is None else bias + term
