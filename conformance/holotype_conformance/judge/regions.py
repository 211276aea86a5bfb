"""Regions in which a name holds: a change agrees with what was seen in some and not in others, said in a few words.

A region is what a case is of, axis by axis: how it is padded, on which code path it runs, whether it is read through a
cache. A candidate that is wrong in one of them alone agrees with a wrong model there and with the right one elsewhere;
a name that does not say so is contradicted by what passed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

MOST = 3  # axes that a limit may name: whoever reads more of them has learned nothing

Region = Mapping[str, str]  # axis -> value, in the order in which they are told
Words = Callable[[str, Sequence[str]], str]  # of some values of an axis: "under left padding"


@dataclass(frozen=True, kw_only=True)
class Sight:
    """One region that was looked at, and whether the change agrees there."""

    region: Region
    agrees: bool


def within(seen: Collection[Sight], most: int = MOST) -> dict[str, list[str]] | None:
    """Axis -> values, of the fewest axes that hold wherever a change agrees and together nowhere else.

    Empty if it agrees wherever it was looked for; None if it does nowhere, or more than `most` axes say where.
    """
    inside = [each.region for each in seen if each.agrees]
    outside = [each.region for each in seen if not each.agrees]
    if not outside:
        return {}
    return _box(inside, outside, most) if inside else None


def limit(seen: Collection[Sight], words: Words) -> str | None:
    """The regions in which a change agrees: "" for all, "only …" or "not …", or None if no few words say it.

    The words are exact for all that was seen: of several that are, those that name the fewest axes and values.
    """
    inside = [each.region for each in seen if each.agrees]
    outside = [each.region for each in seen if not each.agrees]
    if not outside:
        return ""
    if not inside:
        return None
    found = [
        (*_size(box), place, f"{head} {_said(box, words)}")
        for place, (head, these, those) in enumerate(
            (("only", inside, outside), ("not", outside, inside))
        )
        if (box := _box(these, those)) is not None
    ]
    return min(found)[-1] if found else None


def _box(
    these: Sequence[Region], those: Sequence[Region], most: int = MOST
) -> dict[str, list[str]] | None:
    """Values of the fewest axes that hold for all of `these` and together for none of `those`."""
    axes = {axis: list(dict.fromkeys(r[axis] for r in these if axis in r)) for axis in _axes(these)}
    for size in range(1, most + 1):
        for chosen in combinations(axes, size):
            box = {axis: axes[axis] for axis in chosen}
            if not any(_in(region, box) for region in those):
                return box
    return None


def _axes(regions: Sequence[Region]) -> list[str]:
    """The axes on which every one of the regions has a value."""
    return [axis for axis in regions[0] if all(axis in region for region in regions)]


def _in(region: Region, box: Mapping[str, Sequence[str]]) -> bool:
    return all(region.get(axis) in values for axis, values in box.items())


def _size(box: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    return len(box), sum(map(len, box.values()))


def _said(box: Mapping[str, Sequence[str]], words: Words) -> str:
    return " ".join(words(axis, values) for axis, values in box.items())
