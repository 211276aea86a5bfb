"""Kernels of the other half."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from holotype_conformance.apart.judging import Asking, Half, Stated
from holotype_conformance.apart.wire import Place
from holotype_conformance.attention.kernel import KernelCapability
from holotype_conformance.attention.subject import KernelSubject
from holotype_conformance.records import DType


class KernelThere(Asking, KernelSubject):
    """One kernel, which is called in the other half."""

    def __init__(self, half: Half, kernel: Stated, spec: Any, **options: Any) -> None:
        super().__init__(kernel, **options)  # type: ignore[arg-type]
        self.half = half
        self.stated = kernel
        self.spec = spec
        self.place = Place(spec.name, str(self.device))

    def on(self, device: torch.device) -> KernelSubject:
        if device == self.device:
            return self
        options = {"seed": self.seed, "device": str(device), "dtypes": self.asked}
        return KernelThere(self.half, self.stated, self.spec, **options)

    @cached_property
    def capabilities(self) -> dict[KernelCapability, str | None]:
        return dict(self.told("capabilities"))

    @cached_property
    def _refused_dtypes(self) -> dict[DType, str | None]:
        return dict(self.told("_refused_dtypes"))
