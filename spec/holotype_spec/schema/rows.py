"""One row of the table of parameters, and the kinds of rows that mechanisms are made of."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Literal

import msgspec

EXPERTS = "experts"  # the component of those of which a token uses a few
Role = Literal["embedding", "matrix", "bias", "gain", "shift", "score-bias", "choice-bias"]
Stack = Literal["encoder", "decoder"]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One trainable tensor.

    `role` says how it acts (a `gain` multiplies after a norm, a `shift` adds to it, a `score-bias` adds to
    attention scores, a `choice-bias` to what experts are chosen by); `component` groups counts; `residual` says
    that what it produces is written into the residual stream; `backbone` is false for what only the pretraining
    heads own.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    component: str
    residual: bool = False
    backbone: bool = True

    def __post_init__(self) -> None:
        prod(
            self.shape
        )  # which an undisclosed size refuses here, and not when somebody reads the shape

    @property
    def size(self) -> int:
        """The number of its elements."""
        return prod(self.shape)


def table(name: str, rows: int, size: int, component: str) -> Parameter:
    """Rows that are looked up and added to what enters a stack."""
    # A post-norm or an embedding norm stands between these tables and the residual stream.
    return Parameter(
        name=f"{name}.weight",
        shape=(rows, size),
        role="embedding",
        component=component,
        residual=True,
    )


def linear(
    name: str, outputs: int, inputs: int, component: str, *, bias: bool, residual: bool = False
) -> Iterator[Parameter]:
    """A matrix, and its bias."""
    yield Parameter(
        name=f"{name}.weight",
        shape=(outputs, inputs),
        role="matrix",
        component=component,
        residual=residual,
    )
    if bias:
        yield Parameter(
            name=f"{name}.bias",
            shape=(outputs,),
            role="bias",
            component=component,
            residual=residual,
        )


def vector(name: str, shape: tuple[int, ...], role: Role, component: str) -> Parameter:
    """Numbers that are used as they are, and by no layer of their own."""
    return Parameter(name=name, shape=shape, role=role, component=component)


def bucket_biases(name: str, buckets: int, heads: int) -> Parameter:
    """A bias for each bucket of distances and each head."""
    return Parameter(
        name=f"{name}.relative_bias.weight",
        shape=(buckets, heads),
        role="score-bias",
        component="relative position biases",
    )
