"""One value against another: does a figure of a document agree with what the catalogue knows?

The rules, in this order. `exact`: the same. `rounds`: what is known prints as the document's figure when it is rounded
to the digits that stand there, zeros at the end of a whole number saying nothing. `near`: no more than a tenth off,
or a word that means nearly the same. `contradicted`: neither. `undecidable`: nobody disclosed it. A bare whole
number (layers, heads, widths) is exact or contradicted, never nearly right.
"""

from __future__ import annotations

from decimal import Decimal

from holotype_spec.claims.schema import Claim, Relation, Verdict
from holotype_spec.claims.values import Value
from holotype_spec.facts import UNDISCLOSED
from holotype_spec.figures import Figure

NEAR = Decimal("0.1")
ORDER: tuple[Verdict, ...] = ("exact", "rounds", "near", "undecidable", "contradicted")

# Words that say nearly the same.
CLOSE = (
    {"gelu", "gelu-tanh"},  # they differ by less than 0.0005 everywhere
    {"causal", "strictly-causal"},  # whether a position sees itself
    {"multi-query", "grouped-query"},  # one key head for all queries, or one for each group
)


def figure(claim: Claim) -> Figure | None:
    """The claim's value as a figure, or None where it is no number."""
    value = claim.value
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    digits = str(value)
    return Figure(digits=digits, unit=claim.unit) if _is_number(digits) else None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal() and text[0] != "." and text[-1] != "."


def judged(claim: Claim, known: Value) -> Verdict:
    """The verdict on a claim, of a value that the catalogue knows."""
    if known == UNDISCLOSED:
        return "undecidable"
    stated = figure(claim)
    if isinstance(known, Decimal) and stated is not None:
        return _number(stated, known, claim.relation, rounded=isinstance(claim.value, str))
    if isinstance(known, tuple) and isinstance(claim.value, tuple):
        return "exact" if _words(claim.value, known, claim.relation) else "contradicted"
    if isinstance(claim.value, tuple):
        return "exact" if known in claim.value else "contradicted"
    if isinstance(known, str) and _is_date(known):
        return "exact" if known.startswith(str(claim.value)) else "contradicted"
    if claim.value == known:
        return "exact"
    return "near" if {claim.value, known} in CLOSE else "contradicted"


def _number(stated: Figure, known: Decimal, relation: Relation, *, rounded: bool) -> Verdict:
    if stated.value == known or _beyond(relation, stated.value, known):
        return "exact"
    if not rounded:
        return "contradicted"
    if stated.covers(known):
        return "rounds"
    return "near" if abs(known - stated.value) <= known * NEAR else "contradicted"


def _beyond(relation: Relation, stated: Decimal, known: Decimal) -> bool:
    return (relation == "at-least" and known > stated) or (relation == "at-most" and known < stated)


def _words(stated: tuple[str, ...], known: tuple[str, ...], relation: Relation) -> bool:
    match relation:
        case "includes":
            return set(stated) <= set(known)
        case "excludes":
            return not set(stated) & set(known)
        case _:
            return set(stated) == set(known)


def _is_date(text: str) -> bool:
    return len(text) >= 4 and text[:4].isdecimal() and set(text[4:]) <= set("-0123456789")


def worst(verdicts: list[Verdict]) -> Verdict:
    """The one that decides where a claim is about several models."""
    return max(verdicts, key=ORDER.index)


def best(verdicts: list[Verdict]) -> Verdict:
    """The one that counts where a claim may mean several values."""
    return min(verdicts, key=ORDER.index)
