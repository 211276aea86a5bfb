"""Properties that had another name: reports have the new one, and whoever writes the old one is understood.

A table, and no field of `Property`: the process that starts runs and reads expected failures imports no suite.
"""

from __future__ import annotations

from collections.abc import Mapping

RENAMED: Mapping[str, str] = {"gradients.twice": "gradients.second-derivatives"}  # old -> new


def current(name: str) -> str:
    """The name of today of a property that may be called by an old one."""
    return RENAMED.get(name, name)


def names_of(slug: str) -> tuple[str, ...]:
    """The slug of a property, and the names that it had before."""
    return slug, *(old for old, new in RENAMED.items() if new == slug)
