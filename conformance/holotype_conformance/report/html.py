"""Reports as one offline page: properties × specs, and every failure explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holotype_conformance.judge.records import OUTCOMES, Report, Result
from holotype_conformance.report.declared import named, warnings
from holotype_conformance.report.text import MARKS, clean

QUIET = ("passed", "skipped", "not-run")  # what needs no more words than the table has


def html(reports: Sequence[Report]) -> str:
    """The page. Everything that comes from a candidate is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("holotype_conformance.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    page = environment.get_template("report.html")
    return page.render(
        reports=reports,
        rows=_rows(reports),
        failures=[(report, result) for report in reports for result in _shown(report)],
        skipped=[(report, *each) for report in reports for each in _skipped(report).items()],
        declared=[(report, each) for report in reports for each in report.declared],
        named=named,
        warnings=warnings,
        marks=MARKS,
        quiet=QUIET,
        outcomes=OUTCOMES,
    )


def _rows(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """One row a property: its facts and its result under each spec (None where it was not run)."""
    facts = {result.property: result for report in reports for result in report.results}
    found = [{result.property: result for result in report.results} for report in reports]
    return [
        {
            "property": slug,
            "group": slug.partition(".")[0],
            "clause": result.clause,
            "level": result.level,
            "cells": [results.get(slug) for results in found],
        }
        for slug, result in facts.items()
    ]


def _skipped(report: Report) -> dict[str, list[str]]:
    """Reason -> the properties that were skipped for it."""
    found: dict[str, list[str]] = {}
    for result in report.results:
        if result.outcome == "skipped":
            found.setdefault(result.reason or "", []).append(result.property)
    return found


def _shown(report: Report) -> list[Result]:
    if report.unusable is not None:
        return []
    return [result for result in report.results if result.outcome not in QUIET]
