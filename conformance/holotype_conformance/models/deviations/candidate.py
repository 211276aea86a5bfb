"""A deviation as a candidate: ``holotype check deviation:SLUG --spec SPEC`` shows what it looks like in a report."""

from __future__ import annotations

from typing import cast

from torch import nn

from holotype_conformance.judge.importing import TargetError
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.deviations.deviation import Deviation, UnknownDeviation, find
from holotype_reference.kernels.paths import Path
from holotype_reference.model import build
from holotype_spec.schema import Spec


class DeviatedCandidate(ReferenceCandidate):
    """The reference model with a deviation, or with several at once.

    Args:
        deviations: what is done to it, in this order. Of two that replace the same method the last one counts.
        paths: the code paths that are checked.
    """

    paths: tuple[str, ...]

    def __init__(self, *deviations: Deviation, paths: tuple[str, ...] = ("fused", "eager")) -> None:
        self.deviations = deviations
        self.title = "reference with " + " and ".join(each.slug for each in deviations)
        self.paths = paths

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        """The deviated model.

        Raises:
            ValueError: a deviation does not apply to the spec.
        """
        for deviation in self.deviations:
            if not deviation.applies(spec):
                raise ValueError(f"{deviation.slug} does not apply to {spec.name}")
            spec = deviation.spec(spec)
        model = build(spec, path=cast(Path, path))
        for deviation in self.deviations:
            deviation.patch(model)
        return model


def candidate(slug: str) -> DeviatedCandidate:
    """The target ``deviation:SLUG``.

    Raises:
        TargetError: no deviation is called so.
    """
    try:
        return DeviatedCandidate(find(slug))
    except UnknownDeviation as error:
        raise TargetError(str(error)) from error
