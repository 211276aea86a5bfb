"""The structure of a file of claims: one document, its passages, and the claims of each about models."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from holotype_spec.schema import Count, Name, Strict

Verdict = Literal["exact", "rounds", "near", "contradicted", "undecidable"]
Relation = Literal["is", "includes", "excludes", "one-of", "at-least", "at-most"]
Unit = Literal[
    "万", "亿", "K", "Ki", "M", "B", "T", "GB", "TB", "%", "times", "times-more", "days", "USD"
]
Quote = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=40, description="a few words or numbers, 1 to 40 letters"
    ),
]


class Document(Strict):
    """The text that is judged. `number` is its place among the source documents, `url` what it reproduces."""

    id: Name
    title: str
    number: Annotated[int, msgspec.Meta(ge=0, le=999, description="a whole number from 0 to 999")]
    url: str | None = None


class Claim(Strict):
    """One thing that a document says.

    `field` is the path of a field of a spec ("layers", "architecture.residual"), a quantity of
    `holotype_spec.claims.values.QUANTITIES` ("parameters") or a fact ("facts.released"). A `value` in quotes is
    a figure as it is printed ("1.1"), with its `unit`; it holds of every number that is printed so when it
    is rounded. A bare whole number must be met exactly.

    The claim is about each model of the passage, or of its own `models` where it has them; with `total` it is
    about their sum. With `relative_to` its value is a quotient, over what that model has.

    `explanation` is for a claim that does not hold exactly, a sentence that says what is wrong with it.
    """

    field: str
    value: bool | int | str | tuple[str, ...]
    quote: Quote
    unit: Unit | None = None
    relation: Relation = "is"
    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    relative_to: str | None = None
    total: bool = False
    explanation: str | None = None


class Passage(Strict):
    """A line of the document that says something about `models`: names of the catalogue, or patterns of them."""

    line: Count
    section: str
    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    claims: Annotated[tuple[Claim, ...], msgspec.Meta(min_length=1)]


class ClaimsFile(Strict):
    """One TOML file of claims."""

    document: Document
    passages: Annotated[tuple[Passage, ...], msgspec.Meta(min_length=1)]
