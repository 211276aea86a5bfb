"""The suite of kernels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.property import Property, Violation
from holotype_conformance.judge.records import Declaration, Diagnosis, DType
from holotype_conformance.judge.suite import Suite
from holotype_conformance.kernels.candidate import KernelCandidate
from holotype_conformance.kernels.declared import kernel_declarations
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelContract, KernelSubject
from holotype_conformance.kernels.targets import resolve_kernel


class KernelSuite(Suite[KernelSubject]):
    """The claims about an attention kernel, whatever model it serves.

    What it is given and returns lies in memory in ways that are a part of what is checked: it is judged where it runs.
    """

    kind = "attention"

    def properties(self) -> tuple[Property[KernelSubject], ...]:
        return kernel_properties()

    def resolve(self, target: str) -> KernelCandidate:
        return resolve_kernel(target)

    def specs(self, names: Sequence[str]) -> list[KernelContract]:
        return [KernelContract()]

    def subject(
        self, candidate: Any, spec: Any, *, seed: int, device: str, dtypes: Collection[DType]
    ) -> KernelSubject:
        return KernelSubject(candidate, seed=seed, device=device, dtypes=dtypes)

    def smoke(self, subject: KernelSubject) -> None:
        """Where the kernel runs in no dtype, the message has the declaration with which it would."""
        try:
            subject.smoke()
        except CandidateUnusable as unusable:
            from holotype_conformance.kernels.diagnosis.refusals import unlimited

            limit = unlimited(subject)
            if limit is None:
                raise
            raise CandidateUnusable(f"{unusable}. It {limit.title}") from unusable

    def declarations(self, candidate: Any, spec: Any) -> tuple[Declaration, ...]:
        return kernel_declarations(candidate)

    def made_anew(self, candidate: Any, target: str) -> KernelCandidate:
        """A kernel keeps what it keeps in itself; a file is run again."""
        return resolve_kernel(target)

    def diagnose(
        self,
        subject: KernelSubject,
        property_: Property[KernelSubject],
        case: Any,
        violation: Violation,
    ) -> Sequence[Diagnosis]:
        from holotype_conformance.kernels.diagnosis import diagnose  # with all that can be wrong

        return diagnose(subject, property_, case, violation)


KERNELS = KernelSuite()
