"""The report that a person reads: one line a property, failures explained below, the verdict last.

Plain text, 80 columns unless the terminal is narrower; only lines that are to be copied (reruns) are never broken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import wrap
from typing import Any

import msgspec

from holotype_conformance.judge.records import Outcome, Report, Result, Verdict, encodable
from holotype_conformance.judge.texts import CONTROL, bounded
from holotype_conformance.report.declared import HEADING, named, warnings
from holotype_conformance.report.terminal import WIDTH

MARKS: dict[Outcome, str] = {
    "passed": "✓",
    "failed": "✗",
    "expected-failure": "~",
    "unexpected-pass": "!",
    "undecided": "?",
    "not-run": " ",
    "skipped": "–",
    "error": "!",
}
COLOURS: dict[Outcome, str] = {
    "passed": "green",
    "failed": "red",
    "expected-failure": "yellow",
    "unexpected-pass": "red",
    "undecided": "magenta",
    "not-run": "bright_black",
    "skipped": "bright_black",
    "error": "red",
}
VERDICT_COLOURS: dict[Verdict, str] = {
    "conforms": "green",
    "does-not-conform": "red",
    "undecided": "magenta",
    "not-run": "red",
}
UNCOMPARED = (
    "no number was compared: an adapter's `load` can hand weights over, and --property or a generic spec asks only"
    " for what needs none"
)
ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "–": "-",
        "—": "-",
        "…": "...",
        "·": "|",
        "×": "x",
        "’": "'",
        "→": "->",
        "≤": "<=",
        "√": "sqrt",
    }
)
_LABEL = 12
WRAPPED = 10_000  # characters: wrapping takes the square of the length of a word


class Painter:
    """The way in which text is drawn: with colours or without, and whether the encoding has our marks."""

    def __init__(self, *, colour: bool = False, unicode: bool = True, width: int = WIDTH) -> None:
        self.colour = colour
        self.unicode = unicode
        self.width = width

    def paint(self, text: str, colour: str | None = None, *, bold: bool = False) -> str:
        """`text`, coloured where colours are wanted."""
        if not self.colour:
            return text
        from click import style

        return style(text, fg=colour, bold=bold or None)

    def finish(self, lines: Iterable[str]) -> str:
        """The lines as one text that the encoding can carry."""
        text = "\n".join(line.rstrip() for line in lines)
        if self.unicode:
            return text
        return text.translate(ASCII).encode("ascii", "replace").decode()


def clean(text: str) -> str:
    """`text` without control characters other than tabs and line ends."""
    return CONTROL.sub("", encodable(text.replace("\r\n", "\n")))


def report_text(report: Report, painter: Painter, *, verbose: bool = False) -> str:
    """The whole report on one spec."""
    lines = [*_header(report, painter), ""]
    if report.unusable is None:
        for group, results in groupby(
            report.results, lambda result: result.property.partition(".")[0]
        ):
            lines += [painter.paint(group, bold=True), *_group(list(results), painter), ""]
        for result, *others in _told_once(_to_tell(report, verbose=verbose), verbose=verbose):
            lines += failure_lines(result, painter, verbose=verbose)
            if others:
                names = ", ".join(other.property for other in others)
                alike = "with this diagnosis" if result.diagnosis else "see the same"
                lines += _entry("also", f"{len(others)} more {alike}: {names}", painter)
            lines.append("")
    lines += _declared(report, painter)
    return painter.finish([*lines, *_verdict(report, painter), *_warned(report, painter)])


def _to_tell(report: Report, *, verbose: bool) -> list[Result]:
    quiet = {"passed", "skipped", "not-run"}
    quiet |= set() if verbose else {"expected-failure"}
    return [result for result in report.results if result.outcome not in quiet]


def _told_once(results: Iterable[Result], *, verbose: bool) -> list[list[Result]]:
    """Failures that say the same in other numbers, together: a forward that raises fails every property that calls it,
    and one mistake is the diagnosis of many failures.

    Where an error was measured that nothing explains each stands for itself, and so does each that nothing was called
    in. With `verbose` each is shown whose diagnosis is that of another.
    """
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(_told(result, verbose=verbose), []).append(result)
    return list(groups.values())


def _told(result: Result, *, verbose: bool) -> tuple[Any, ...]:
    """The key that is equal for failures that are shown together."""
    found = result.counterexample
    if result.diagnosis and not verbose:
        return (result.outcome, *(each.title for each in result.diagnosis))
    if found is None or "error" in found.facts or result.diagnosis:
        return (result.property,)
    said = re.sub(r"\d+", "#", result.reason or "")
    return (result.outcome, said, found.facts.get("path"))


def _header(report: Report, painter: Painter) -> Iterator[str]:
    title = clean(report.candidate)
    heading = f"holotype {report.holotype}: {title} against {report.spec}"
    yield from (painter.paint(line, bold=True) for line in _wrapped(heading, painter))
    facts = []
    if report.parameters is not None:
        facts.append(f"{report.parameters:,} parameters")
    facts += [report.profile, f"seed {report.seed}"]
    if report.environment is not None:
        facts += [report.environment.device, f"torch {report.environment.torch}"]
        facts.append(f"Python {report.environment.python}")
    yield from _wrapped(" · ".join(facts), painter)


def _group(results: list[Result], painter: Painter) -> Iterator[str]:
    names = [result.property.partition(".")[2] or result.property for result in results]
    column = max(map(len, names)) + 2
    for name, result in zip(names, results, strict=True):
        said = result.reason or result.clause
        room = painter.width - 4 - column
        mark = painter.paint(MARKS[result.outcome], COLOURS[result.outcome])
        told = result.level == "must" or result.outcome not in ("failed", "undecided")
        weight = "" if told else "(should) "
        line = cut(f"{weight}{clean(said)}", room)
        dim = result.outcome == "skipped"
        yield f"  {mark} {name:<{column}}{painter.paint(line, COLOURS['skipped']) if dim else line}"


def cut(text: str, room: int) -> str:
    """The first line of `text`, cut at a word to fit."""
    first = " ".join(text.split("\n")[0].split())
    if len(first) <= room:
        return first
    head = first[: max(room - 1, 1)]
    return (head.rsplit(" ", 1)[0] if " " in head else head).rstrip(",;:.") + "…"


def failure_text(result: Result) -> str:
    """A failure as plain text, for pytest."""
    return Painter().finish(failure_lines(result, Painter()))


def failure_lines(result: Result, painter: Painter, *, verbose: bool = False) -> Iterator[str]:
    """The observation, the smallest counterexample, its meaning and the line that reruns it."""
    mark = painter.paint(MARKS[result.outcome], COLOURS[result.outcome])
    outcome = "" if result.outcome == "failed" else f", {result.outcome.replace('-', ' ')}"
    yield f"{mark} {painter.paint(result.property, bold=True)} ({result.level}{outcome})"
    yield from _entry("seen", result.reason or "", painter)
    yield from _entry("expected", result.clause, painter)
    found = result.counterexample
    if found is not None and found.case:
        yield from _entry("case", _fields(found.case), painter)
    if result.depends is not None:
        yield from _entry("depends", result.depends, painter)
    if found is not None and found.facts:
        yield from _entry("measured", _fields(found.facts), painter)
    for diagnosis in result.diagnosis:
        yield from _entry("diagnosis", _diagnosed(diagnosis.title, diagnosis.residual), painter)
    if result.undiagnosed is not None:
        yield from _entry("diagnosis", f"none: {result.undiagnosed}", painter)
    if result.outcome != "error" and result.depends is None:
        yield from _entry("meaning", result.meaning, painter)
    if found is not None:
        yield _label("rerun", painter) + found.rerun  # in one piece, to be copied
    if verbose and result.details:
        yield from ("  | " + clean(line) for line in result.details.splitlines())


def _entry(label: str, text: str, painter: Painter) -> Iterator[str]:
    lines = wrap(bounded(clean(text), WRAPPED), painter.width - _LABEL, break_on_hyphens=False)
    if lines:
        yield _label(label, painter) + lines[0]
        yield from (" " * _LABEL + line for line in lines[1:])


def _label(label: str, painter: Painter) -> str:
    return f"  {painter.paint(label, 'cyan')}{' ' * (_LABEL - 2 - len(label))}"


def _fields(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _counted(outcome: Outcome, number: int) -> str:
    plurals = {
        "error": "errors",
        "unexpected-pass": "unexpected passes",
        "expected-failure": "expected failures",
    }
    words = plurals.get(outcome, outcome) if number > 1 else outcome.replace("-", " ")
    return f"{number} {words}"


def _diagnosed(title: str, residual: float | None) -> str:
    return title if residual is None else f"{title} (residual {residual:.1e})"


def _verdict(report: Report, painter: Painter) -> Iterator[str]:
    if report.unusable is not None:
        yield from _wrapped(clean(report.conclusion), painter)
        return
    counts = ", ".join(_counted(*entry) for entry in report.counts.items() if entry[1])
    cases = sum(result.cases for result in report.results)
    seconds = sum(result.seconds for result in report.results)
    tried = "1 case" if cases == 1 else f"{cases:,} cases"
    yield from _wrapped(f"{counts or 'nothing ran'} ({tried} in {seconds:.1f} s)", painter)
    if report.left:
        yield from (painter.paint(line, "yellow") for line in _wrapped(_left(report), painter))
    if report.verdict == "not-run" and report.interrupted is None:
        return
    yield from _causes(report, painter)
    if report.uncompared is not None:
        yield from (painter.paint(line, "yellow") for line in _wrapped(UNCOMPARED, painter))
    colour = VERDICT_COLOURS[report.verdict]
    lines = _wrapped(clean(report.conclusion), painter)
    yield from (painter.paint(line, colour, bold=True) for line in lines)


def _declared(report: Report, painter: Painter) -> Iterator[str]:
    """The candidate's declarations, each with its reason."""
    if not report.declared:
        return
    yield painter.paint(HEADING, bold=True)
    for each in report.declared:
        said = wrap(
            clean(f"{named(each)} ({each.reason})"), painter.width - 4, break_on_hyphens=False
        )
        yield f"  · {said[0]}"
        yield from (f"    {line}" for line in said[1:])
    yield ""


