"""A deviation as a kernel: ``holotype check-attention deviation:SLUG`` shows what it looks like in a report."""

from __future__ import annotations

from torch import Tensor

from holotype_conformance.judge.deviation import UnknownDeviation
from holotype_conformance.judge.importing import TargetError
from holotype_conformance.kernels.candidate import Call, Documents, KernelCandidate, Prefix
from holotype_conformance.kernels.deviations.deviation import CATALOGUE, RIGHT, KernelDeviation


class DeviatedKernel(KernelCandidate):
    """The formula with a deviation; without one it is right. It takes every argument."""

    def __init__(self, deviation: KernelDeviation | None = None) -> None:
        self.deviation = deviation
        self.title = "the formula" if deviation is None else f"the formula with {deviation.slug}"

    def attention(  # type: ignore[override]
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        window: int | None = None,
        prefix: Prefix | None = None,
        documents: Documents | None = None,
        scale: float | None = None,
    ) -> Tensor:
        call = Call(
            q=q,
            k=k,
            v=v,
            mask=mask,
            causal=causal,
            window=window,
            prefix=prefix,
            documents=documents,
            scale=scale,
        )
        return RIGHT(call) if self.deviation is None else self.deviation.attention(call)


def candidate(slug: str) -> DeviatedKernel:
    """The target ``deviation:SLUG``.

    Raises:
        TargetError: no deviation is called so.
    """
    try:
        return DeviatedKernel(CATALOGUE.find(slug))
    except UnknownDeviation as error:
        raise TargetError(str(error)) from error
