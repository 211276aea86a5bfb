"""The foundations of every mechanism of the oracle: types, named parameters, a stack's input, a linear map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Scope:
    """The parameters whose names start with `prefix`."""

    weights: Mapping[str, Array]
    prefix: str = ""

    def __truediv__(self, name: str) -> Scope:
        return Scope(self.weights, f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.weights

    def __getitem__(self, name: str) -> Array:
        return self.weights[self.prefix + name]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stack's input: its vectors, where they stand, and which are real.

    Attributes:
        x: (batch, length, hidden_size).
        positions: (batch, length), or (batch, 2, length) where a token has two.
        real: (batch, length), false at padding.
        prefix: (batch,) how many places at the start all tokens see; None where nothing was said of it.
        right_to_left: each token sees itself and those behind it.
        types: (batch, length), token types that attention compares, if it does.
        order: (batch, length), the place of each position in the order of prediction, if there is one.
    """

    x: Array
    positions: Ids
    real: Mask
    prefix: Ids | None = None
    right_to_left: bool = False
    types: Ids | None = None
    order: Ids | None = None


def linear(p: Scope, x: Array) -> Array:
    y = x @ p["weight"].T
    return y + p["bias"] if "bias" in p else y


def prefixes(tokens: Ids, values: ArrayLike | None) -> Ids | None:
    """(batch,): the prefix of each row, as given."""
    if values is None:
        return None
    found = np.asarray(values, dtype=np.int64)
    if found.shape != tokens.shape[:1] or found.min() < 0 or found.max() > tokens.shape[1]:
        raise ValueError(
            f"prefix is {found.tolist()}; expected a number from 0 to {tokens.shape[1]} for each of {len(tokens)} rows"
        )
    return found


def like(tokens: Ids, values: ArrayLike, what: str) -> Ids:
    array = np.asarray(values, dtype=np.int64)
    if array.shape != tokens.shape:
        raise ValueError(
            f"{what} has the shape {array.shape}; expected {tokens.shape}, as the token ids"
        )
    return array
