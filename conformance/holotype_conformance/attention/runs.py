"""One run of the properties of kernels: as `holotype_conformance.runs`, with a kernel in the place of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holotype_conformance.attention.claims import kernel_properties
from holotype_conformance.attention.declared import kernel_declarations
from holotype_conformance.attention.subject import KernelSubject, Protocol
from holotype_conformance.property import Property
from holotype_conformance.records import Declaration
from holotype_conformance.runs import Run, select


class KernelRun(Run):
    """A request to check a kernel, resolved."""

    def new_subject(self, spec: Any) -> Any:
        kernel: Any = self.candidate
        request = self.request
        return KernelSubject(
            kernel, seed=request.seed, device=request.device, dtypes=request.dtypes
        )

    def load_specs(self, names: Sequence[str]) -> list[Any]:
        return [Protocol()]

    def refusal(self, spec: Any) -> None:
        return None

    def declarations(self, spec: Any) -> tuple[Declaration, ...]:
        kernel: Any = self.candidate
        return kernel_declarations(kernel)

    def select(self, globs: Sequence[str]) -> list[Property]:
        return select(globs, kernel_properties())

    def known(self) -> list[str]:
        return [property_.slug for property_ in kernel_properties()]
