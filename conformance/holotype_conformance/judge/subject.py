"""What a property judges, as far as the judge needs to know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holotype_conformance.judge.property import Case, Property
from holotype_conformance.judge.records import DType


class Subject:
    """One candidate, called under guard: whatever its code does is an answer, or a `Violation`.

    Attributes:
        what: what is tried once more after a failure, in a word.
        spec: what the candidate is held against.
        seed: shifts every number that is drawn.
        asked: the dtypes that were asked for.
        capabilities: name -> None for what the candidate can do, else the reason why it cannot.
    """

    what = "candidate"
    spec: Any
    seed: int
    asked: Sequence[DType]
    capabilities: Any

    def check(self, property_: Property, case: Case, seed: int) -> None:
        """Judge one case, in the random states that `seed` gives.

        Raises:
            Violation: the claim does not hold.
        """
        property_.check(self, case)

    def smoke(self) -> None:
        """Run the candidate once.

        Raises:
            CandidateUnusable: it could not be run at all.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """Put back what the last property has changed, where that is not in this process."""
