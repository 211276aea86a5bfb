"""The family tree: every family with its page, and who derives from whom."""

from __future__ import annotations

from collections.abc import Iterator

from holotype_spec.catalogue import entries
from holotype_spec.files import Entry
from holotype_spec.pages.family import NOTE, children, followers, structure_of, total_of
from holotype_spec.pages.markdown import link, table
from holotype_spec.sketch import Sketch

ORDER = ("encoder", "encoder-decoder", "decoder")


def tree_page(families: list[str]) -> str:
    """The page, in Markdown: a table of the families by structure, and a drawing of descent in mermaid."""
    members = {family: entries(family) for family in families}
    groups: dict[str, list[str]] = {}
    for family in families:
        groups.setdefault(structure_of(members[family][0]), []).append(family)
    number = sum(map(len, members.values()))
    lines = ["# The catalogue", "", NOTE, "", f"{number} models of {len(families)} families."]
    for structure in sorted(groups, key=_rank):
        rows = [_row(members[family]) for family in groups[structure]]
        header = ["family", "models", "parameters", "first source"]
        lines += ["", f"## {structure.capitalize()}", "", *table(header, rows, right=(1,))]
    lines += ["", "## Whose architecture starts from whose", "", *_lineage(members)]
    return "\n".join([*lines, "", "## Who derives from whom", "", *_descent(members)]) + "\n"


def _rank(structure: str) -> tuple[int, str]:
    return (ORDER.index(structure) if structure in ORDER else len(ORDER)), structure


def _row(members: list[Entry]) -> tuple[str, ...]:
    family = members[0].family
    source = family.sources[0]
    return (
        link(family.title, f"{family.name}.md"),
        str(len(members)),
        _range(members),
        link(source.title, source.url),
    )


def _range(members: list[Entry]) -> str:
    known = sorted(total for total in map(total_of, members) if total is not None)
    if not known:
        return "undisclosed"
    ends = dict.fromkeys(_short(total) for total in (known[0], known[-1]))
    return " to ".join(ends)


def _short(total: int) -> str:
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if total >= size:
            return f"{total / size:.3g} {unit}"
    return f"{total:,}"


def _lineage(members: dict[str, list[Entry]]) -> Iterator[str]:
    """A graph of the families, each under the one whose architecture it starts from."""
    followed = {family for family in members if followers(family)}
    related = followed | {child for family in followed for child in followers(family)}
    yield from ("```mermaid", "graph LR")
    for family in (family for family in members if family in related):
        yield f'    {_id(family)}["{members[family][0].family.title}"]'
    for family in (family for family in members if family in followed):
        for child in followers(family):
            yield f"    {_id(family)} --> {_id(child)}"
    yield "```"


def _descent(members: dict[str, list[Entry]]) -> Iterator[str]:
    """A graph of the models that derive from one another, each family in its box."""
    related = {
        family: [entry for entry in found if entry.derives_from or children(entry.name)]
        for family, found in members.items()
    }
    if not any(related.values()):
        yield "No model of the catalogue derives from another."
        return
    yield from (
        "An arrow goes from a model to one that was trained on from it. Of a model with round ends not everything"
        " was disclosed.",
        "",
    )
    yield from ("```mermaid", "graph LR")
    for family, found in related.items():
        if found:
            yield f'    subgraph {_id(family)}_family["{found[0].family.title}"]'
            for entry in found:
                yield f"        {_id(entry.name)}{_box(entry)}"
            yield "    end"
    for entry in (entry for found in related.values() for entry in found):
        for child in children(entry.name):
            yield f"    {_id(entry.name)} --> {_id(child)}"
    yield "```"


def _box(entry: Entry) -> str:
    return f'(["{entry.name}"])' if isinstance(entry, Sketch) else f'["{entry.name}"]'


def _id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
