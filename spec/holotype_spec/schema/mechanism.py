"""The base of all mechanisms, which answer for themselves, so that nobody who reads a spec must ask for a class.

A mechanism is one alternative of a field of `Architecture`. Beside its constants its class has what follows from
them: the rows that it adds to the table of parameters, what it costs, and how a probe makes it small. Each kind of
mechanism (positions, attention, patterns, feed-forward blocks, heads, norms) has a base here or in its own module
whose methods answer for a mechanism that has nothing of the sort; a new class overrides what is different in it.
"""

from __future__ import annotations

from typing import Self

import msgspec

from holotype_spec.schema.values import Strict


class Probing(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes that a caller of `Spec.probe` chooses, and mechanisms shrink to."""

    layers: int
    rows: int
    window: int
    groups: int | None = None


class Mechanism(Strict):
    """One choice of an architecture."""

    def probed(self, probing: Probing) -> Self:
        """The same with distances and sizes of its own that show within a short input."""
        return self
