"""Reading a file of claims, which reports all its mistakes at once."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from holotype_spec.claims.judging import figure
from holotype_spec.claims.schema import Claim, ClaimsFile, Passage
from holotype_spec.claims.values import FACTS, NOTHING, Value, known_fields, values_of
from holotype_spec.conversion import converted
from holotype_spec.errors import Problem, nearest
from holotype_spec.facts import KINDS, UNDISCLOSED, Kind, matching, unknown_model, wanted
from holotype_spec.files import parsed

Tree = dict[str, Any]
RATIOS = ("times", "times-more")
WORDS = ("flag", "word", "words", "date", "family")  # kinds of values that are not counted


def read(path: Path) -> ClaimsFile:
    """The claims of the file at `path`.

    Raises:
        SpecError: with all mistakes of the file.
    """
    return checked(parsed(path), str(path))


def checked(document: Tree, file: str) -> ClaimsFile:
    """The claims of a parsed file; `file` is how errors call it.

    Raises:
        SpecError: with all mistakes of the document.
    """
    return converted(document, ClaimsFile, file, list(_mistakes(document, file)))


def models_of(claim: Claim, passage: Passage) -> tuple[str, ...]:
    """The models that the claim is about, by name."""
    patterns = claim.models or passage.models
    return tuple(dict.fromkeys(model for pattern in patterns for model in matching(pattern)))


def identity(claim: Claim, named: tuple[str, ...]) -> str:
    """The key that tells a claim from the others of its line; `named` are the models of its passage."""
    relation = () if claim.relation == "is" else (claim.relation,)
    other = () if claim.relative_to is None else (claim.relative_to,)
    return ":".join(((claim.models or named or ("",))[0], claim.field, *relation, *other))


# Mistakes that the schema cannot find ----------------------------------------------------------------------


def _mistakes(document: Tree, file: str) -> Iterator[Problem]:
    told: set[tuple[str, str]] = set()
    before = 0
    for index, tree in _tables(document, "passages"):
        key = f"passages[{index}]"
        line, models = tree.get("line"), tree.get("models")
        named = (
            [name for name in models if isinstance(name, str)] if isinstance(models, list) else []
        )
        for name in (name for name in named if not matching(name)):
            yield unknown_model(file, f"{key}.models", name)
        if isinstance(line, int):
            if line < before:
                mend = "move the passage to its place in the document"
                yield _problem(file, f"{key}.line", line, f"{before} or more", mend)
            before = max(before, line)
        yield from _in_passage(tree, key, file, tuple(named), told)


def _in_passage(
    tree: Tree, key: str, file: str, named: tuple[str, ...], told: set[tuple[str, str]]
) -> Iterator[Problem]:
    for index, inner in _tables(tree, "claims"):
        try:
            claim = msgspec.convert(inner, Claim)
        except msgspec.ValidationError:
            continue  # the schema tells what is wrong with it
        place = f"{key}.claims[{index}]"
        yield from _wrong(claim, place, file, claim.models or named)
        said = (str(tree.get("line")), identity(claim, named))
        if said in told:
            mend = "delete one of them"
            yield _problem(file, place, claim.field, "each claim of a line once", mend)
        told.add(said)


def _wrong(claim: Claim, key: str, file: str, patterns: tuple[str, ...]) -> Iterator[Problem]:
    for name in claim.models or ():
        if not matching(name):
            yield unknown_model(file, f"{key}.models", name)
    other = claim.relative_to
    if other is not None and (wrong := _base(claim, key, file, other)):
        yield wrong
        return
    if (other is not None) != (claim.unit in RATIOS):
        mend = "a quotient needs both, and what is none has neither"
        expected = f"one of the units {', '.join(RATIOS)} exactly where there is relative_to"
        yield _problem(file, f"{key}.unit", claim.unit, expected, mend)
        return
    found = [model for pattern in patterns for model in matching(pattern)]
    for model in dict.fromkeys(found):
        if problem := _against(claim, key, file, model):
            yield problem
            return  # one model's word is enough


def _base(claim: Claim, key: str, file: str, other: str) -> Problem | None:
    """The mistakes in the model that a quotient divides by."""
    if matching(other) != [other]:
        return unknown_model(file, f"{key}.relative_to", other)
    try:
        known = values_of(other, claim.field)[0].value
    except KeyError:
        return _unknown_field(claim.field, key, file, other)
    if known != 0:
        return None
    mend = "divide by something else"
    expected = f"a model whose {claim.field} is not 0"
    return _problem(file, f"{key}.relative_to", other, expected, mend)


def _against(claim: Claim, key: str, file: str, model: str) -> Problem | None:
    try:
        known = values_of(model, claim.field)[0].value
    except KeyError:
        return _unknown_field(claim.field, key, file, model)
    kind = _kind(claim.field, known)
    if (claim.total or claim.relative_to) and kind in WORDS and known != UNDISCLOSED:
        mend = f"{claim.field} of {model} is {_shown(known)}"
        return _problem(file, f"{key}.field", claim.field, "a number to sum or divide", mend)
    unknown = not claim.field.startswith(FACTS) and known in (UNDISCLOSED, NOTHING)
    if unknown or _fits(claim, kind):
        return None
    stands = f"{claim.value} {claim.unit or ''}".strip()
    mend = f"{claim.field} of {model} is {_shown(known)}"
    return _problem(file, f"{key}.value", stands, _expected(kind), mend)


def _unknown_field(field: str, key: str, file: str, model: str) -> Problem:
    name = field.removeprefix(FACTS)
    if field.startswith(FACTS) and name in KINDS:
        mend = f'record it in facts/, with its source, or as "undisclosed" ({KINDS[name][1]})'
        return _problem(file, f"{key}.field", field, f"a fact that is recorded of {model}", mend)
    mend = nearest(field, known_fields()) or "`holotype show --json` names the fields of a spec"
    return _problem(file, f"{key}.field", field, "a field, a quantity or a fact", mend)


def _kind(field: str, known: Value) -> Kind:
    if field.startswith(FACTS):
        return KINDS[field.removeprefix(FACTS)][0]
    if isinstance(known, bool):
        return "flag"
    if isinstance(known, Decimal):
        return "number"
    return "words" if isinstance(known, tuple) else "word"


def _fits(claim: Claim, kind: Kind) -> bool:
    value, stated = claim.value, figure(claim)
    match kind:
        case "flag":
            return isinstance(value, bool) and claim.unit is None
        case "words":
            return isinstance(value, tuple) and claim.unit is None
        case "word":
            listed = isinstance(value, tuple) and claim.relation == "one-of"
            return (listed or isinstance(value, str)) and claim.unit is None
        case "date" | "family":
            return isinstance(value, str) and claim.unit is None
    if stated is None or (claim.unit is not None and not isinstance(value, str)):
        return False
    return stated.dimension == "ratio" or stated.dimension == kind


def _expected(kind: Kind) -> str:
    if kind in WORDS:
        return wanted(kind)
    return f"{wanted(kind)}; with a unit, the digits in quotes as they are printed"


def _shown(known: Value) -> str:
    if known == UNDISCLOSED:
        return UNDISCLOSED
    return ", ".join(known) if isinstance(known, tuple) else str(known)


def _problem(file: str, key: str, value: Any, expected: str, mend: str) -> Problem:
    return Problem(file=file, key=key, value=value, expected=expected, mend=mend)


def _tables(tree: Tree, key: str) -> list[tuple[int, Tree]]:
    found = tree.get(key)
    numbered = enumerate(found if isinstance(found, list) else [])
    return [(index, inner) for index, inner in numbered if isinstance(inner, dict)]