def _warned(report: Report, painter: Painter) -> Iterator[str]:
    """Notes that weaken the verdict, under it."""
    for said in warnings(report) if report.ran else ():
        yield from (painter.paint(line, "yellow") for line in _wrapped(f"{clean(said)}.", painter))


def _left(report: Report) -> str:
    """The processes that a candidate had left running; the first of many."""
    number = len(report.left)
    if number == 1:
        return f"the candidate had left a process running, which was ended: {clean(report.left[0])}"
    shown = ", ".join(map(clean, report.left[:3])) + (", …" if number > 3 else "")
    return f"the candidate had left {number} processes running, which were ended: {shown}"


def _causes(report: Report, painter: Painter) -> Iterator[str]:
    """Explanations of the failures, and how many each explains."""
    failed = [result for result in report.results if result.outcome == "failed"]
    titles = Counter(result.diagnosis[0].title for result in failed if result.diagnosis)
    for title, number in titles.most_common(3):
        whole = "the failure" if len(failed) == 1 else f"{number} of {len(failed)} failures"
        lines = _wrapped(
            f"{clean(report.candidate)} {clean(title)}: this explains {whole}", painter
        )
        yield from (painter.paint(line, "yellow") for line in lines)


def _wrapped(text: str, painter: Painter) -> list[str]:
    text = bounded(text, WRAPPED)
    return wrap(text, painter.width, break_long_words=False, break_on_hyphens=False)
