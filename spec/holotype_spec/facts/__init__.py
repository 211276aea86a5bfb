"""Facts about a model beside its architecture: its release, its training data, its licence.

Specs hold what it takes to build a model. A fact is what else a source says about it, and what a document's
claim is judged against: each has its source, and none comes from the document that is judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from holotype_spec.catalogue import families, names
from holotype_spec.conversion import converted
from holotype_spec.errors import Problem, nearest
from holotype_spec.figures import UNITS, Dimension
from holotype_spec.files import parsed
from holotype_spec.schema import Source, Strict

FOLDER = Path(__file__).parent
UNDISCLOSED = "undisclosed"
Kind = Dimension | Literal["date", "word", "words", "flag", "family"]

# What can be known, in what it is counted, and what it means.
KINDS: dict[str, tuple[Kind, str]] = {
    "released": ("date", "the day, month or year when it was first made public"),
    "follows": ("family", "the family whose architecture it starts from"),
    "available": ("date", "when the public could first use it, where that was later"),
    "corpus": ("bytes", "the text that it was pretrained on"),
    "whole_corpus": ("bytes", "all of that text, where a source counts a part only"),
    "raw_corpus": ("bytes", "that text before it was filtered"),
    "corpus_tokens": ("number", "tokens of that text, each once"),
    "book_tokens": ("number", "of these, tokens from BookCorpus"),
    "encyclopedia_tokens": ("number", "of these, tokens from Wikipedia"),
    "news_corpus": ("bytes", "of the corpus, CC-News"),
    "web_corpus": ("bytes", "of the corpus, OpenWebText"),
    "story_corpus": ("bytes", "of the corpus, Stories"),
    "training_tokens": ("number", "tokens read in training"),
    "epochs": ("number", "how often the corpus was read"),
    "languages": ("number", "languages that it was trained on"),
    "masked_share": ("share", "of the tokens, those that are to be predicted"),
    "mask_token_share": ("share", "of the masked tokens, those replaced by the mask token"),
    "masking": ("word", "when the masks are drawn"),
    "mask_draws": ("word", "how many masks a text gets: one, ten, or one each time it is read"),
    "true_next_share": ("share", "of the pairs of sentences, those that follow each other"),
    "noises": ("words", "how the text is noised"),
    "span_mean": ("number", "mean length of a masked span, in tokens"),
    "loss_signs": ("word", "whether the losses of fine-tuning are written with the same sign"),
    "tokenizer": ("word", "how text is cut into tokens"),
    "inputs": ("words", "what it reads"),
    "open_weights": ("flag", "whether anyone can have the weights"),
    "instructions": ("number", "examples that it was tuned on"),
    "tuning_tasks": ("number", "tasks that it was tuned on"),
    "tuning_datasets": ("number", "data sets that these came from"),
    "tuning_categories": ("number", "categories that these fall into"),
    "weight_bits": ("number", "bits a weight of the frozen model takes in tuning"),
    "accelerators": ("number", "chips that it was trained on"),
    "training_time": ("days", "how long the training took"),
    "training_cost": ("price", "what the training cost, in US dollars"),
    "saving": (
        "number",
        "what the parent's training to the same quality costs, over what its own cost",
    ),
    "gate_place": ("word", "the block that has the gate"),
    "expert_parameters": ("number", "parameters of each of its experts"),
    "attention_parameters": ("number", "parameters of its attention"),
}


class Fact(Strict):
    """One thing that a source says about some models.

    `models` are names of the catalogue, or patterns of them ("gpt3-*"). `fact` is one of `KINDS`, and `value` is
    "undisclosed" where the source is silent.
    """

    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    fact: str
    value: bool | int | float | str | tuple[str, ...]
    source: str
    at: str
    unit: str | None = None
    note: str | None = None


class FactsFile(Strict):
    """One TOML file: sources, and facts from them."""

    sources: Annotated[tuple[Source, ...], msgspec.Meta(min_length=1)]
    facts: Annotated[tuple[Fact, ...], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class KnownFact:
    """A fact of one model, with its source; `value` is a `Decimal` in ones where it is counted."""

    name: str
    value: bool | Decimal | str | tuple[str, ...]
    unit: str | None
    source: Source
    at: str
    note: str | None


def facts_of(model: str) -> dict[str, KnownFact]:
    """Every fact of the model of this name, by the fact's name.

    Raises:
        SpecError: a file of facts is malformed.
    """
    return _all().get(model, {})


@cache
def _all() -> dict[str, dict[str, KnownFact]]:
    found: dict[str, dict[str, KnownFact]] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        for model, known in read(path):
            found.setdefault(model, {})[known.name] = known
    return found


def read(path: Path) -> list[tuple[str, KnownFact]]:
    """The facts of the file at `path`, one by one with the model that each is about.

    Raises:
        SpecError: with all mistakes of the file.
    """
    file = checked(parsed(path), str(path))
    sources = {source.id: source for source in file.sources}
    return [
        (model, _known(fact, sources[fact.source]))
        for fact in file.facts
        for pattern in fact.models
        for model in matching(pattern)
    ]


def checked(document: dict[str, Any], file: str) -> FactsFile:
    """The facts of a parsed file; `file` is how errors call it.

    Raises:
        SpecError: with all mistakes of the document.
    """
    return converted(document, FactsFile, file, _mistakes(document, file))


def matching(pattern: str) -> list[str]:
    """The names of the catalogue that a name or a pattern ("gpt3-*") stands for."""
    if "*" not in pattern:
        return [pattern] if pattern in _names() else []
    return [name for name in _names() if fnmatchcase(name, pattern)]


def unknown_model(file: str, key: str, pattern: str) -> Problem:
    """The mistake of naming a model that the catalogue does not have."""
    return Problem(
        file=file,
        key=key,
        value=pattern,
        expected="a model of the catalogue, or a pattern of such names",
        mend=nearest(pattern, list(_names())) or "`holotype list` names all",
    )


@cache
def _names() -> dict[str, None]:
    return dict.fromkeys(names())


def _known(fact: Fact, source: Source) -> KnownFact:
    value: Any = fact.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = Decimal(str(value)) * (UNITS[fact.unit][1] if fact.unit else 1)
    return KnownFact(
        name=fact.fact,
        value=value,
        unit=fact.unit,
        source=source,
        at=fact.at,
        note=fact.note,
    )


# Mistakes --------------------------------------------------------------------------------------------------


def _mistakes(document: dict[str, Any], file: str) -> list[Problem]:
    ids = (source.get("id") for source in _tables(document, "sources"))
    sources = {source for source in ids if isinstance(source, str)}
    problems: list[Problem] = []
    said: set[tuple[str, str]] = set()
    for index, tree in enumerate(_tables(document, "facts")):
        try:
            fact = msgspec.convert(tree, Fact)
        except msgspec.ValidationError:
            continue  # the schema tells what is wrong with it
        problems += _wrong(fact, f"facts[{index}]", file, sources, said)
    return problems


def _tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key)
    return [tree for tree in found if isinstance(tree, dict)] if isinstance(found, list) else []


def _wrong(
    fact: Fact, key: str, file: str, sources: set[str], said: set[tuple[str, str]]
) -> list[Problem]:
    def problem(field: str, value: Any, expected: str, mend: str) -> Problem:
        return Problem(file=file, key=f"{key}.{field}", value=value, expected=expected, mend=mend)

    problems = [
        unknown_model(file, f"{key}.models", name) for name in fact.models if not matching(name)
    ]
    if fact.source not in sources:
        mend = nearest(fact.source, sources) or "add it to sources"
        problems.append(problem("source", fact.source, "the id of one of the sources", mend))
    if fact.fact not in KINDS:
        mend = nearest(fact.fact, list(KINDS)) or f"one of {', '.join(KINDS)}"
        return [*problems, problem("fact", fact.fact, "a fact that is known by name", mend)]
    for model in (model for pattern in fact.models for model in matching(pattern)):
        if (model, fact.fact) in said:
            mend = f"{model} has it already: keep one of them"
            problems.append(problem("fact", fact.fact, "each fact of a model once", mend))
        said.add((model, fact.fact))
    kind = KINDS[fact.fact][0]
    if not fits(fact.value, fact.unit, kind):
        stands = f"{fact.value} {fact.unit or ''}".strip()
        mend = f"{fact.fact} is {KINDS[fact.fact][1]}"
        problems.append(problem("value", stands, wanted(kind), mend))
    return problems


def fits(value: Any, unit: str | None, kind: Kind) -> bool:
    """Whether a value with its unit is of a kind; "undisclosed" is of every kind."""
    if value == UNDISCLOSED:
        return unit is None
    if kind == "flag":
        return isinstance(value, bool) and unit is None
    if kind == "words":
        return isinstance(value, tuple) and unit is None
    if kind == "family":
        return value in families() and unit is None
    if kind in ("word", "date"):
        return isinstance(value, str) and unit is None
    counted = isinstance(value, int | float) and not isinstance(value, bool)
    return counted and (UNITS[unit][0] if unit in UNITS else None if unit else "number") == kind


def wanted(kind: Kind) -> str:
    """The form of a value of the kind, in words."""
    words = {
        "flag": "true or false",
        "word": "a word",
        "words": "a list of words",
        "date": 'a date ("2018-10")',
        "family": "a family of the catalogue",
    }
    if kind in words:
        return words[kind]
    units = [unit for unit, (dimension, _) in UNITS.items() if dimension == kind]
    without = " or none" if kind == "number" else ""
    return f"a number, with one of the units {', '.join(units)}{without}"
