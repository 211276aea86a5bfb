"""Bugs that were reported of public code, and which deviations and edits reproduce each: ``reports.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import msgspec

from holotype_conformance.models.deviations.deviation import all_deviations

FILE = Path(__file__).with_name("reports.toml")


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bug; its fields are described at the head of the file."""

    id: str
    bug: str
    reports: tuple[str, ...]
    deviations: tuple[str, ...]
    edits: int
    without: str

    @property
    def shown_by(self) -> tuple[str, ...]:
        """The deviations that reproduce it: those named here, and those that cite a report of this bug alone."""
        own = {report for report in self.reports if _bugs_of(report) == 1}
        cited = (each.slug for each in all_deviations() if own & set(each.reports))
        return tuple(dict.fromkeys([*self.deviations, *cited]))

    @property
    def links(self) -> list[str]:
        """The places where it was reported, in Markdown."""
        return [link(report) for report in self.reports]


def link(report: str) -> str:
    """``owner/repository#number`` in Markdown."""
    return f"[{report}](https://github.com/{report.replace('#', '/issues/')})"


@cache
def all_reports() -> tuple[Report, ...]:
    """The whole list, in the file's order."""
    entries = tomllib.loads(FILE.read_text(encoding="utf-8"))["reports"]
    return msgspec.convert(entries, tuple[Report, ...])


def _bugs_of(report: str) -> int:
    return sum(report in each.reports for each in all_reports())
