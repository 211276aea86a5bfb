"""The share of the square of queries and keys that a mask shows, in pairs and in whole blocks: the work of attention.

Every mask here shows each query one unbroken run of keys, so that a mask is one interval a query.
The last query stands at the last key, as in decoding with a cache: the diagonal of query i is key
``i + keys - queries``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from holotype_spec.schema import Bidirectional, Causal, Pattern, SlidingWindow

Interval = tuple[int, int]  # of keys, the end not included
Seen = tuple[Interval, ...]  # one a query

BLOCK = 64  # queries, and keys, of a block that is computed or skipped as a whole


def full(queries: int, keys: int) -> Seen:
    """Everything."""
    return ((0, keys),) * queries


def band(queries: int, keys: int, before: int, after: int) -> Seen:
    """The diagonal key, `before` keys in front of it and `after` behind it."""
    diagonals = range(keys - queries, keys)
    return tuple((max(d - before, 0), max(min(d + after + 1, keys), 0)) for d in diagonals)


def causal(queries: int, keys: int) -> Seen:
    """The keys up to the diagonal."""
    return band(queries, keys, before=keys, after=0)


def window(queries: int, keys: int, size: int) -> Seen:
    """The last `size` keys up to the diagonal, the diagonal among them."""
    return band(queries, keys, before=size - 1, after=0)


def prefix(queries: int, keys: int, size: int) -> Seen:
    """The first `size` keys, and beyond them those up to the diagonal."""
    return tuple((0, max(end, min(size, keys))) for _, end in causal(queries, keys))


def documents(lengths: Sequence[int]) -> Seen:
    """Causal inside documents that lie one after the other."""
    starts = accumulate(lengths, initial=0)
    return tuple(
        (start, start + place + 1)
        for start, length in zip(starts, lengths, strict=False)
        for place in range(length)
    )


def pattern_seen(pattern: Pattern, queries: int, keys: int) -> Seen:
    """The area that a spec's pattern shows.

    Raises:
        ValueError: the pattern is none that shows each query one run of keys.
    """
    match pattern:
        case Bidirectional():
            return full(queries, keys)
        case Causal():
            return causal(queries, keys)
        case SlidingWindow(window=size):
            return window(queries, keys, size)
        case _:
            raise ValueError(f"{type(pattern).__name__} does not show each query one run of keys")


def pairs(seen: Seen) -> int:
    """Pairs of a query and a key that it sees: below this no exact attention gets."""
    return sum(max(end - start, 0) for start, end in seen)


def block_pairs(seen: Seen, keys: int, size: int = BLOCK) -> int:
    """The same when whole blocks of `size` queries by `size` keys are computed or skipped.

    Blocks at the edges count what of them lies inside.
    """
    total = 0
    for first in range(0, len(seen), size):
        rows = seen[first : first + size]
        columns = {
            block
            for start, end in rows
            if start < end
            for block in range(start // size, (end - 1) // size + 1)
        }
        total += len(rows) * sum(min(size, keys - block * size) for block in columns)
    return total
