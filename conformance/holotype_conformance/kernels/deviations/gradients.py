"""Backward passes that are wrong where the forward pass is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.judge.deviation import says
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.backward import (
    BackwardDeviation,
    Gradients,
    Way,
    again,
)
from holotype_conformance.kernels.deviations.blocks import BLOCKS, LOG2E, UNEVEN
from holotype_conformance.kernels.deviations.deviation import (
    CATALOGUE,
    RIGHT,
    FormulaDeviation,
    anywhere,
)
from holotype_conformance.kernels.deviations.formula import is_grouped

# What a forward pass that is right may still hide or show otherwise on its way back.
MASKS = ("causal", "window", "band", "prefix", "documents")
SEEN = ("mask.ignored", "mask.inverted")


def _step(
    slug: str,
    title: str,
    meaning: str,
    made: Callable[[Way], Way],
    where: Callable[[Call], bool] = anywhere,
) -> None:
    _register(slug, title, meaning, lambda right: made(right).gradients(), where)


def _register(
    slug: str,
    title: str,
    meaning: str,
    made: Callable[[Way], Gradients],
    where: Callable[[Call], bool] = anywhere,
    block: int | None = None,
) -> None:
    CATALOGUE.register(
        BackwardDeviation(
            slug=f"gradients.{slug}",
            title=says(title),
            meaning=meaning,
            made=made,
            where=where,
            block=block,
        )
    )


# The scale ------------------------------------------------------------------------------------------------------

for _power, _name, _said, _meaning in (
    (
        0,
        "unscaled",
        "without the scale",
        "The scores were scaled on the way forward, and the chain rule has the same factor on the"
        " way back: {which} √head_dim times too large without it. Losses are right; clipping and"
        " Adam hide it, and the layer learns with another rate than its neighbours.",
    ),
    (
        2,
        "scaled-twice",
        "scaled twice",
        "The scale is a factor of the gradient by the scores, and was multiplied once more behind"
        " the product: {which} √head_dim times too small. Losses are right, and where to look is"
        " learned slowly. Scale in one place.",
    ),
):

    def _by_query(right: Way, power: int = _power) -> Way:
        return replace(right, by_query=right.by_query**power)

    def _by_key(right: Way, power: int = _power) -> Way:
        return replace(right, by_key=right.by_key**power)

    def _by_both(right: Way, power: int = _power) -> Way:
        return replace(right, by_query=right.by_query**power, by_key=right.by_key**power)

    _step(
        f"{_name}-q",
        f"the gradient by q is {_said}",
        _meaning.format(which="the gradient by q is"),
        _by_query,
    )
    _step(
        f"{_name}-k",
        f"the gradient by k is {_said}",
        _meaning.format(which="the gradient by k is"),
        _by_key,
    )
    _step(
        _name,
        f"the gradients by q and k are {_said}",
        _meaning.format(which="both of these are"),
        _by_both,
    )

# The softmax ----------------------------------------------------------------------------------------------------

_step(
    "mean-missing",
    "the gradient of the softmax lacks what is taken off, the sum of upstream times output",
    "The weights sum to one, and so their gradients to zero over a row: each is weight · (its own"
    " - the row's mean). Without the mean every key is pushed as if the others did not give way."
    " Compute the row sums before the loop (`delta` in the published codes), in float32.",
    lambda right: replace(right, mean=torch.zeros_like(right.mean)),
)
_step(
    "log-sum-base-two",
    "on the way back the logarithm of the sum has base 2 where the powers have base e",
    "The forward pass keeps m + log2(sum), as exp2 has it, and the backward pass takes exp(score"
    " - L): weights do not sum to one there. Convert by log(2) where the two meet, or use exp2 in"
    " both.",
    lambda right: replace(right, weights=again(right, RIGHT, LOG2E)),
)
_step(
    "log-sum-base-e",
    "on the way back the logarithm of the sum has base e where the powers have base 2",
    "The forward pass keeps the natural logarithm of the sum, and the backward pass takes exp2 of"
    " scaled scores less it: weights are too large, and the gradients with them. Multiply L by"
    " log2(e) with the scores.",
    lambda right: replace(right, weights=again(right, RIGHT, 1 / LOG2E)),
)

# Heads that share -----------------------------------------------------------------------------------------------


def _many_groups(call: Call) -> bool:
    return is_grouped(call) and call.k.shape[1] > 1


def _not_one_to_one(call: Call) -> bool:
    return is_grouped(call) or call.k.shape[1] > 1


for _heads, _said, _meaning, _where in (
    (
        "first",
        "those of the first head of each group alone",
        "Heads that share keys and values each have a gradient by them, and the sum is wanted."
        " One head's was taken: the keys learn what the first query head wants of them. Reduce"
        " over the group, or add atomically.",
        is_grouped,
    ),
    (
        "last",
        "those of the last head of each group alone",
        "The heads of a group write their gradients to one place, one after the other, and the"
        " last one stays. On a GPU it is another one each time. Add to what is there, or reduce"
        " over the group behind it.",
        is_grouped,
    ),
    (
        "mean",
        "the mean over each group of heads, and not the sum",
        "Repeating keys for a group is undone by a sum over the group, not by a mean: gradients"
        " are too small by the size of the group. Models learn, with a smaller rate for two of"
        " their matrices.",
        is_grouped,
    ),
    (
        "other-divisor",
        "added to head h // kv_heads, and not to head h // (heads / kv_heads)",
        "The number of groups and their size were exchanged in the index: right where both are"
        " equal, as for 4 heads on 2. Gradients of a head reach the keys of another group, or none"
        " at all.",
        _not_one_to_one,
    ),
    (
        "tiled",
        "added to head h % kv_heads (0 1 0 1), and not to neighbours (0 0 1 1)",
        "The way forward repeats heads (0 0 1 1), the way back sums them as if they were tiled."
        " The keys of each group learn from another's queries. Reduce the axis that was made by"
        " repeat_interleave.",
        _many_groups,
    ),
):

    def _shared(right: Way, heads: str = _heads) -> Way:
        return replace(right, heads=heads)

    _step(
        f"heads-{_heads}",
        f"the gradients by k and v are {_said}",
        _meaning,
        _shared,
        _where,
    )

# Masks ----------------------------------------------------------------------------------------------------------


def _backwards(deviation: FormulaDeviation) -> None:
    """The scores are another's on the way back, the logarithm of the sum is the right one."""

    def made(right: Way) -> Way:
        return replace(right, weights=again(right, deviation.formula))

    _step(
        deviation.slug,
        f"on the way back {deviation.words}",
        "The forward pass is right, and so is every loss at first; the backward pass computes the"
        " weights again, under"
        f" another mask than the kept logarithms of the sums are of. {deviation.meaning} In the backward pass masks are"
        " written a second time: test its gradients by themselves, against those of the formula.",
        made,
        deviation.where,
    )


