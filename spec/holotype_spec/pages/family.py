"""The page of one family: its members, architecture, parameters, facts, descent, and what documents say of it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from holotype_spec.catalogue import entries, families, find, names
from holotype_spec.claims import Audit, Judgement, audit_all
from holotype_spec.claims import counts as verdicts_of
from holotype_spec.counts import Counts, count_parameters
from holotype_spec.errors import UndisclosedValue
from holotype_spec.facts import UNDISCLOSED, KnownFact, facts_of
from holotype_spec.figures import printed
from holotype_spec.files import Entry
from holotype_spec.networks import Network
from holotype_spec.pages.markdown import bars, leaves, link, table, told
from holotype_spec.schema import SIZES, PublishedCount
from holotype_spec.sketch import Sketch

NOTE = "*Generated from the specs by `python -m holotype_spec.pages docs/models`; do not edit by hand.*"
Tree = dict[str, Any]


def family_page(family: str) -> str:
    """The page, in Markdown."""
    members = entries(family)
    title = members[0].family.title
    sections = (
        ("Members", _members(members)),
        ("Architecture", _architecture(members)),
        ("Parameters by component", _components(members)),
        ("Facts", _facts(members)),
        ("Descent", _descent(members)),
        ("What documents say", _claims(family)),
        ("Sources", _sources(members[0])),
    )
    lines = [f"# {title}", "", NOTE, "", _summary(members)]
    for heading, body in sections:
        if told_here := list(body):
            lines += ["", f"## {heading}", "", *told_here]
    return "\n".join(lines) + "\n"


# What a member is ------------------------------------------------------------------------------------------


def tree_of(entry: Entry) -> Tree:
    """An entry as a tree of plain values, an undisclosed one as that word."""
    tree: Tree = entry.facts() if isinstance(entry, Sketch) else msgspec.to_builtins(entry)
    return tree


def structure_of(entry: Entry) -> str:
    """The structure in a word, "undisclosed" where nobody said."""
    if isinstance(entry, Network):
        return entry.network.structure
    architecture = tree_of(entry)["architecture"]
    return UNDISCLOSED if architecture == UNDISCLOSED else str(architecture["structure"])


def total_of(entry: Entry) -> int | None:
    """The exact number of parameters, None where it depends on what nobody disclosed."""
    try:
        return count_parameters(entry).total
    except UndisclosedValue:
        return None


def objective_of(entry: Entry) -> tuple[str, ...]:
    """The training objectives, in order."""
    tree = tree_of(entry)
    inner = tree.get("network") or tree["architecture"]
    found = UNDISCLOSED if inner == UNDISCLOSED else inner["objective"]
    return (UNDISCLOSED,) if found == UNDISCLOSED else tuple(found)


def _summary(members: list[Entry]) -> str:
    structures = sorted({structure_of(entry) for entry in members})
    objectives = dict.fromkeys(each for entry in members for each in objective_of(entry))
    number = "one model" if len(members) == 1 else f"{len(members)} models"
    rumours = [entry.rumour for entry in members if not isinstance(entry, Network) and entry.rumour]
    rumour = (
        f" A rumour, and nothing that its makers said: {'; '.join(rumours)}." if rumours else ""
    )
    return (
        f"{number[0].upper()}{number[1:]}; structure: {', '.join(structures)};"
        f" trained for: {', '.join(objectives)}.{rumour}"
    )


# Sections --------------------------------------------------------------------------------------------------


def _members(members: list[Entry]) -> Iterator[str]:
    sized = not isinstance(members[0], Network)
    sizes = SIZES if sized else ()
    header = ["name", "parameters", "published", *(size.replace("_", " ") for size in sizes)]
    rows = []
    for entry in members:
        tree, total, published = tree_of(entry), total_of(entry), entry.parameters
        rows.append(
            [
                _named(entry),
                UNDISCLOSED if total is None else f"{total:,}",
                "–"
                if isinstance(published, str)
                else f"{published.published} ({published.source})",
                *(told(tree[size]) for size in sizes),
            ]
        )
    yield from table(header, rows, right=(1, *range(3, len(header))))
    for entry in members:
        if isinstance(entry.parameters, PublishedCount) and entry.parameters.note:
            yield from ("", f"`{entry.name}`: {entry.parameters.note}.")


def _named(entry: Entry) -> str:
    aliases = f" ({', '.join(entry.aliases)})" if entry.aliases else ""
    return f"`{entry.name}`{aliases}"


def _architecture(members: list[Entry]) -> Iterator[str]:
    trees = [dict(_fields(entry)) for entry in members]
    paths = dict.fromkeys(path for tree in trees for path in tree)
    shared = {
        path: trees[0].get(path) for path in paths if len({tree.get(path) for tree in trees}) == 1
    }
    yield from table(
        ["field", "value"], [(f"`{path}`", value) for path, value in shared.items() if value]
    )
    for path in (path for path in paths if path not in shared):
        values: dict[str, list[str]] = {}
        for entry, tree in zip(members, trees, strict=True):
            values.setdefault(tree.get(path, "–"), []).append(f"`{entry.name}`")
        told_apart = "; ".join(f"{value}: {', '.join(who)}" for value, who in values.items())
        yield from ("", f"`{path}` differs. {told_apart}.")


def _fields(entry: Entry) -> Iterator[tuple[str, str]]:
    tree = tree_of(entry)
    inner = tree.get("network") or tree["architecture"]
    return leaves(inner) if isinstance(inner, dict) else leaves({"architecture": inner})


def _components(members: list[Entry]) -> Iterator[str]:
    drawn: dict[str, list[str]] = {}
    for entry in members:
        try:
            counts = count_parameters(entry)
        except UndisclosedValue as error:
            drawn.setdefault("\n".join((f"{error}", *_stated(entry))), []).append(entry.name)
            continue
        drawn.setdefault("\n".join((*bars(counts.components), *_beside(counts))), []).append(
            entry.name
        )
    blocks = [["```text", ", ".join(who), drawing, "```"] for drawing, who in drawn.items()]
    for index, block in enumerate(blocks):
        yield from ["", *block] if index else block


def _beside(counts: Counts) -> Iterator[str]:
    """Notes that the bars do not show."""
    if counts.backbone != counts.total:
        yield f"without the pretraining heads: {counts.backbone:,}"
    if counts.active != counts.total:
        yield f"used by one token: {counts.active:,}"
    for what, number in counts.apart.items():
        yield f"for training only, not counted above: {what} {number:,}"


def _stated(entry: Entry) -> Iterator[str]:
    """Sizes of parts that a source states of a model that is not disclosed otherwise."""
    for part in () if isinstance(entry, Network) else entry.stated:
        yield (
            f"{part.component}: {part.number} of {part.parameters:,} each, {part.active} active"
            f" ({part.source})"
        )


def _facts(members: list[Entry]) -> Iterator[str]:
    known: dict[tuple[str, ...], list[str]] = {}
    for entry in members:
        told_here = (fact for fact in facts_of(entry.name).values() if fact.name != "follows")
        for fact in told_here:
            known.setdefault(_fact(fact), []).append(f"`{entry.name}`")
    everyone = len(members)
    rows = [
        (*cells, "all" if len(who) == everyone else ", ".join(who)) for cells, who in known.items()
    ]
    if rows:
        yield from table(["fact", "value", "source", "of"], rows)


def _fact(fact: KnownFact) -> tuple[str, ...]:
    value = printed(fact.value, fact.unit) if isinstance(fact.value, Decimal) else told(fact.value)
    note = f" ({fact.note})" if fact.note else ""
    source = f"{link(fact.source.id, fact.source.url)}, {fact.at}"
    return fact.name.replace("_", " "), value + note, source


def followed(members: list[Entry]) -> KnownFact | None:
    """The fact that says which family's architecture these models start from."""
    found = (facts_of(entry.name).get("follows") for entry in members)
    return next((fact for fact in found if fact), None)


