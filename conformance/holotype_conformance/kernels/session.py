"""One run of the properties of kernels: the session of a run, with a kernel in the place of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from holotype_conformance.judge.property import Property
from holotype_conformance.judge.records import Declaration
from holotype_conformance.kernels.claims import kernel_properties
from holotype_conformance.kernels.declared import kernel_declarations
from holotype_conformance.kernels.subject import KernelSubject, Protocol
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.run.session import Run, select


class KernelRun(Run):
    """A request to check a kernel, resolved."""

    _shared: KernelSubject | None = None  # made anew once, for all failures that may share it

    def new_subject(self, spec: Any, kernel: Any = None) -> Any:
        kernel = self.candidate if kernel is None else kernel
        request = self.request
        return KernelSubject(
            kernel, seed=request.seed, device=request.device, dtypes=request.dtypes
        )

    @contextmanager
    def fresh(self, spec: Any, *, shared: bool = False) -> Iterator[Any]:
        """A subject whose kernel is made anew, in the same process, where kernels are judged; a file is run again."""
        if not shared:
            yield self.new_subject(spec, resolve_kernel(self.request.target))
            return
        if self._shared is None:
            self._shared = self.new_subject(spec, resolve_kernel(self.request.target))
        yield self._shared

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