for _deviation in list(CATALOGUE):
    _masks = _deviation.group in MASKS or _deviation.slug in SEEN
    if _masks and isinstance(_deviation, FormulaDeviation) and _deviation.named:
        _backwards(_deviation)

# Blocks ---------------------------------------------------------------------------------------------------------


def _last_keys(block: int) -> Callable[[Way], Gradients]:
    def made(right: Way) -> Gradients:
        keys = right.weights.shape[-1]
        found = replace(right, weights=right.weights * _from(keys, block, right)).gradients()
        return replace(right.gradients(), q=found.q)

    return made


def _last_queries(block: int) -> Callable[[Way], Gradients]:
    def made(right: Way) -> Gradients:
        seen = _from(right.weights.shape[-2], block, right)[:, None]
        found = replace(right, weights=right.weights * seen).gradients()
        return replace(right.gradients(), k=found.k, v=found.v)

    return made


def _from(length: int, block: int, right: Way) -> Tensor:
    """True from the beginning of the last block on."""
    return torch.arange(length, device=right.weights.device) >= (length - 1) // block * block


def _without_rest(block: int, *, queries: bool) -> Callable[[Way], Gradients]:
    def made(right: Way) -> Gradients:
        length = right.weights.shape[-2 if queries else -1]
        places = torch.arange(length, device=right.weights.device)
        kept = (places < length // block * block)[:, None]
        found = right.gradients()
        if queries:
            return replace(found, q=found.q * kept)
        return replace(found, k=found.k * kept, v=found.v * kept)

    return made


def _blocks(block: int) -> None:
    _register(
        f"overwritten-q.{block}",
        f"the gradient by q is that of the last block of {block} keys alone, and not the sum",
        "The outer loop goes over blocks of keys, and each writes the gradient by q instead of"
        " adding to it. One block of keys is right. Add, in float32, or let the outer loop go over"
        " queries for this gradient.",
        _last_keys(block),
        block=block,
    )
    _register(
        f"overwritten-k.{block}",
        f"the gradients by k and v are those of the last block of {block} queries alone, and not the sum",
        "The outer loop goes over blocks of queries, and each writes the gradients by k and v"
        " instead of adding to them. What a key is to earlier queries is lost, and these are most"
        " of them. Accumulate over queries.",
        _last_queries(block),
        block=block,
    )
    _register(
        f"rest-q.{block}",
        f"the gradient by q is lost where a last block of {block} queries is not full",
        "The backward pass's grid was rounded down: the last queries' gradient stays what the"
        " buffer held, zeros at best. The forward pass rounds up, so that losses are right. Use"
        " one function for both grids.",
        _without_rest(block, queries=True),
        block=block,
    )
    _register(
        f"rest-k.{block}",
        f"the gradients by k and v are lost where a last block of {block} keys is not full",
        "Stores of the last block are left out instead of masked: the newest tokens' keys and"
        " values are not trained. Lengths in training are mostly multiples of the block, and then"
        " nothing shows.",
        _without_rest(block, queries=False),
        block=block,
    )


for _block in (*BLOCKS, *UNEVEN):
    _blocks(_block)
