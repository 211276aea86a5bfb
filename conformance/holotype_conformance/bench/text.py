"""The report of a benchmark that a person reads: 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from textwrap import wrap

from holotype_conformance.bench.chart import terminal_chart
from holotype_conformance.bench.records import GATES, BenchReport, GateName, Measured, Verdict
from holotype_conformance.report.text import Painter, clean, cut

NAME = 28
# With their widths: together with the name no more than 80.
HEADS = {
    "ms": 7,
    "GFLOP/s": 8,
    "roof": 6,
    "sdpa": 6,
    "ref": 6,
    "other": 6,
    "FLOPs": 6,
    "MB": 7,
}
LEGEND = (
    "ms: of one call. GFLOP/s: of the least that the work takes. roof: of what the measured rates allow. sdpa, ref,"
    " other: time over that of scaled_dot_product_attention, the reference, the other. FLOPs: counted, over those"
    " of the blocks of 64 that the mask touches. MB: peak of live bytes."
)


def bench_text(report: BenchReport, painter: Painter) -> str:
    """The whole report."""
    lines = [*_header(report, painter), ""]
    for part in dict.fromkeys(each.work.part for each in report.measured):
        rows = [each for each in report.measured if each.work.part == part]
        lines += [*_table(report, part, rows, painter), ""]
    if any(each.seconds for each in report.measured):
        lines += [*wrap(LEGEND, painter.width), ""]
    if report.growth:
        lines += [*_growth(report, painter), ""]
    lines += [*_charts(report, painter)]
    lines += [*_gates(report, painter), ""]
    for verdict in _worst(report):
        lines += [*_failure(report, verdict, painter), ""]
    return painter.finish([*lines, *_conclusion(report, painter)])


def _header(report: BenchReport, painter: Painter) -> Iterator[str]:
    against = f" against {report.against}" if report.against else ""
    told = clean(f"holotype {report.holotype}: benchmark of {report.candidate}{against}")
    yield from (painter.paint(line, bold=True) for line in wrap(told, painter.width))
    where = report.environment
    before, after = report.load
    facts = [report.grid, f"seed {report.seed}", where.device, f"torch {where.torch}", "one thread"]
    facts.append(f"load {before:.1f} to {after:.1f}")
    yield from wrap(" · ".join(facts), painter.width)
    if report.control is not None:
        same, slowed = report.control.same.ratio, report.control.slowed.ratio
        yield from wrap(
            f"control: the same code against itself {same:.3f}, with a tenth more work {slowed:.3f}",
            painter.width,
        )


def _table(report: BenchReport, part: str, rows: list[Measured], painter: Painter) -> Iterator[str]:
    heads = {
        head: room for head, room in HEADS.items() if any(_cell(report, row, head) for row in rows)
    }
    titles = "".join(f"{head:>{room}}" for head, room in heads.items())
    yield painter.paint(f"{part:<{NAME}}", bold=True) + titles
    for row in rows:
        name = f"{row.work.name.removesuffix(f' {part}'):<{NAME}}"
        reason = row.error or row.undecided or row.lacks or "below the roofline: no time"
        if row.seconds:
            cells = (f"{_cell(report, row, head):>{room}}" for head, room in heads.items())
            yield name + "".join(cells)
        else:
            mark = "–" if row.lacks else "?" if row.undecided else "✗"
            yield f"{name}  {mark} {cut(clean(reason), painter.width - NAME - 4)}"


def _cell(report: BenchReport, row: Measured, column: str) -> str:
    if not row.seconds:
        return ""
    against = {"sdpa": "sdpa", "ref": "reference", "other": report.against or ""}
    if column in against:
        ratio = row.ratio(against[column])
        return "" if ratio is None else f"{ratio:.2f}"
    match column:
        case "ms":
            return f"{row.median * 1e3:.3g}"
        case "GFLOP/s":
            return f"{row.flops / row.median / 1e9:.3g}"
        case "roof":
            return f"{row.achieved:.0%}"
        case "FLOPs" if row.counts and row.block_flops:
            return f"{row.counts.flops / row.block_flops:.2f}"
        case "MB" if row.counts:
            return f"{row.counts.peak / 1e6:.3g}"
    return ""


def _growth(report: BenchReport, painter: Painter) -> Iterator[str]:
    yield painter.paint("memory, as a power of the length", bold=True)
    for each in report.growth:
        told = (
            f"{each.exponent:.2f}, {each.peaks[-1] / 1e6:.3g} MB at {each.lengths[-1]}"
            if each.peaks
            else ""
        )
        room = painter.width - NAME - 10
        yield f"  {each.mask + ' ' + each.part:<{NAME + 6}}  {cut(clean(each.error or each.undecided or told), room)}"


def _charts(report: BenchReport, painter: Painter) -> Iterator[str]:
    for part in dict.fromkeys(each.work.part for each in report.measured):
        chart = terminal_chart(report.measured, part)
        if chart:
            yield painter.paint(f"tokens a second over length, {part}", bold=True)
            yield from chart
            yield ""


def _gates(report: BenchReport, painter: Painter) -> Iterator[str]:
    yield painter.paint("gates", bold=True)
    for gate, clause in GATES.items():
        verdicts = [verdict for verdict in report.gates if verdict.gate == gate]
        if not verdicts:
            continue
        passed = sum(verdict.passed for verdict in verdicts)
        good = passed == len(verdicts)
        mark = painter.paint("✓" if good else "✗", "green" if good else "red")
        yield f"  {mark} {gate:<22}{f'{passed} of {len(verdicts)}':<11}{clause}"[
            : painter.width + 12
        ]


def _worst(report: BenchReport) -> list[Verdict]:
    """Of each gate that failed the smallest configuration."""
    found: dict[GateName, Verdict] = {}
    for verdict in report.failed():
        found.setdefault(verdict.gate, verdict)
    return list(found.values())


def _failure(report: BenchReport, verdict: Verdict, painter: Painter) -> Iterator[str]:
    count = sum(each.gate == verdict.gate for each in report.failed())
    more = f", the smallest of {count} configurations" if count > 1 else ""
    yield painter.paint(f"✗ {verdict.gate}", "red") + more
    yield from _entry("where", verdict.work, painter)
    yield from _entry("seen", verdict.reason, painter)
    limit = f" The limit is {verdict.limit:g}." if verdict.gate != "result.right" else ""
    yield from _entry("expected", GATES[verdict.gate] + limit, painter)
    if verdict.gate == "result.right":
        yield f"  {'why':<10}{_check(report)}"  # in one piece, to be copied


def _check(report: BenchReport) -> str:
    """The command that says what is wrong with the candidate."""
    if report.kind == "attention":
        return shlex.join(["holotype", "check-attention", report.target])
    specs = (part for spec in report.specs for part in ("--spec", spec))
    return shlex.join(["holotype", "check", report.target, *specs])


def _entry(label: str, said: str, painter: Painter) -> list[str]:
    lines = wrap(clean(said), painter.width - 12) or [""]
    return [f"  {label:<10}{lines[0]}", *(f"  {'':<10}{line}" for line in lines[1:])]


def _conclusion(report: BenchReport, painter: Painter) -> Iterator[str]:
    timed = sum(bool(each.seconds) for each in report.measured)
    skipped = sum(each.lacks is not None for each in report.measured)
    failed = len(report.failed())
    yield f"{timed} timed, {skipped} skipped, {len(report.gates)} gates, {failed} failed"
    for each in report.undecided():
        yield from wrap(clean(f"undecided: {each}; --timeout gives it longer"), painter.width)
    open_ = "is undecided" if report.undecided() and not report.failed() else "does not pass"
    verdict = "passes all gates" if report.passed else open_
    colour = "green" if report.passed else "red"
    yield painter.paint(clean(f"{report.candidate} {verdict}"), colour, bold=True)
