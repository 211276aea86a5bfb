"""A candidate's declarations, in words: for every form of a report. No torch here."""

from __future__ import annotations

from holotype_conformance.judge.records import REFUSES, Declaration, Report

HEADING = "declared by the candidate, and believed"


def named(declaration: Declaration) -> str:
    """A declaration in a few words, without the reason."""
    match declaration.kind:
        case "absent":
            return f"cannot do: {declaration.name}"
        case "holds":
            return f"weights held otherwise: {declaration.name}"
        case "floor":
            return f"{declaration.name} off by up to {declaration.allowed:g}"
        case "difference":
            return f"not as the spec in {declaration.name}"
        case "sizes":
            return f"sizes that it takes: {declaration.name}"
        case "required":
            return f"must be told in every call: {declaration.name}"


def warnings(report: Report) -> list[str]:
    """Notes that weaken the verdict, or should be known beside it: sentences that stand beside it in every output."""
    said = []
    for each in report.declared:
        if each.kind == "floor" and each.name == "weights":
            said.append(
                f"The candidate states that its weights may be off by {each.allowed:g} of their size ({each.reason}):"
                " its outputs were compared with what the weights that it hands out should give"
            )
        elif each.kind == "floor":
            said.append(
                f"The candidate states that {each.name} may be off by {each.allowed:g} of their size"
                f" ({each.reason}): a mistake that is smaller does not show"
            )
        elif each.kind == "difference":
            said.append(
                f"The candidate is stated not to be {report.spec} in {each.name} ({each.reason}): the rest was judged"
                " without it"
            )
    if report.left_changed:
        said.append(
            "The candidate changed settings of the process that ran it and left them so:"
            f" {', '.join(report.left_changed)}; they were put back each time"
        )
    return [*said, *_unjudged(report)]


def _unjudged(report: Report) -> list[str]:
    """The cases that a kernel refuses of those that it seems to take, and how little is left if that is little."""
    refusals: dict[str, int] = {}
    for result in report.results:
        if result.outcome == "skipped" and (result.reason or "").startswith(REFUSES):
            reason = result.reason or ""
            refusals[reason] = refusals.get(reason, 0) + 1
    said = []
    for reason, number in refusals.items():
        left = "a property was" if number == 1 else f"{number} properties were"
        said.append(
            f"Nothing is known of a part of what its signature takes: {reason}; {left} skipped for it, and `absent`"
            " can declare it"
        )
    judged = [result for result in report.results if not result.property.startswith("hardware.")]
    ran = sum(result.ran for result in judged)
    if report.parameters is None and refusals and ran < len(judged) / 2:
        said.append(f"No more than {ran} of {len(judged)} properties could judge it")
    return said
