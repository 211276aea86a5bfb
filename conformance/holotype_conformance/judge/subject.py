"""The subject of a property, as far as the judge needs to know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holotype_conformance.judge.property import Case, Property, Skip, Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.sharing import one_case


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

    @property
    def paths(self) -> Sequence[str]:
        """The candidate's code paths, each of which must conform; none where its kind has none."""
        return ()

    def check(self, property_: Property, case: Case, seed: int = 0) -> None:
        """Judge one case, in the random states that `seed` gives, on one path after the other.

        Raises:
            Violation: the claim does not hold; its facts name the path.
            Skip: it says nothing on any path.
        """
        if not property_.by_path:
            property_.check(self, case)
            return
        skips = []
        with one_case():
            for path in self.paths:
                try:
                    property_.check(self, case, path)
                except Skip as skip:
                    skips.append(skip)
                except Violation as violation:
                    violation.facts.setdefault("path", path)
                    raise
        if len(skips) == len(self.paths):
            raise skips[0]

    def smoke(self) -> None:
        """Run the candidate once.

        Raises:
            CandidateUnusable: it could not be run at all.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """Put back what the last property has changed, where that is not in this process."""
