"""One built probe of a candidate: its size, its path, its weights and its dtype."""

from __future__ import annotations

import msgspec
import torch

from holotype_conformance.judge.records import DType
from holotype_reference.weights import Regime
from holotype_spec.schema import Spec

DTYPES: dict[DType, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
FLOAT64_FLOOR = (
    1e-12  # what "equal to rounding" means between two float64 computations of one formula
)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """One built probe: how many layers, which code path, which weights, in which dtype, whether for long inputs, and
    whether it drops in train mode."""

    layers: int = 2
    path: str = "default"
    weights: int = 0
    regime: Regime = "bold"
    dtype: DType = "float64"
    long: bool = False
    dropping: bool = True

    @property
    def drawn(self) -> Regime:
        """The regime of its weights: where a dtype rounds, bold ones in which that turns no choice of experts."""
        return "steady" if self.regime == "bold" and self.dtype != "float64" else self.regime

    def on_any_path(self) -> Setup:
        """The same probe for the reference, which need not take the candidate's paths."""
        return msgspec.structs.replace(self, path="default")


def undropped(spec: Spec) -> Spec:
    """The spec with a dropout rate of zero."""
    dropout = msgspec.structs.replace(spec.architecture.dropout, rate=0.0)
    architecture = msgspec.structs.replace(spec.architecture, dropout=dropout)
    return msgspec.structs.replace(spec, architecture=architecture)
