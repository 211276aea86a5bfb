"""Candidates that have no float64: the widest dtype that they have takes its place, with what rounding does in it.

Most properties compare in float64, where a mistake stands twelve digits above rounding. In float32 the same is compared
with what the reference itself rounds there, measured, times a factor that leaves room for an unlucky case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from holotype_conformance.judge.declaring import DTYPE_NAMES, MOST
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.tolerance import relative_error
from holotype_conformance.models.setup import Setup
from holotype_reference.support import unsupported
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec

UNLUCKY = 8.0  # times the largest error of the reference in nine models; the largest of a thousand is twice that
# What is equal to rounding where there is no reference to measure: as many units in the last place as in float64.
UNMEASURED: dict[DType, float] = {
    "float64": 1e-12,
    "float32": 5e-4,
    "bfloat16": MOST,
    "float16": MOST,
}


def stand_in(dtype: DType, absent: Collection[str]) -> DType:
    """The dtype in the place of `dtype` for a candidate without the dtypes in `absent`: the nearest wider one that it
    has, else the nearest narrower one."""
    place = DTYPE_NAMES.index(dtype)
    nearest = (*reversed(DTYPE_NAMES[: place + 1]), *DTYPE_NAMES[place + 1 :])
    return next(each for each in nearest if each not in absent)


def rounded(weights: Weights, dtype: torch.dtype) -> Weights:
    """The weights as a model of `dtype` holds them, in float64."""
    return Weights(
        weights.spec, {name: each.to(dtype).to(each.dtype) for name, each in weights.items()}
    )


def measured_floor(spec: Spec, dtype: DType, logits: Callable[[Setup, DType], Tensor]) -> float:
    """The relative distance of two right computations in `dtype`: measured on the reference, if there is one.

    Args:
        spec: what the reference would be built from.
        dtype: in which it rounds.
        logits: the reference's logits with the weights of a probe, computed in a dtype.
    """
    if spec.family.generic or unsupported(spec):
        return UNMEASURED[dtype]
    errors = []
    for layers in (1, 2, 3):
        for seed in range(3):
            probe = Setup(layers=layers, weights=seed, regime="steady")
            errors.append(relative_error(logits(probe, dtype), logits(probe, "float64")))
    found = UNLUCKY * max(errors)
    return found if found <= MOST and all(map(math.isfinite, errors)) else MOST
