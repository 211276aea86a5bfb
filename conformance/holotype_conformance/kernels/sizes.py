"""Sizes that a kernel takes where it does not take all: multiples of a block, a list, a least and a most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

# "lengths" are queries and keys both.
Axis = Literal["batch", "heads", "queries", "keys", "lengths", "head_dim"]
LARGEST = 4096  # nothing that is drawn is larger


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of an axis that a kernel takes: those that everything given here allows.

    Attributes:
        reason: why not the others; it is printed in every report.
        least, most: the smallest and the largest; no `most` for no end.
        multiple: what divides them.
        among: a list of them; empty for no list.
    """

    reason: str
    least: int = 1
    most: int | None = None
    multiple: int = 1
    among: tuple[int, ...] = ()

    def takes(self, size: int) -> bool:
        """Whether a size is one of them."""
        few = self.most is None or size <= self.most
        listed = not self.among or size in self.among
        return size >= self.least and few and size % self.multiple == 0 and listed

    def said(self) -> str:
        """In words."""
        parts = [f"at least {self.least}"] if self.least > 1 else []
        parts += [f"at most {self.most}"] if self.most is not None else []
        parts += [f"multiples of {self.multiple}"] if self.multiple > 1 else []
        parts += [f"one of {', '.join(map(str, self.among))}"] if self.among else []
        return ", ".join(parts) or "any"


def nearest(size: int, limits: Sequence[Sizes]) -> int | None:
    """The next size that all of `limits` take, from `size` up, else below it; None where there is none."""
    candidates = chain(range(size, LARGEST + 1), range(size - 1, 0, -1))
    return next((each for each in candidates if all(limit.takes(each) for limit in limits)), None)
