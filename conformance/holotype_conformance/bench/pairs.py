"""The timed gate: two things in one run, in alternating pairs, decided by the median of the paired ratios.

A window is 15 pairs. Something is slower if the median ratio of two windows, one after the other, lies over the limit:
if the first does not, nothing more is measured. Load comes and goes; it seldom lifts one side of most pairs, twice.
Stored times of earlier runs are never compared with: on a busy machine that cries wolf in a third of all runs.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from statistics import median

import msgspec

PAIRS = 15  # of a window
WINDOWS = 2  # in a row that must be over the limit
SAME_CODE = 1.05  # between two versions of one thing
OTHER_CODE = 1.30  # between different things: load slows them unequally
MOST, ROOM = 200, 1 << 26  # calls of a sample, and bytes of their inputs
SHORTEST = 0.02  # seconds of a sample; shorter ones scatter three times as much

Sampler = Callable[[int], float]  # the number of a pair -> seconds


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing two things.

    Attributes:
        against: the other one.
        ratio: median over all pairs of the candidate's time over the other's.
        windows: the median of each window.
        limit: None where the ratio is told and not judged.
        slower: whether it was over the limit in two windows in a row.
    """

    against: str
    ratio: float
    windows: tuple[float, ...]
    limit: float | None = None

    @property
    def slower(self) -> bool:
        """Whether every window was over the limit, and there were enough of them."""
        if self.limit is None or len(self.windows) < WINDOWS:
            return False
        return all(window > self.limit for window in self.windows)


def compare(
    candidate: Sampler,
    other: Sampler,
    *,
    against: str,
    limit: float | None,
    first: int = 0,
    pairs: int = PAIRS,
) -> Comparison:
    """Sample both in alternating pairs, one or two windows long.

    Args:
        candidate, other: take a sample; both are passed the number of the pair, for its inputs.
        against: what reports call the other.
        limit: for the ratio; None for a single window without judgement.
        first: the number of the first pair.
        pairs: of a window; fewer are for telling, not for judging.
    """
    ratios: list[float] = []
    windows: list[float] = []
    for window in range(WINDOWS if limit is not None else 1):
        found = [_pair(candidate, other, first + window * pairs + i) for i in range(pairs)]
        ratios += found
        windows.append(median(found))
        if limit is None or windows[-1] <= limit:
            break
    return Comparison(against=against, ratio=median(ratios), windows=tuple(windows), limit=limit)


def _pair(candidate: Sampler, other: Sampler, number: int) -> float:
    """One ratio; who comes first changes with each pair."""
    if number % 2:
        time = candidate(number)
        return time / other(number)
    base = other(number)
    return candidate(number) / base


def calls_for(seconds: float, size: int) -> int:
    """The number of calls that make a sample long enough for the clock, by the seconds of one and the bytes it moves.

    Each call has inputs of its own: something that returns at once must not fill the memory with them.
    """
    room = max(1, ROOM // max(size, 1))
    return min(max(1, ceil(SHORTEST / max(seconds, 1e-7))), room, MOST)
