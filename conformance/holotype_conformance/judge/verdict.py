"""The verdict on a candidate under one spec, from what became of each property. No torch here.

A verdict is one of four, and each output says the same one: *conforms*, *does not conform* (something was seen that
must not be), *undecided* (a must did not end, or no number was compared: neither good nor bad is known), *not run*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from holotype_conformance.judge.records import Report, Request, Result, Verdict, count

COMPARISONS = "agreement."  # the properties without which nothing is known of the numbers


def reported(
    request: Request,
    results: tuple[Result, ...],
    *,
    spec: str,
    parameters: int | None,
    unusable: str | None,
    suite: int,
    **facts: Any,
) -> Report:
    """The report on one spec, with the verdict that follows from `results`.

    `suite` counts the properties of the whole suite; `facts` are the other fields of the report.
    """
    missing = None if parameters is None else uncompared(results)
    verdict = verdict_on(results, unusable=unusable, missing=missing)
    report = Report(
        spec=spec,
        seed=request.seed,
        profile=request.profile,
        parameters=parameters,
        unusable=unusable,
        results=results,
        counts=count(results),
        suite=suite,
        uncompared=missing,
        verdict=verdict,
        conforms=verdict == "conforms",
        conclusion="",
        **facts,
    )
    return msgspec.structs.replace(report, conclusion=conclusion(report, request))


def uncompared(results: Sequence[Result]) -> str | None:
    """Why no number was held against the reference's, where some were to be; else None."""
    comparing = [each for each in results if each.property.startswith(COMPARISONS)]
    if not comparing or any(each.outcome != "skipped" for each in comparing):
        return None
    return comparing[0].reason or "it was skipped"


def verdict_on(results: Sequence[Result], *, unusable: str | None, missing: str | None) -> Verdict:
    """The verdict that follows from the results; `missing` is why no number was compared."""
    if unusable is not None:
        return "not-run"
    if any(result.breaks for result in results):
        return "does-not-conform"
    undecided = any(result.undecided for result in results)
    if not undecided and not any(result.ran for result in results):
        return "not-run"
    return "undecided" if undecided or missing is not None else "conforms"


# In a sentence --------------------------------------------------------------------------------------------------


def conclusion(report: Report, request: Request) -> str:
    """The verdict in a sentence that claims no more than was judged."""
    name, spec = report.candidate, report.spec
    match report.verdict:
        case "conforms":
            return f"{name} conforms to {spec}{_scope(report, request)}{_stated(report)}{_known(report)}"
        case "does-not-conform":
            return f"{name} does not conform to {spec}"
        case "undecided":
            scope = _scope(report, request)
            return f"whether {name} conforms to {spec}{scope} is undecided: {_open(report)}"
    if report.unusable is not None:
        return f"{name} could not be run at all: {report.unusable}"
    if report.interrupted is not None:
        return f"nothing was judged of {name} against {spec}: the run was cut short by {report.interrupted}"
    return f"nothing was judged of {name} against {spec}: every property that was asked for was skipped"


def _scope(report: Report, request: Request) -> str:
    """The part of the suite that was asked for, where that is less than the whole."""
    said = ""
    if request.case is not None:
        said = " in one case"
    if len(report.results) < report.suite:
        number = report.ran if report.conforms else len(report.results)
        said += f" on {number} of {report.suite} properties"
    if request.dtypes:
        said += f" in {' and '.join(request.dtypes)} only"
    return said


def _stated(report: Report) -> str:
    """Declarations of the candidate that let more pass, or take something out."""
    kinds = [each.kind for each in report.declared]
    number = kinds.count("difference")
    within = " within the limits of precision that it states" if "floor" in kinds else ""
    return within + (
        f", but for {number} stated difference{'s' if number > 1 else ''}" if number else ""
    )


def _known(report: Report) -> str:
    number = report.counts["expected-failure"]
    if not number:
        return ""
    return f", but for {number} expected failure{'s' if number > 1 else ''}"


def _open(report: Report) -> str:
    """The reasons that keep a verdict from being one."""
    names = [result.property for result in report.results if result.undecided]
    said = []
    if report.interrupted is not None:
        said.append(f"the run was cut short by {report.interrupted}")
    if names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        verb = "is" if len(names) == 1 else "are"
        said.append(f"{len(names)} of the properties that it must have {verb} open ({shown})")
    if report.uncompared is not None:
        said.append(f"no number was compared with {report.spec}'s ({report.uncompared})")
    return "; ".join(said)
