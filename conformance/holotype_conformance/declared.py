"""What a candidate declared, in words: for every form of a report. No torch here."""

from __future__ import annotations

from holotype_conformance.records import Declaration, Report

HEADING = "declared by the candidate, and believed"


def named(declaration: Declaration) -> str:
    """What is declared, in a few words, without the reason."""
    match declaration.kind:
        case "absent":
            return f"cannot do: {declaration.name}"
        case "holds":
            return f"weights held otherwise: {declaration.name}"
        case "floor":
            return f"{declaration.name} off by up to {declaration.allowed:g}"
        case "difference":
            return f"not as the spec in {declaration.name}"


def warnings(report: Report) -> list[str]:
    """What weakens the verdict, or should be known beside it: sentences that stand beside it in every output."""
    said = []
    for each in report.declared:
        if each.kind == "floor":
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
    return said
