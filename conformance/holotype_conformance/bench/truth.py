"""Is the result of a timed call right? Against the formula in float64, on the very numbers that it was given.

All of a long problem would take far longer than the call. Of the result, some rows of every head are compared; of the
gradients, those of one key-value head and the query heads that share it, whole. Both are drawn anew each time. The
budget is that of `holotype_conformance.kernels.tolerance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.cases import Problem
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.tolerance import allowed, error, plain_gradients
from holotype_spec.areas import Seen

ROWS = 32  # of the result
BLOCK = 128  # queries at a time, so that no matrix of the whole problem is built


def visible(seen: Seen, start: int, end: int) -> NDArray[np.bool_]:
    """(queries, end - start) boolean: which of the keys from `start` on each query sees."""
    bounds = np.asarray(seen).reshape(-1, 2)
    places = np.arange(start, end)
    found: NDArray[np.bool_] = (places >= bounds[:, :1]) & (places < bounds[:, 1:])
    return found


def demand_result(call: Call, seen: Seen, output: Tensor, rng: np.random.Generator) -> None:
    """Demand that some rows of the result are right.

    Raises:
        Violation: they are not.
    """
    count = call.q.shape[2]
    rows = sorted(rng.choice(count, size=min(ROWS, count), replace=False).tolist())
    chosen = tuple(seen[row] for row in rows)
    problem = _problem(call, call.q[:, :, rows], call.q[:, :, rows], chosen, 0, call.k.shape[2])
    expected = problem.expected()
    measured = error(plain(problem), expected.output, expected.output_size)
    found = error(output[:, :, rows], expected.output, expected.output_size)
    _demand(found, allowed(measured, output.dtype), "result")


def demand_gradients(
    call: Call,
    upstream: Tensor,
    seen: Seen,
    gradients: tuple[Tensor, ...],
    rng: np.random.Generator,
) -> None:
    """Demand that the gradients by q, k and v of some heads are right.

    Raises:
        Violation: they are not.
    """
    batch, kv_heads = call.k.shape[:2]
    group = call.q.shape[1] // kv_heads
    row, shared = int(rng.integers(batch)), int(rng.integers(kv_heads))
    rows, queries = slice(row, row + 1), slice(shared * group, (shared + 1) * group)
    keys = slice(shared, shared + 1)
    part = Call(q=call.q[rows, queries], k=call.k[rows, keys], v=call.v[rows, keys])
    total = _Sums.over(part, upstream[rows, queries], seen)
    found = (gradients[0][rows, queries], gradients[1][rows, keys], gradients[2][rows, keys])
    for name, gradient in zip("qkv", found, strict=True):
        right, size = total.exact[name], total.sizes[name]
        measured = error(total.plain[name], right, size)
        _demand(
            error(gradient, right, size), allowed(measured, gradient.dtype), f"gradient by {name}"
        )


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Gradients of a few heads, summed over blocks of queries: exact, their sizes, and those of the plain formula."""

    exact: dict[str, NDArray[np.float64]]
    sizes: dict[str, NDArray[np.float64]]
    plain: dict[str, Tensor]

    @classmethod
    def over(cls, call: Call, upstream: Tensor, seen: Seen) -> _Sums:
        shapes = {"q": call.q, "k": call.k, "v": call.v}
        total = cls(
            exact={name: np.zeros(tuple(x.shape)) for name, x in shapes.items()},
            sizes={name: np.zeros(tuple(x.shape)) for name, x in shapes.items()},
            plain={name: torch.zeros_like(x) for name, x in shapes.items()},
        )
        for problem, places in _blocks(call, upstream, seen):
            total.add(problem, places)
        return total

    def add(self, problem: Problem, places: dict[str, slice]) -> None:
        found = problem.expected(gradients=True)
        measured = plain_gradients(problem)
        assert found.gradients is not None
        assert found.gradient_sizes is not None
        for name, place in places.items():
            self.exact[name][:, :, place] += getattr(found.gradients, name)
            self.sizes[name][:, :, place] += getattr(found.gradient_sizes, name)
            self.plain[name][:, :, place] += measured[name]


def _blocks(call: Call, upstream: Tensor, seen: Seen) -> Iterator[tuple[Problem, dict[str, slice]]]:
    """The problem in blocks of queries, each with the keys that it sees, and where both belong."""
    for first in range(0, len(seen), BLOCK):
        rows = slice(first, min(first + BLOCK, len(seen)))
        part = seen[rows]
        start, end = min(a for a, _ in part), max(b for _, b in part)
        keys = slice(start, end)
        inner = Call(q=call.q, k=call.k[:, :, keys], v=call.v[:, :, keys], scale=call.scale)
        problem = _problem(inner, call.q[:, :, rows], upstream[:, :, rows], part, start, end)
        yield problem, {"q": rows, "k": keys, "v": keys}


def _problem(call: Call, q: Tensor, upstream: Tensor, seen: Seen, start: int, end: int) -> Problem:
    return Problem(
        call=Call(q=q, k=call.k, v=call.v, scale=call.scale),
        visible=visible(seen, start, end)[None, None],
        bias=None,
        upstream=upstream,
    )


def _demand(found: float, budget: float, what: str) -> None:
    if not found <= budget:
        raise Violation(
            f"the {what} differs from the formula in float64 by {found:.1e} (relative; the budget is"
            f" {budget:.1e})"
        )
