"""Throughput over length as a picture: an SVG file for pages, and bars for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, log10

from holotype_conformance.bench.records import BenchReport, Measured
from holotype_conformance.bench.workloads import ModelWork

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 50
# Colour-blind safe (Okabe & Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
BAR = 30

# A label, and (length, tokens a second, fraction of the roofline).
Line = tuple[str, list[tuple[int, float, float]]]


def lines(measured: Sequence[Measured], part: str) -> list[Line]:
    """One line for each kind of problem that was timed at several lengths, by growing length."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for each in measured:
        if each.work.part == part and each.seconds:
            point = (_length(each), each.tokens_per_second, each.achieved)
            found.setdefault(_kind(each), []).append(point)
    return [(label, sorted(points)) for label, points in sorted(found.items())]


def _kind(measured: Measured) -> str:
    """The name without what depends on the length."""
    work = measured.work
    if isinstance(work, ModelWork):
        return f"{work.spec} batch {work.batch}"
    heads = f"{work.heads}" if work.heads == work.kv_heads else f"{work.heads}/{work.kv_heads}"
    count = f"-{len(work.sizes)}" if work.mask == "documents" else ""
    return f"{work.mask}{count} {work.batch}x{heads}x{work.head_dim}"


def _length(measured: Measured) -> int:
    work = measured.work
    return work.length + (work.cached if isinstance(work, ModelWork) else 0)


def terminal_chart(measured: Sequence[Measured], part: str) -> list[str]:
    """Bars, one a configuration; empty where there is nothing to compare."""
    found = lines(measured, part)
    fastest = max((rate for _, points in found for _, rate, _ in points), default=0.0)
    told = []
    for label, points in found:
        for place, (length, rate, _) in enumerate(points):
            bar = "█" * max(1, round(BAR * rate / fastest))
            told.append(f"  {label if not place else '':<26}{length:>6}  {bar} {short(rate)}/s")
    return told


def short(number: float) -> str:
    """Three digits and a letter: 141 k."""
    for letter in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{letter}"
        number /= 1000
    return f"{number:.3g} G"


def svg(report: BenchReport) -> str:
    """One picture: tokens a second over length, both logarithmic, a line for each kind of problem."""
    parts = sorted({each.work.part for each in report.measured if each.seconds})
    found = [
        (f"{label}, {part}", points)
        for part in parts
        for label, points in lines(report.measured, part)
    ]
    title = escape(f"{report.candidate}: tokens per second over length")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 14 * len(found)}"'
        f' font-family="sans-serif" font-size="12"><title>{title}</title>'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="22" font-size="15">{title}</text>'
    )
    return "\n".join([head, *_plot(found), "</svg>\n"])


def _plot(found: Sequence[Line]) -> Iterator[str]:
    points = [point for _, each in found for point in each]
    if not points:
        yield f'<text x="{LEFT}" y="60">nothing was timed</text>'
        return
    x = _scale([length for length, _, _ in points], LEFT, WIDTH - RIGHT)
    y = _scale([rate for _, rate, _ in points], HEIGHT - BOTTOM, TOP)
    for length in sorted({length for length, _, _ in points}):
        at = x(length)
        yield f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{length:,}</text>'
    for rate in _decades([rate for _, rate, _ in points]):
        at = y(rate)
        yield f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#ddd"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{rate:,.0f}</text>'
    for place, (label, each) in enumerate(found):
        told = [f"{short(rate)} tokens/s, {roof:.0%} of the roofline" for _, rate, roof in each]
        places = [(x(length), y(rate)) for length, rate, _ in each]
        yield from _drawn(place, label, places, told)


def _drawn(
    place: int, label: str, points: Sequence[tuple[float, float]], told: Sequence[str]
) -> Iterator[str]:
    colour = COLOURS[place % len(COLOURS)]
    dash = "" if place < len(COLOURS) else ' stroke-dasharray="5 3"'
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    for (a, b), words in zip(points, told, strict=True):
        title = f"<title>{escape(words)}</title>"
        yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}">{title}</circle>'
    row = HEIGHT + 14 * place
    yield f'<line x1="{LEFT}" y1="{row - 4}" x2="{LEFT + 24}" y2="{row - 4}" stroke="{colour}" stroke-width="2"{dash}/>'
    yield f'<text x="{LEFT + 30}" y="{row}">{escape(label)}</text>'


class _Scale:
    """Logarithmic, from values to places on the picture."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.first = log10(low), first
        self.slope = (last - first) / ((log10(high) - self.low) or 1.0)

    def __call__(self, value: float) -> float:
        return self.first + (log10(value) - self.low) * self.slope


def _scale(values: Sequence[float], first: float, last: float) -> _Scale:
    """With a margin of a tenth on both sides."""
    low, high = min(values) * 0.9, max(values) * 1.1
    return _Scale(low, high, first, last)


def _decades(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times the powers of ten within the values."""
    low, high = min(values) * 0.9, max(values) * 1.1
    marks = [
        m * 10.0**e for e in range(floor(log10(low)), ceil(log10(high)) + 1) for m in (1, 2, 5)
    ]
    return [mark for mark in marks if low <= mark <= high]
