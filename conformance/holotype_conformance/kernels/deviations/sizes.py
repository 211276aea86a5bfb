"""Kernels that are right at some sizes: buffers that are too small, loops that need full blocks, and empty inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from holotype_conformance.judge.deviation import says
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import (
    CATALOGUE,
    RIGHT,
    KernelDeviation,
    codes,
)

MOST = 64
BLOCK = 32
WORDS = {"queries": "queries", "keys": "keys", "lengths": "queries and keys"}
MEANINGS = {
    ("queries", "most"): (
        "A tile or a buffer for queries, shared memory or a static array, ends there, and what"
        " lies beyond was computed from what happened to be in it. The number says which: look for"
        " it among the constants."
    ),
    ("keys", "most"): (
        "Scores of a query are kept in a buffer of that many, or a grid of blocks is no larger."
        " Texts that are longer are cut, silently. Go through the keys in a loop, or refuse more"
        " of them in words."
    ),
    ("lengths", "most"): (
        "The matrix of scores, or an index into it, has room for the square of that many: 8 bits"
        " of each, or a product that overflows. Use wider indices."
    ),
    ("queries", "multiple"): (
        "Queries of a last block that is not full are computed with those beyond the end, or"
        " stored at their places. Mask loads and stores of the last block."
    ),
    ("keys", "multiple"): (
        "The last block of keys is read beyond its end, and what stands there takes part in the"
        " softmax. Set scores beyond the last key to -inf, for every mask."
    ),
    ("lengths", "multiple"): (
        "The kernel was written for full tiles in both directions. Mask the edges, or declare the"
        " sizes that it takes, which is told wherever they are not met."
    ),
    ("queries", "one-or-multiple"): (
        "The number of tiles is rounded down, and is at least one. Up to one tile all is right,"
        " so that small tests pass and decoding does; then the last queries are lost. Round up."
    ),
    ("keys", "one-or-multiple"): (
        "The number of blocks is rounded down, and is at least one. Up to one block all is right,"
        " so that small tests pass; then the last keys are lost, which are the nearest. Round up."
    ),
    ("lengths", "one-or-multiple"): (
        "The number of tiles is rounded down, and is at least one, in both directions. One tile"
        " is right and so is any full number of them. Round up."
    ),
}


@dataclass(frozen=True, kw_only=True)
class SizeDeviation(KernelDeviation):
    """A kernel whose results are a tenth too large where its numbers of queries and keys are such."""

    wrong: Callable[[int, int], bool]

    def attention(self, call: Call) -> Tensor:
        found = RIGHT(call)
        return found * 1.1 if self.wrong(call.q.shape[2], call.k.shape[2]) else found


def said(axis: str, kind: str, number: int) -> str:
    """The sizes at which such a kernel is right, in words."""
    if kind == "most":
        return f"is right up to {number} {WORDS[axis]} and wrong beyond"
    if kind == "one-or-multiple":
        return f"is right up to {number} {WORDS[axis]} and where they are multiples of {number}, and wrong elsewhere"
    return f"is right where {WORDS[axis]} are multiples of {number} and wrong elsewhere"


def _sized(axis: str, kind: str) -> None:
    number = MOST if kind == "most" else BLOCK

    def off(length: int) -> bool:
        if kind == "most":
            return length > number
        return length % number != 0 and (kind == "multiple" or length > number)

    def wrong(queries: int, keys: int) -> bool:
        if axis == "lengths" and kind == "most":
            return queries * keys > number * number
        sizes = {"queries": [queries], "keys": [keys], "lengths": [queries, keys]}[axis]
        return any(map(off, sizes))

    CATALOGUE.register(
        SizeDeviation(
            slug=f"sizes.{axis}-{kind}.{number}",
            title=says(f"it {said(axis, kind, number)}"),
            meaning=MEANINGS[axis, kind],
            block=number,
            wrong=wrong,
        )
    )


for _axis, _kind in MEANINGS:
    _sized(_axis, _kind)


# Nothing at all -------------------------------------------------------------------------------------------------


@codes(
    "empty.refused",
    "a call with nothing to do raises",
    "A batch without rows, or no query, is what is left when all sequences of a server have"
    " ended, or one expert is chosen by no token. A grid of no blocks cannot be launched: return"
    " an empty tensor before it is.",
)
def refused(call: Call) -> Tensor:
    if not call.q.numel():
        raise RuntimeError("invalid configuration: an empty grid")
    return RIGHT(call)


@codes(
    "empty.no-keys-refused",
    "a call without keys raises",
    "The first step of cross-attention to an empty source has queries and no key. The maximum of"
    " nothing does not exist; the empty sum does, and is zero. Return zeros where there are no"
    " keys.",
)
def no_keys_refused(call: Call) -> Tensor:
    def weighed(scores: Tensor, told: Call) -> Tensor:
        return RIGHT.weighed(scores - scores.amax(-1, keepdim=True).nan_to_num(neginf=0.0), told)

    return replace(RIGHT, weighed=weighed)(call)


@codes(
    "values.unseen-nan",
    "a NaN in the values that no query sees reaches the result",
    "Slots of a cache that were never written hold anything. Their weight is 0, and 0 times NaN"
    " is NaN. Leave out blocks that nobody sees, or select values by the mask before the product.",
)
def unseen_nan(call: Call) -> Tensor:
    weights, _ = RIGHT.parts(call)
    group = call.q.shape[1] // max(call.k.shape[1], 1)
    values = RIGHT.shared(call.v, group)
    return weights.to(values.dtype) @ values
