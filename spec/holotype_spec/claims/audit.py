"""Every claim of the documents, judged: what it says, what the catalogue knows, and a sentence where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from holotype_spec.catalogue import find
from holotype_spec.claims.files import identity, models_of, read
from holotype_spec.claims.judging import ORDER, best, figure, judged, worst
from holotype_spec.claims.schema import Claim, Document, Passage, Verdict
from holotype_spec.claims.values import NOTHING, Known, values_of
from holotype_spec.facts import UNDISCLOSED
from holotype_spec.figures import Figure, printed, read_figure

FOLDER = Path(__file__).parent
SIGNS = {"at-least": "≥ ", "at-most": "≤ ", "excludes": "not ", "one-of": "any of "}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One claim and its verdict.

    `stated` and `computed` are in the document's unit, `computed` that of `model`, the one of `models` that
    decided the verdict. `sentence` says what is wrong; it is empty where nothing is.
    """

    id: str
    document: str
    line: int
    section: str
    quote: str
    models: tuple[str, ...]
    model: str
    field: str
    stated: str
    computed: str
    verdict: Verdict
    sentence: str


class Audit(NamedTuple):
    """One document, and each of its claims judged, in the order of its lines."""

    document: Document
    judgements: tuple[Judgement, ...]


def audit(path: Path) -> Audit:
    """Every claim of a file of claims, judged.

    Raises:
        SpecError: the file is malformed; with all its mistakes.
    """
    file = read(path)
    return Audit(
        file.document,
        tuple(
            judge(claim, passage, file.document.id)
            for passage in file.passages
            for claim in passage.claims
        ),
    )


def audit_all() -> tuple[Audit, ...]:
    """The documents that the package has claims of, in their order.

    Raises:
        SpecError: a file is malformed; with all its mistakes.
    """
    found = [audit(path) for path in FOLDER.glob("*.toml")]
    return tuple(sorted(found, key=lambda each: each.document.number))


def counts(judgements: tuple[Judgement, ...]) -> dict[Verdict, int]:
    """The number of judgements of each verdict, the best verdict first."""
    found = Counter(each.verdict for each in judgements)
    return {verdict: found[verdict] for verdict in ORDER}


def judge(claim: Claim, passage: Passage, document: str) -> Judgement:
    """The verdict on one claim of a passage."""
    models = models_of(claim, passage)
    found = _sums(claim, models) if claim.total else {each: _known(claim, each) for each in models}
    verdicts = {model: _best(claim, known) for model, known in found.items()}
    verdict = worst(list(verdicts.values()))
    model = next(name for name, each in verdicts.items() if each == verdict)
    known = next(one for one in found[model] if judged(claim, one.value) == verdict)
    return Judgement(
        id=f"{document}:{passage.line}:{identity(claim, passage.models)}",
        document=document,
        line=passage.line,
        section=passage.section,
        quote=claim.quote,
        models=models,
        model=model,
        field=claim.field,
        stated=_stated(claim),
        computed=_computed(claim, known),
        verdict=verdict,
        sentence=_sentence(claim, model, known, verdict),
    )


# What the catalogue knows ----------------------------------------------------------------------------------


def _known(claim: Claim, model: str) -> tuple[Known, ...]:
    found = values_of(model, claim.field)
    if claim.relative_to is None:
        return found
    less = 1 if claim.unit == "times-more" else 0
    other = values_of(claim.relative_to, claim.field)
    return _combined([found, other], lambda one, two: one / two - less)


def _sums(claim: Claim, models: tuple[str, ...]) -> dict[str, tuple[Known, ...]]:
    each = [_known(claim, model) for model in models]
    return {" + ".join(models): _combined(each, lambda *values: sum(values, Decimal(0)))}


def _combined(parts: list[tuple[Known, ...]], compute: Callable[..., Decimal]) -> tuple[Known, ...]:
    """One number of several models' numbers, in each of the ways that the field can be meant."""
    others = {one.value for part in parts for one in part if not isinstance(one.value, Decimal)}
    if others:
        return (Known(value=UNDISCLOSED if UNDISCLOSED in others else NOTHING),)
    return tuple(
        Known(value=compute(*(one.value for one in meant)), what=meant[0].what)
        for meant in zip(*parts, strict=True)
    )


def _best(claim: Claim, known: tuple[Known, ...]) -> Verdict:
    return best([judged(claim, one.value) for one in known])


# What is said about it -------------------------------------------------------------------------------------


def _stated(claim: Claim) -> str:
    stated = figure(claim)
    if isinstance(claim.value, bool):
        text = "yes" if claim.value else "no"
    elif isinstance(claim.value, tuple):
        text = ", ".join(claim.value)
    else:
        text = str(claim.value) if stated is None else str(stated)
    return SIGNS.get(claim.relation, "") + text


def _computed(claim: Claim, known: Known) -> str:
    match known.value:
        case bool():
            return "yes" if known.value else "no"
        case Decimal():
            return printed(known.value, claim.unit)
        case tuple():
            return ", ".join(known.value)
    return known.value


def _sentence(claim: Claim, model: str, known: Known, verdict: Verdict) -> str:
    if verdict in ("exact", "rounds"):
        return ""
    if claim.explanation is not None:
        return claim.explanation
    field = claim.field.rpartition(".")[2].replace("_", " ")
    if verdict == "undecidable":
        return f"Nobody disclosed the {field} of {model}."
    computed, stated = _computed(claim, known), figure(claim)
    if verdict == "near" and stated is not None and isinstance(known.value, Decimal):
        off = abs(known.value - stated.value) / known.value
        return f"{model} has {computed}{_way(known)}: {off:.1%} off.{_source(model, claim, stated)}"
    return f"The document says {_stated(claim)}; the {field} of {model}: {computed}."


def _way(known: Known) -> str:
    return f" {known.what}" if known.what else ""


def _source(model: str, claim: Claim, stated: Figure) -> str:
    """A note where a figure that the arithmetic does not meet is the one that the model's own source prints."""
    if claim.field != "parameters" or claim.total or claim.relative_to:
        return ""
    published = find(model).parameters
    theirs = None if published == "none" else read_figure(published.published)
    if published == "none" or theirs is None or not stated.covers(theirs.value):
        return ""
    return f" Its own source prints {published.published} ({published.source})."
