"""The pages of ``docs/models``: one a family, generated from the specs, and the family tree.

``python -m holotype_spec.pages docs/models`` writes them anew; a test fails where one of them is stale.
"""

from __future__ import annotations

from pathlib import Path

from holotype_spec.catalogue import families, generics, names
from holotype_spec.pages.family import family_page
from holotype_spec.pages.tree import tree_page

COMMAND = "python -m holotype_spec.pages docs/models"


def pages() -> dict[str, str]:
    """The text of every page, by the name of its file."""
    shown = [
        family
        for family in families()
        if names(family) and not set(names(family)) & set(generics())
    ]
    found = {f"{family}.md": family_page(family) for family in shown}
    return {"README.md": tree_page(shown), **found}


def write(folder: Path) -> None:
    """Make the Markdown files of `folder` exactly the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for path in folder.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


def stale(folder: Path) -> list[str]:
    """The names of the files in `folder` that are not what `write` would make of them."""
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
