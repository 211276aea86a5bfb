"""Mistakes of kernels that go through the keys in blocks, with a running maximum and sum (an "online" softmax).

Such a kernel takes from each block its powers exp(score - maximum so far), and multiplies what it has, the output and
the sum of the powers, by exp(old - new maximum) wherever a block raises the maximum (Milakov and Gimelshein 2018,
section 3; Dao et al. 2022, algorithm 1). The factors of all blocks that follow make one product, so that what became of
a key in such a loop is one expression:

    exp(score - m) · exp(m - M)      m: the maximum after the key's own block, M: after the last one

in the output and in the sum. A mistake leaves the second factor out of one of them, or takes it to another power. Each
is in the catalogue for every customary size of blocks, and for some others. One that can change nothing, for there is
but one block, explains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import (
    deviates,
    has_spans,
    hides_nothing,
)
from holotype_conformance.kernels.deviations.formula import (
    Weighed,
    lengths,
    places,
    scale_of,
    shown,
    softmax,
    stacked,
)

BLOCKS = (8, 16, 32, 64, 128, 256)
UNEVEN = (48, 80, 96, 100, 192)  # tried where none of the customary ones explains a failure
LOG2E = math.log2(math.e)


def _many(block: int) -> Callable[[Call], bool]:
    """More keys than one block holds."""
    return lambda call: call.k.shape[2] > block


def _parts(x: Tensor, block: int, axis: int = -1) -> tuple[Tensor, ...]:
    """The blocks of an axis, the last of which may be less than full."""
    return torch.split(x, block, axis)


# The running maximum and sum -----------------------------------------------------------------------------------------

RESCALING = (
    (
        "output-not-rescaled",
        "the accumulator is not rescaled",
        (0.0, 1.0),
        "What earlier blocks gave keeps the factor of their own maximum: the later a large score"
        " comes, the more its weight is lost. Rows whose largest score is in their first block are"
        " right, and so is every short input. Multiply the accumulator by exp(old - new maximum)"
        " with the sum.",
    ),
    (
        "sum-not-rescaled",
        "the running sum is not rescaled",
        (1.0, 0.0),
        "The denominator counts earlier blocks by their own maximum, so that results are too"
        " small wherever a later block raises it. The factor exp(old - new maximum) belongs to the"
        " sum as to the accumulator.",
    ),
    (
        "neither-rescaled",
        "the accumulator and the running sum are not rescaled",
        (0.0, 0.0),
        "Weights still sum to one, but each block is measured by its own maximum: keys of early"
        " blocks count too much. The maximum was updated and the correction was not computed, or"
        " was from the new maximum twice.",
    ),
    (
        "rescaled-by-exp2",
        "the accumulator and the running sum are rescaled by exp2 but the powers are exp",
        (1 / LOG2E, 1 / LOG2E),
        "Half of the code was moved to exp2. Corrections are too near to one, and early blocks"
        " count too much wherever the maximum rises. Either both are exp2 of scores times log2(e),"
        " or both exp.",
    ),
    (
        "rescaled-by-exp",
        "the accumulator and the running sum are rescaled by exp but the powers are exp2",
        (LOG2E, LOG2E),
        "Half of the code was moved to exp2: powers are of scores times log2(e), and so is the"
        " maximum, whose difference is handed to exp. Early blocks count too little wherever the"
        " maximum rises.",
    ),
)


def _online(block: int, output: float, total: float, *, scaled: bool = False) -> Weighed:
    """The weights that such a loop ends up with, from the powers to which the factor is taken; right is one in both."""

    def weighed(scores: Tensor, call: Call) -> Tensor:
        power = scale_of(call) if scaled else 1.0
        tops = torch.stack([part.amax(-1) for part in _parts(scores.detach(), block)], -1)
        tops = tops.cummax(-1).values
        tops = tops.masked_fill(tops.isneginf(), 0.0)  # nothing seen so far
        own = tops.repeat_interleave(block, -1)[..., : scores.shape[-1]]
        powers, fall = scores - own, own - tops[..., -1:]
        summed = (powers + total / power * fall).exp().sum(-1, keepdim=True)
        found = (powers + output / power * fall).exp()
        return found / summed.masked_fill(summed == 0.0, 1.0)

    return weighed


def _rescaling(block: int) -> None:
    when = f"when a block of {block} keys raises the maximum"
    for slug, title, (output, total), meaning in RESCALING:
        deviates(
            f"blocks.{slug}.{block}",
            f"{title} {when}",
            meaning,
            block=block,
            where=_many(block),
            weighed=_online(block, output, total),
        )
    deviates(
        f"blocks.rescaled-without-scale.{block}",
        f"the accumulator and the running sum are rescaled by the unscaled maxima {when}",
        "The maximum is kept of the products, and the scale is applied in the powers alone."
        " Corrections are exp of a difference that is √head_dim times too large: earlier blocks"
        " all but vanish. Keep the maximum of scaled scores, or scale the difference.",
        block=block,
        where=lambda call: call.k.shape[2] > block and scale_of(call) > 0.0,
        weighed=_online(block, 1.0, 1.0, scaled=True),
    )


# Blocks that do not know of each other -------------------------------------------------------------------------------


def _each(block: int, call: Call, scores: Tensor) -> Tensor:
    return torch.cat([softmax(part, call) for part in _parts(scores, block)], -1)


def _apart(block: int) -> None:
    each = f"each block of {block} keys has a softmax of its own, and their results are"

    def added(scores: Tensor, call: Call) -> Tensor:
        return _each(block, call, scores)

    def averaged(scores: Tensor, call: Call) -> Tensor:
        return added(scores, call) / math.ceil(scores.shape[-1] / block)

    deviates(
        f"blocks.added.{block}",
        f"{each} added",
        "Results grow with the number of blocks, for weights sum to one in each. Partial results"
        " of splits over the keys are to be weighed by their sums of powers, exp(log of the sum),"
        " before they are added (Dao et al. 2022, appendix B).",
        block=block,
        where=_many(block),
        weighed=added,
    )
    deviates(
        f"blocks.averaged.{block}",
        f"{each} averaged",
        "Each block counts the same, whatever its scores: the key that the query looks for is one"
        " among its block's, and its block one of many. Splits over the keys are to be weighed by"
        " their sums of powers, not by one over their number.",
        block=block,
        # Of blocks that are hidden some kernels count and some do not.
        where=lambda call: call.k.shape[2] > block and hides_nothing(call),
        weighed=averaged,
    )


# The last block ------------------------------------------------------------------------------------------------------


def _edges(block: int) -> None:
    def dropped(call: Call) -> Tensor:
        _, key = places(call)
        return _and(call, (key < call.k.shape[2] // block * block).expand(lengths(call)))

    def padded(scores: Tensor, call: Call) -> Tensor:
        keys = scores.shape[-1]
        zeros = scores.new_zeros((*scores.shape[:-1], -keys % block))
        return softmax(torch.cat([scores, zeros], -1), call)[..., :keys]

    deviates(
        f"blocks.rest-dropped.{block}",
        f"the keys after the last whole block of {block} are dropped",
        "The number of blocks was rounded down. The last keys are the nearest ones, so that much"
        " is lost. Every test whose lengths are multiples of the block passes: divide and round"
        " up, and mask the last block.",
        block=block,
        where=lambda call: call.k.shape[2] % block != 0,
        shown=dropped,
    )
    deviates(
        f"blocks.padding-counted.{block}",
        f"the last block of {block} keys is padded with zero keys that the softmax counts",
        "Keys that were read as zeros have a score of zero, which is not small: the sum is too"
        " large, the more so the less full the last block is. Set scores beyond the last key to"
        " -inf; a causal mask hides them by chance.",
        block=block,
        # Where there is a mask, it mostly hides the padding too.
        where=lambda call: call.k.shape[2] % block != 0 and hides_nothing(call),
        weighed=padded,
    )


# Blocks beyond the diagonal ------------------------------------------------------------------------------------------


def _skipped(block: int) -> None:
    def before(call: Call) -> Tensor:
        """The loop over blocks ends before the one in which the diagonal of the first query of its tile lies."""
        queries, keys = lengths(call)
        (_, key), tile = places(call), _tiles(call)
        return _and(call, key < (tile * block + keys - queries) // block * block)

    def corner(call: Call) -> Tensor:
        """It ends where it would if there were as many queries as keys."""
        (_, key), tile = places(call), _tiles(call)
        return _and(call, key < (tile + 1) * block)

    def _tiles(call: Call) -> Tensor:
        return torch.arange(call.q.shape[2], device=call.q.device)[:, None] // block

    def where(call: Call) -> bool:
        return call.causal and not has_spans(call)

    deviates(
        f"blocks.diagonal-skipped.{block}",
        f"the block of {block} keys that holds the diagonal is skipped",
        "Blocks behind the diagonal need no mask, and the loop over them is not followed by the"
        " one block that does: no query sees itself or its nearest predecessors. End the loop with"
        " the block in which the tile's last query stands.",
        block=block,
        where=where,
        shown=before,
    )
    deviates(
        f"blocks.upper-left.{block}",
        f"blocks of {block} keys are skipped as if the diagonal began at the first key",
        "The mask inside a block is right, and the number of blocks that are visited is that of a"
        " square: with more keys than queries, as in decoding with a cache, the last ones are"
        " never read. Add keys - queries to where the loop ends.",
        block=block,
        where=where,
        shown=corner,
    )


def _and(call: Call, seen: Tensor) -> Tensor:
    """The mask of a call, less what is not in `seen` (queries, keys)."""
    found = shown(call)
    return stacked([seen]) if found is None else found & seen


# Blocks of a mask ----------------------------------------------------------------------------------------------------


def _of_first_row(block: int) -> None:
    """The blocks that a mask leaves are decided by the first row of the batch."""

    def told(call: Call) -> Call:
        mask = call.mask
        assert mask is not None
        queries, keys = lengths(call)
        mask = mask.expand(*mask.shape[:2], queries, keys)
        seen = mask if mask.dtype == torch.bool else mask > -torch.inf
        visited = _by_blocks(seen[:1].any(1, keepdim=True), block)
        if mask.dtype == torch.bool:
            return replace(call, mask=mask & visited)
        return replace(call, mask=mask.masked_fill(~visited, -torch.inf))

    deviates(
        f"blocks.of-first-row.{block}",
        f"blocks of {block} keys are skipped that the first row of the batch does not see",
        "Blocks that a mask hides whole are left out, and which ones is asked of the first row"
        " alone. A longer row of the same batch loses its end. Sort a batch by length, and it is"
        " right or wrong by the order.",
        block=block,
        where=lambda call: call.mask is not None and len(call.mask) > 1,
        told=told,
    )


def _by_blocks(seen: Tensor, block: int) -> Tensor:
    """Each block (…, queries, keys) shown whole if any of it is."""
    for axis in (-2, -1):
        parts = [part.any(axis, keepdim=True).expand_as(part) for part in _parts(seen, block, axis)]
        seen = torch.cat(parts, axis) if parts else seen
    return seen


for _block in (*BLOCKS, *UNEVEN):
    _rescaling(_block)
    _apart(_block)
    _edges(_block)
    _skipped(_block)
    _of_first_row(_block)
