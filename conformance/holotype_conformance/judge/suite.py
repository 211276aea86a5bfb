"""A suite: what is claimed of one kind of candidate, and how such a candidate is found, called and explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Declaration, Diagnosis, DType, Kind

if TYPE_CHECKING:
    from holotype_conformance.judge.subject import Subject

S = TypeVar("S", bound="Subject")


class Suite(ABC, Generic[S]):
    """The properties of one kind of candidate; a session runs any of them.

    Attributes:
        kind: its name in requests and reports.
        apart: whether its candidates may be called in another process than that which judges them.
    """

    kind: Kind
    apart: bool = False

    @abstractmethod
    def properties(self) -> tuple[Property[S], ...]:
        """Every property, in reading order."""

    @abstractmethod
    def resolve(self, target: str) -> Any:
        """The candidate that a target names. Imports it.

        Raises:
            TargetError: it names nothing, does not import, or is not something that can be checked.
        """

    @abstractmethod
    def specs(self, names: Sequence[str]) -> list[Any]:
        """The specs that a candidate is held against, each with a name."""

    @abstractmethod
    def subject(
        self, candidate: Any, spec: Any, *, seed: int, device: str, dtypes: Collection[DType]
    ) -> S:
        """The subject of the properties."""

    @abstractmethod
    def declarations(self, candidate: Any, spec: Any) -> tuple[Declaration, ...]:
        """The declarations of the candidate under `spec`.

        Raises:
            DeclarationError: it declares what cannot be.
        """

    @abstractmethod
    def diagnose(
        self, subject: S, property_: Property[S], case: Any, violation: Violation
    ) -> Sequence[Diagnosis]:
        """The explanations of a failure, best first."""

    def smoke(self, subject: S) -> None:
        """Run the candidate once.

        Raises:
            CandidateUnusable: it could not be run at all.
        """
        subject.smoke()

    def refusal(self, candidate: Any, spec: Any) -> str | None:
        """Why the candidate has nothing to show under `spec`, or None."""
        return None

    def made_anew(self, candidate: Any, target: str) -> Any:
        """The candidate for a subject of its own; the same one, where all that it keeps is in what it builds."""
        return candidate

    def slugs(self) -> list[str]:
        """The names of all properties."""
        return [property_.slug for property_ in self.properties()]
