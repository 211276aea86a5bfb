"""What those get wrong who go through the keys in blocks, with a running maximum and sum (an "online" softmax).

Such a kernel takes from each block its powers exp(score - maximum so far), and multiplies what it has, the output and
the sum of the powers, by exp(old - new maximum) wherever a block raises the maximum (Milakov and Gimelshein 2018,
section 3; Dao et al. 2022, algorithm 1). The factors of all blocks that follow make one product, so that what became of
a key in such a loop is one expression:

    exp(score - m) · exp(m - M)      m: the maximum after the key's own block, M: after the last one

in the output and in the sum. A mistake leaves the second factor out of one of them, or takes it to another power. Each
is tried for every customary size of blocks, then for some others. One that can change nothing, for there is but one
block, explains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.diagnosis.changes import Array, Change, Terms, Visible

BLOCKS = (8, 16, 32, 64, 128, 256)
UNEVEN = (48, 80, 96, 100, 192)  # tried where none of the customary ones explains a failure
# With these numbers of keys no two blocks leave the same rests, nor lack as many keys to be full. Every block leaves
# one, and two of the largest have a third behind them.
LENGTHS = (261, 765, 385)
LOG2E = math.log2(math.e)


def tiled_changes(blocks: Iterable[int] = BLOCKS) -> Iterator[Change]:
    """Every mistake with every block."""
    for block in blocks:
        yield from _rescaling(block)
        yield from _apart(block)
        yield from _edges(block)
        yield from _skipped(block)


# The running maximum and sum -----------------------------------------------------------------------------------------


def _rescaling(block: int) -> Iterator[Change]:
    """Powers to which the factor is taken in the output and in the sum; right is one in both."""

    def change(
        slug: str, title: str, output: float, total: float, *, scaled: bool = False
    ) -> Change:
        def weighed(scores: Array, terms: Terms) -> Array | None:
            if scores.shape[-1] <= block or (scaled and terms.scale <= 0.0):
                return None
            power = terms.scale if scaled else 1.0
            return _online(scores, block, output=output / power, total=total / power)

        when = f"when a block of {block} keys raises the maximum"
        return Change(slug=f"blocks.{slug}.{block}", title=f"{title} {when}", weighed=weighed)

    both = "the accumulator and the running sum are"
    yield change("output-not-rescaled", "the accumulator is not rescaled", 0.0, 1.0)
    yield change("sum-not-rescaled", "the running sum is not rescaled", 1.0, 0.0)
    yield change("neither-rescaled", f"{both} not rescaled", 0.0, 0.0)
    yield change(
        "rescaled-by-exp2", f"{both} rescaled by exp2 but the powers are exp", *[1 / LOG2E] * 2
    )
    yield change("rescaled-by-exp", f"{both} rescaled by exp but the powers are exp2", LOG2E, LOG2E)
    yield change(
        "rescaled-without-scale", f"{both} rescaled by the unscaled maxima", 1.0, 1.0, scaled=True
    )


def _online(scores: Array, block: int, *, output: float, total: float) -> Array:
    """(batch, heads, queries, keys): the weights that such a loop ends up with."""
    starts = np.arange(0, scores.shape[-1], block)
    tops = np.maximum.accumulate(np.maximum.reduceat(scores, starts, axis=-1), axis=-1)
    tops = np.where(np.isfinite(tops), tops, 0.0)  # nothing seen so far: the scores are -inf
    own = np.repeat(tops, block, axis=-1)[..., : scores.shape[-1]]
    powers, fall = scores - own, own - tops[..., -1:]
    summed = np.exp(powers + total * fall).sum(axis=-1, keepdims=True)
    return np.asarray(np.exp(powers + output * fall) / np.where(summed == 0.0, 1.0, summed))


# Blocks that do not know of each other -------------------------------------------------------------------------------


def _apart(block: int) -> Iterator[Change]:
    def added(scores: Array, terms: Terms) -> Array | None:
        if scores.shape[-1] <= block:
            return None
        starts = range(0, scores.shape[-1], block)
        parts = [oracle.softmax(scores[..., start : start + block]) for start in starts]
        return np.concatenate(parts, axis=-1)

    def averaged(scores: Array, terms: Terms) -> Array | None:
        sums = added(scores, terms)
        # Of blocks that are hidden some kernels count and some do not.
        if sums is None or terms.visible is not None:
            return None
        return np.asarray(sums / math.ceil(scores.shape[-1] / block))

    each = f"each block of {block} keys has a softmax of its own, and their results are"
    yield Change(slug=f"blocks.added.{block}", title=f"{each} added", weighed=added)
    yield Change(slug=f"blocks.averaged.{block}", title=f"{each} averaged", weighed=averaged)


# The last block ------------------------------------------------------------------------------------------------------


def _edges(block: int) -> Iterator[Change]:
    def dropped(terms: Terms, case: AttentionCase) -> Terms | None:
        whole = case.keys // block * block
        return None if whole == case.keys else hidden(terms, np.arange(case.keys) < whole)

    def padded(scores: Array, terms: Terms) -> Array | None:
        keys = scores.shape[-1]
        # Where there is a mask, it mostly hides the padding too.
        if keys % block == 0 or terms.visible is not None:
            return None
        zeros = np.zeros((*scores.shape[:-1], -keys % block))
        return oracle.softmax(np.concatenate([scores, zeros], axis=-1))[..., :keys]

    yield Change(
        slug=f"blocks.rest-dropped.{block}",
        title=f"the keys after the last whole block of {block} are dropped",
        made=dropped,
    )
    yield Change(
        slug=f"blocks.padding-counted.{block}",
        title=f"the last block of {block} keys is padded with zero keys that the softmax counts",
        weighed=padded,
    )


# Blocks beyond the diagonal ------------------------------------------------------------------------------------------


def _skipped(block: int) -> Iterator[Change]:
    def skipping(seen: Callable[[int, int], Visible]) -> Callable[..., Terms | None]:
        def made(terms: Terms, case: AttentionCase) -> Terms | None:
            if case.mask not in ("causal", "window") or case.form != "arguments":
                return None
            return hidden(terms, seen(case.queries, case.keys))

        return made

    def before(queries: int, keys: int) -> Visible:
        """The loop over blocks ends before the one in which the diagonal of the first query of its tile lies."""
        first = np.arange(queries)[:, None] // block * block + keys - queries
        return np.asarray(np.arange(keys) < first // block * block)

    def corner(queries: int, keys: int) -> Visible:
        """It ends where it would if there were as many queries as keys."""
        return np.asarray(np.arange(keys) < (np.arange(queries)[:, None] // block + 1) * block)

    yield Change(
        slug=f"blocks.diagonal-skipped.{block}",
        title=f"the block of {block} keys that holds the diagonal is skipped",
        made=skipping(before),
    )
    yield Change(
        slug=f"blocks.upper-left.{block}",
        title=f"blocks of {block} keys are skipped as if the diagonal began at the first key",
        made=skipping(corner),
    )


def hidden(terms: Terms, shown: Visible) -> Terms:
    """The terms with fewer keys that are seen."""
    return replace(terms, visible=shown if terms.visible is None else terms.visible & shown)
