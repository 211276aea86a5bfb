"""Questions that every entry of the catalogue answers, complete or not: those of lists and filters."""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from holotype_spec.counts import count_parameters
from holotype_spec.errors import UndisclosedValue
from holotype_spec.files import Entry
from holotype_spec.networks import Network
from holotype_spec.schema import Spec
from holotype_spec.sketch import UNDISCLOSED

Disclosure = Literal["published", "partly", "undisclosed", "rumour"]

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
SIZE = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([KMBT]?)", re.IGNORECASE)


def structure(entry: Entry) -> str:
    """Encoder, decoder and so on, or "undisclosed"."""
    if isinstance(entry, Network):
        return entry.network.structure
    spec = entry if isinstance(entry, Spec) else entry.known
    try:
        return "".join(spec.architecture.structure)
    except UndisclosedValue:
        return UNDISCLOSED


def objectives(entry: Entry) -> tuple[str, ...]:
    """Its training objectives, in order; none where they are undisclosed."""
    if isinstance(entry, Network):
        return entry.network.objective
    spec = entry if isinstance(entry, Spec) else entry.known
    try:
        return tuple(spec.architecture.objective)
    except UndisclosedValue:
        return ()


@cache
def exact(entry: Entry) -> int | None:
    """The exact parameter count, where it depends on nothing undisclosed."""
    if isinstance(entry, Spec) and entry.family.generic:
        return None
    try:
        return count_parameters(entry).total
    except UndisclosedValue:
        return None


def stated(entry: Entry) -> tuple[int, int] | None:
    """The sums over what a source states of the parts: all their parameters, and those that a token uses."""
    parts = () if isinstance(entry, Network) else entry.stated
    if not parts:
        return None
    total = sum(part.parameters * part.number for part in parts)
    return total, sum(part.parameters * part.active for part in parts)


def size(entry: Entry) -> int | None:
    """Its size: exact, or else by the stated sizes of its parts, or else as published."""
    if (count := exact(entry)) is not None:
        return count
    if sums := stated(entry):
        return sums[0]
    return None if entry.parameters == "none" else parsed_size(entry.parameters.published)


def disclosure(entry: Entry) -> Disclosure:
    """The part of it that was disclosed: all ("published"), at least its size ("partly"), or a rumour has it."""
    if isinstance(entry, Network):
        return "published"
    if entry.rumour is not None:
        return "rumour"
    if isinstance(entry, Spec):
        return "published"
    return "undisclosed" if size(entry) is None else "partly"


def parsed_size(text: str) -> int | None:
    """A number of parameters in words ("1.8B", "350M", "13,002"), or None where the text is none."""
    found = SIZE.fullmatch(text.strip())
    if found is None:
        return None
    number = float(found[1].replace(",", "").replace("_", ""))
    return round(number * UNITS[found[2].upper()])
