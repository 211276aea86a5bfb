"""The part of a backward pass that autograd takes for a constant, where a kernel's second derivatives are wrong."""

from __future__ import annotations

from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Diagnosis
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations import CATALOGUE
from holotype_conformance.kernels.deviations.detached import DetachedDeviation
from holotype_conformance.kernels.double_backward import Bent
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import error, explained

DETACHED = [each for each in CATALOGUE if isinstance(each, DetachedDeviation)]


def detached(subject: KernelSubject, asked: list[Bent]) -> list[Diagnosis]:
    """The tensors that the backward pass takes for constant, if they alone explain all second derivatives asked for."""
    found = []
    for deviation in DETACHED:
        try:
            residual = max(_residual(subject, each, deviation) for each in asked)
        except Violation:
            continue
        if residual <= explained(asked[0].problem.call.q.dtype):
            title = f"agrees with the formula if {deviation.words}"
            found.append(Diagnosis(deviation=deviation.slug, title=title, residual=residual))
    return found


def _residual(subject: KernelSubject, asked: Bent, deviation: DetachedDeviation) -> float:
    """The distance of the kernel from such a backward pass, which is computed in float64."""
    exact = asked.exact()
    expected = exact.of_gradients(lambda call, upstream: _by_inputs(deviation, call, upstream))
    _, sizes = asked.expected()
    found = asked.of_kernel(subject)
    return max(
        error(
            asked.filled(found[name], name),
            exact.filled(expected[name], name).cpu().numpy(),
            getattr(sizes, name),
        )
        for name in found
    )


def _by_inputs(deviation: DetachedDeviation, call: Call, upstream: Tensor) -> tuple[Tensor, ...]:
    found = deviation.gradients(call, upstream)
    return found.q, found.k, found.v
