"""Markdown, as far as the pages need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

BAR = 32  # letters of a full bar


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> list[str]:
    """A table; the columns `right` are flushed to the right."""
    rules = ["--:" if index in right else "---" for index in range(len(header))]
    lines = [header, rules, *rows]
    return [f"| {' | '.join(map(_cell, cells))} |" for cells in lines]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def link(text: str, target: str) -> str:
    """A link, or the bare text where there is no target."""
    return f"[{text}]({target})" if target else text


def bars(counts: dict[str, int]) -> list[str]:
    """A drawing in letters: a bar a component, as long as its share of them all."""
    total = sum(counts.values())
    wide = max(map(len, counts), default=0)
    digits = max((len(f"{count:,}") for count in counts.values()), default=0)
    return [
        f"{name:<{wide}}  {count:>{digits},}  {count / total:>6.1%}  {'█' * round(BAR * count / total) or '▏'}"
        for name, count in counts.items()
    ]


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of a tree with its path; the kind of a mechanism stands at its own name."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield (prefix.rstrip(".") if key == "kind" and prefix else prefix + key), told(value)


def told(value: Any) -> str:
    """A value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        inner = (
            f"({told(each)})" if isinstance(each, list | tuple) else told(each) for each in value
        )
        return ", ".join(inner) or "none"
    return str(value)
