"""The suite of models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import holotype_spec
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Declaration, Diagnosis, DType
from holotype_conformance.judge.suite import Suite
from holotype_conformance.models.candidate import Candidate
from holotype_conformance.models.declarations import declarations
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_spec.schema import Spec


class ModelSuite(Suite[Subject]):
    """The claims about a model, under specs of the catalogue."""

    kind = "model"
    apart = True

    def properties(self) -> tuple[Property[Subject], ...]:
        return all_properties()

    def resolve(self, target: str) -> Candidate:
        return resolve(target)

    def specs(self, names: Sequence[str]) -> list[Spec]:
        return [holotype_spec.load(name) for name in names]

    def subject(
        self, candidate: Any, spec: Any, *, seed: int, device: str, dtypes: Collection[DType]
    ) -> Subject:
        return Subject(candidate, spec, seed=seed, device=device, dtypes=dtypes)

    def refusal(self, candidate: Any, spec: Any) -> str | None:
        found: str | None = candidate.refusal(spec)
        return found

    def declarations(self, candidate: Any, spec: Any) -> tuple[Declaration, ...]:
        return declarations(candidate, spec)

    def diagnose(
        self, subject: Subject, property_: Property[Subject], case: Any, violation: Violation
    ) -> Sequence[Diagnosis]:
        from holotype_conformance.models.diagnosis import diagnose  # with all deviations

        return diagnose(subject, property_, case, violation)


MODELS = ModelSuite()
