"""Prefix-LM masks: the first keys are seen by every query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import has_prefix, hears, shows
from holotype_conformance.kernels.deviations.formula import (
    causal,
    everything,
    lengths,
    places,
    prefixes,
    stacked,
)

BLOCK = 16


def has_rows(call: Call) -> bool:
    """More than one prefix."""
    return has_prefix(call) and len(prefixes(call)) > 1


def _sized(call: Call, change: Callable[[int], int]) -> Call:
    """With every prefix changed."""
    keys = call.k.shape[2]
    sizes: Sequence[int] = [min(max(change(size), 0), keys) for size in prefixes(call)]
    return replace(call, prefix=tuple(sizes))


@hears(
    "prefix.ignored",
    "the prefix is ignored",
    "The prompt is read causally, as in a decoder: its first tokens know nothing of its last."
    " Outputs are fluent, and worse than the published ones. Look at who builds the mask where the"
    " prompt is processed.",
    where=has_prefix,
)
def ignored(call: Call) -> Call:
    return replace(call, prefix=None)


@hears(
    "prefix.longer",
    "the prefix is one longer",
    "The first token behind the prefix is seen by those before it: what is to be predicted leaks"
    " into the prompt, in training too. A separator that is counted to the prefix in one place and"
    " not in another does it.",
    where=has_prefix,
)
def longer(call: Call) -> Call:
    return _sized(call, lambda size: size + 1)


@hears(
    "prefix.shorter",
    "the prefix is one shorter",
    "The last token of the prompt is hidden from the others, though it is often the one that says"
    " what is asked. Compare `<` with `<=` where a key's place is held against the prefix.",
    where=has_prefix,
)
def shorter(call: Call) -> Call:
    return _sized(call, lambda size: size - 1)


@shows(
    "prefix.alone",
    "nothing but the prefix is seen",
    "Where the prefix is set, the causal part is left out: queries behind it do not see each"
    " other or themselves. The two masks are to be joined by or, and were joined by and.",
    where=has_prefix,
)
def alone(call: Call) -> Tensor:
    _, key = places(call)
    return stacked(everything(call) & (key < size) for size in prefixes(call))


@shows(
    "prefix.everything",
    "a prefix shows everything",
    "A mask that is not causal was taken for one that hides nothing: the answer is seen in"
    " training, and loss goes to zero. Only the columns of the prefix are to be shown to all.",
    where=has_prefix,
)
def shows_everything(call: Call) -> Tensor:
    return stacked(everything(call) for _ in prefixes(call))


@shows(
    "prefix.upper-left",
    "the diagonal behind the prefix starts at the first key instead of ending at the last",
    "In one pass over the whole text nothing shows. With a cache, where there are fewer queries"
    " than keys, the tokens that were generated are not seen. The place of a query is i + keys -"
    " queries.",
    where=has_prefix,
)
def prefix_upper_left(call: Call) -> Tensor:
    _, key = places(call)
    corner = torch.ones(lengths(call), dtype=torch.bool, device=call.q.device).tril()
    return stacked(corner | (key < size) for size in prefixes(call))


@hears(
    "prefix.first-row",
    "every row of the batch has the prefix of the first",
    "Alone in its batch every prompt is right. A kernel reads one number where there is one for"
    " each row: index it by the batch.",
    where=has_rows,
)
def first_row(call: Call) -> Call:
    return replace(call, prefix=prefixes(call)[0])


@hears(
    "prefix.longest-row",
    "every row of the batch has the prefix of the longest",
    "Of shorter prompts the beginning of the answer is shown to the prompt. The maximum is right"
    " for how many blocks are visited, and not for which keys of them are seen.",
    where=has_rows,
    named=False,
)
def longest_row(call: Call) -> Call:
    return replace(call, prefix=max(prefixes(call)))


@hears(
    "prefix.whole-blocks",
    "the block in which the prefix ends is shown whole",
    "Blocks before the edge are seen, those behind it are causal, and the one that holds it is"
    " taken for seen: up to fifteen tokens of the answer leak. The prefix is to be compared key by"
    " key in the block where it ends.",
    where=has_prefix,
    named=False,
)
def whole_blocks(call: Call) -> Call:
    return _sized(call, lambda size: -(-size // BLOCK) * BLOCK)


@shows(
    "prefix.zero-shows-all",
    "a prefix of none shows everything",
    "Zero is false, and what has no prefix is taken for what has no causal mask. A row of the"
    " batch without a prompt sees its future. Compare with None.",
    where=lambda call: has_prefix(call) and 0 in prefixes(call),
    named=False,
)
def zero_shows_all(call: Call) -> Tensor:
    _, key = places(call)
    return stacked(
        causal(call) | (key < size) if size else everything(call) for size in prefixes(call)
    )


@hears(
    "prefix.last-key-missing",
    "a prefix of all keys lacks the last one",
    "Where the whole text is prefix, as in an encoder, the last key is seen causally alone. A"
    " size that is clamped to keys - 1, as if it were an index, does it.",
    where=lambda call: has_prefix(call) and call.k.shape[2] in prefixes(call),
    named=False,
)
def last_key_missing(call: Call) -> Call:
    last = call.k.shape[2] - 1
    return _sized(call, lambda size: min(size, last))
