"""Figures as people print them: digits, a unit, and how much the digits say.

"1.1 亿" is 1.1 × 10^8, and says no more than that the number lies between 1.05 and 1.15 × 10^8. Chinese texts
count in 万 (10^4) and 亿 (10^8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Dimension = Literal["number", "bytes", "share", "ratio", "days", "price"]

UNITS: dict[str, tuple[Dimension, Decimal]] = {
    "万": ("number", Decimal(10**4)),
    "亿": ("number", Decimal(10**8)),
    "K": ("number", Decimal(10**3)),
    "Ki": ("number", Decimal(1024)),  # of contexts: 8K is 8192
    "M": ("number", Decimal(10**6)),
    "B": ("number", Decimal(10**9)),
    "T": ("number", Decimal(10**12)),
    "GB": ("bytes", Decimal(10**9)),
    "TB": ("bytes", Decimal(10**12)),
    "%": ("share", Decimal("0.01")),
    "times": ("ratio", Decimal(1)),
    "times-more": ("ratio", Decimal(1)),  # "grew by three times": the quotient, less one
    "days": ("days", Decimal(1)),
    "USD": ("price", Decimal(1)),
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A number as it is printed: its `digits` ("1.1") and its `unit`, one of `UNITS` or None."""

    digits: str
    unit: str | None = None

    @property
    def dimension(self) -> Dimension:
        """The thing that is counted."""
        return "number" if self.unit is None else UNITS[self.unit][0]

    @property
    def value(self) -> Decimal:
        """The value of the figure, in ones."""
        return Decimal(self.digits) * self._scale

    @property
    def grain(self) -> Decimal:
        """The unit of its last digit; zeros at the end of a whole number say nothing ("1750" counts tens)."""
        whole, _, decimals = self.digits.partition(".")
        if decimals:
            return self._scale.scaleb(-len(decimals))
        zeros = len(whole) - len(whole.rstrip("0")) if whole.strip("0") else 0
        return self._scale.scaleb(zeros)

    def covers(self, number: Decimal) -> bool:
        """Whether `number` is printed like this when it is rounded to these digits."""
        return abs(number - self.value) * 2 <= self.grain

    @property
    def _scale(self) -> Decimal:
        return Decimal(1) if self.unit is None else UNITS[self.unit][1]

    def __str__(self) -> str:
        return self.digits if self.unit is None else f"{self.digits} {self.unit.replace('-', ' ')}"


def read_figure(text: str) -> Figure | None:
    """The figure that a source prints in one word ("1542M", "7.24B"), or None if the text is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBT]?)", text)
    return Figure(digits=match[1], unit=match[2] or None) if match else None


def printed(number: Decimal, unit: str | None) -> str:
    """`number` in a unit, to four digits at most, whole numbers without a unit in full."""
    if unit is None:
        return f"{number.normalize():,f}"
    scaled = number / UNITS[unit][1]
    places = max(0, 3 - max(scaled.adjusted(), 0)) if scaled else 0
    text = f"{scaled:.{places}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit.replace('-', ' ')}"
