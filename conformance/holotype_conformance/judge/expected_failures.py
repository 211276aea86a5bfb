"""Expected failures: known ones, each with its reason, so that a run can be green and still tell the truth.

The file is TOML, one line a property: ``"causality.future-perturbation" = "issue 12: …"``. Under a heading with
the name of a spec (``[gpt2]``) a line holds for that spec only. It is strict: a listed property that passes, or that
does not run at all, is an error, so that the list cannot rot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from holotype_conformance.judge.records import Result
from holotype_conformance.judge.renamed import names_of
from holotype_spec.reading import Unreadable, parse_toml, read_text


class ExpectedError(ValueError):
    """A list of expected failures that cannot be used."""


def read_expected(path: Path) -> dict[str, str]:
    """The entries of a file: slug or ``spec.slug`` -> reason.

    Raises:
        ExpectedError: the file is not TOML, or an entry is not a reason in words.
    """
    try:
        table = parse_toml(read_text(path), str(path))
    except Unreadable as error:
        raise ExpectedError(
            f"{path}: cannot be read as a list of expected failures: {error};"
            ' expected TOML lines like "group.claim" = "reason"'
        ) from error
    entries = dict(_flat(table, ""))
    for key, reason in entries.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ExpectedError(
                f"{path}: {key} = {reason!r}: expected the reason, a text that is not empty"
            )
    return entries


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def expectation(expected: Mapping[str, str], spec: str, slug: str) -> str | None:
    """Why `slug` is expected to fail under `spec`, or None."""
    return next((expected[key] for key in _keys(spec, slug) if key in expected), None)


def _keys(spec: str, slug: str) -> tuple[str, ...]:
    """The keys of an entry for a property under a spec, that for this spec alone first."""
    names = names_of(slug)
    return *(f"{spec}.{name}" for name in names), *names


def expect(result: Result, reason: str | None) -> Result:
    """`result` in the light of the reason why it was expected to fail, if it was."""
    if reason is None:
        return result
    if result.outcome == "failed" and result.ended:
        return msgspec.structs.replace(
            result,
            reason=f"{result.reason} (listed as an expected failure, which is never one of these)",
        )
    if result.outcome == "failed":
        return msgspec.structs.replace(
            result, outcome="expected-failure", reason=f"{reason} (seen: {result.reason})"
        )
    if result.outcome == "passed":
        return msgspec.structs.replace(
            result,
            outcome="unexpected-pass",
            reason=f"it passed, but is listed as an expected failure ({reason}); remove the entry",
        )
    return result


def stale(expected: Mapping[str, str], ran: Iterable[tuple[str, str]]) -> set[str]:
    """The entries that no (spec, slug) of `ran` answers to."""
    answered = {key for spec, slug in ran for key in _keys(spec, slug)}
    return set(expected) - answered


def mark_stale(spec: str, result: Result, entries: set[str]) -> Result:
    """A skipped result becomes an error if it is listed as an expected failure."""
    listed = entries.intersection(_keys(spec, result.property))
    if result.outcome != "skipped" or not listed:
        return result
    return msgspec.structs.replace(
        result,
        outcome="error",
        reason=f"listed as an expected failure, but skipped: {result.reason}; remove the entry",
    )
