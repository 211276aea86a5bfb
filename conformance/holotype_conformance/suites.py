"""The suites that there are: the one place that knows them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holotype_conformance.judge.records import Kind
    from holotype_conformance.judge.suite import Suite


def suite_of(kind: Kind) -> Suite[Any]:
    """The suite of a kind of candidate, with its properties imported."""
    if kind == "attention":
        from holotype_conformance.kernels.suite import KERNELS

        return KERNELS
    from holotype_conformance.models.suite import MODELS

    return MODELS
