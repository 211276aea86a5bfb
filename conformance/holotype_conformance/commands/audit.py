"""``holotype audit``: what the source documents say about models, and whether it is so, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from holotype_conformance.report.terminal import WIDTH, BadInput

if TYPE_CHECKING:
    from holotype_spec.claims import Audit, Judgement

VERDICTS = ("exact", "rounds", "near", "undecidable", "contradicted")
# line, model or document, field, stated, computed, verdict
WIDTHS = (4, 19, 18, 11, 11, 12)
CONTRADICTED = 1


@click.command("audit")
@click.option("--document", metavar="D", help="Only this document, or a claims file of your own.")
@click.option("--model", metavar="M", help="Only claims about this model.")
@click.option("--verdict", type=click.Choice(VERDICTS), help="Only claims with this verdict.")
@click.option(
    "--group",
    type=click.Choice(["document", "model"]),
    default="document",
    show_default=True,
    help="What stands together.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if a claim shown is contradicted.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def audit(
    document: str | None,
    model: str | None,
    verdict: str | None,
    group: str,
    strict: bool,
    as_json: bool,
) -> None:
    """What documents say about models, and whether it is so.

    Each claim is judged by the specs, their arithmetic, and facts with sources. It is exact; or rounds to what
    is printed; or is near it (a tenth off at most); or undecidable, where nobody disclosed it; or contradicted.
    """
    audits = _audits(document)
    known = _canonical(model)
    shown = [
        judgement
        for each in audits
        for judgement in each.judgements
        if known in (None, *judgement.models) and verdict in (None, judgement.verdict)
    ]
    if as_json:
        click.echo(json.dumps(_facts(audits, shown), indent=2, ensure_ascii=False))
    else:
        titles = {each.document.id: each.document.title for each in audits}
        groups = _by_model(shown, known) if group == "model" else _by_document(shown, titles)
        click.echo("\n".join(_page(groups, shown, by_model=group == "model")))
    if strict and any(judgement.verdict == "contradicted" for judgement in shown):
        raise click.exceptions.Exit(CONTRADICTED)


def _audits(document: str | None) -> tuple[Audit, ...]:
    from holotype_spec import SpecError
    from holotype_spec.claims import audit as one
    from holotype_spec.claims import audit_all

    try:
        if document is not None and document.endswith(".toml"):
            return (one(Path(document)),)
        audits = audit_all()
    except SpecError as error:
        raise BadInput(str(error)) from None
    ids = [each.document.id for each in audits]
    if document is not None and document not in ids:
        raise BadInput(f"unknown document {document!r}: expected one of {', '.join(ids)}")
    return tuple(each for each in audits if document in (None, each.document.id))


def _canonical(model: str | None) -> str | None:
    """The model's own name, whatever alias it was called by."""
    if model is None:
        return None
    from holotype_spec import UnknownSpec, aliases, names

    called = {name: name for name in names()} | aliases()
    if model.lower() in called:
        return called[model.lower()]
    from difflib import get_close_matches

    raise BadInput(str(UnknownSpec(model, get_close_matches(model.lower(), called, n=3))))


# For machines ----------------------------------------------------------------------------------------------


def _facts(audits: tuple[Audit, ...], shown: list[Judgement]) -> dict[str, Any]:
    import msgspec

    from holotype_spec.claims import counts

    return {
        "documents": [msgspec.to_builtins(each.document) for each in audits],
        "counts": counts(tuple(shown)),
        "claims": [asdict(judgement) for judgement in shown],
    }


# For people ------------------------------------------------------------------------------------------------

Group = tuple[str, list["Judgement"]]


def _by_document(shown: list[Judgement], titles: dict[str, str]) -> list[Group]:
    groups = [
        (f"{name}: {title}", [each for each in shown if each.document == name])
        for name, title in titles.items()
    ]
    return [group for group in groups if group[1]]


def _by_model(shown: list[Judgement], only: str | None) -> list[Group]:
    models = dict.fromkeys(model for each in shown for model in each.models)
    wanted = sorted(models) if only is None else [only]
    groups = [(model, [each for each in shown if model in each.models]) for model in wanted]
    return [group for group in groups if group[1]]


def _page(groups: list[Group], shown: list[Judgement], *, by_model: bool) -> Iterator[str]:
    from holotype_spec.claims import counts

    for title, judgements in groups:
        yield from wrap(title, WIDTH, subsequent_indent="  ")
        yield _row("LINE", "DOCUMENT" if by_model else "MODEL", "CLAIM", "STATED", "KNOWN", "")
        for each in judgements:
            subject = each.document if by_model else _subject(each)
            field = each.field.removeprefix("facts.").removeprefix("architecture.")
            field = field.removesuffix(".kind")
            yield _row(str(each.line), subject, field, each.stated, each.computed, each.verdict)
            yield from wrap(
                each.sentence, WIDTH - 5, initial_indent=" " * 5, subsequent_indent=" " * 5
            )
        yield ""
    found = counts(tuple(shown)).items()
    yield f"{len(shown)} claims: " + ", ".join(f"{number} {verdict}" for verdict, number in found)


def _subject(judgement: Judgement) -> str:
    more = len(judgement.models) - 1
    return f"{judgement.model} +{more}" if more and "+" not in judgement.model else judgement.model


def _row(*cells: str) -> str:
    return " ".join(map(_fitted, cells, WIDTHS)).rstrip()


def _fitted(text: str, width: int) -> str:
    """The text in so many columns; a Chinese letter takes two."""
    kept = text
    while _columns(kept) > width:
        kept = kept.removesuffix("…")[:-1] + "…"
    return kept + " " * (width - _columns(kept))


def _columns(text: str) -> int:
    from unicodedata import east_asian_width

    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