def _descent(members: list[Entry]) -> Iterator[str]:
    if fact := followed(members):
        family = str(fact.value)
        yield f"- The architecture starts from that of {_family(family)} ({fact.source.id}, {fact.at})."
    if after := followers(members[0].family.name):
        yield f"- From this one start those of {', '.join(map(_family, after))}."
    for entry in members:
        if entry.derives_from:
            yield f"- `{entry.name}` derives from {reference(entry.derives_from)}."
        for child in children(entry.name):
            yield f"- {reference(child)} derives from `{entry.name}`."


@cache
def followers(family: str) -> list[str]:
    """The families whose architecture starts from that of this one."""
    known = {other: followed(entries(other)) for other in families()}
    return [other for other, fact in known.items() if fact and fact.value == family]


def _family(name: str) -> str:
    return link(entries(name)[0].family.title, f"{name}.md")


def reference(name: str) -> str:
    """A model by its name, with a link to the page of its family."""
    return link(f"`{name}`", f"{find(name).family.name}.md")


def children(name: str) -> list[str]:
    """The models that derive from the one of this name."""
    return [child for child, parent in _parents().items() if parent == name]


@cache
def _parents() -> dict[str, str]:
    found = [find(name) for name in names()]
    return {
        entry.name: find(entry.derives_from).name
        for entry in found
        if entry.derives_from is not None
    }


def _claims(family: str) -> Iterator[str]:
    members = set(names(family))
    audits = [
        (audit, [each for each in audit.judgements if members & set(each.models)])
        for audit in _audits()
    ]
    found = tuple(each for _, judgements in audits for each in judgements)
    if not found:
        return
    numbers = ", ".join(
        f"{number} {verdict}" for verdict, number in verdicts_of(found).items() if number
    )
    claims = "One claim" if len(found) == 1 else f"{len(found)} claims"
    yield f"{claims} of the audited documents: {numbers}."
    wrong = [each for each in found if each.verdict == "contradicted"]
    if wrong:
        yield ""
        yield from table(
            ["contradicted", "field", "stated", "known", "because"], map(_wrong, wrong)
        )


@cache
def _audits() -> tuple[Audit, ...]:
    return audit_all()


def _wrong(each: Judgement) -> tuple[str, ...]:
    place = f"{each.document}, line {each.line}"
    return place, f"`{each.field}`", each.stated, each.computed, each.sentence


def _sources(entry: Entry) -> Iterator[str]:
    for source in entry.family.sources:
        yield f"- {source.id}: {link(source.title, source.url)}"
