"""The norms."""

from __future__ import annotations

import numpy as np

from holotype_reference.oracle.basics import Array, Scope
from holotype_spec.schema import LayerNorm, Spec


def norm(spec: Spec, p: Scope, x: Array) -> Array:
    """LayerNorm (Ba et al. 2016, equation 4) or RMSNorm (Zhang & Sennrich 2019, equation 4).

    Neither formula has eps; like every released code, we add it to the mean square under the root.
    """
    normalization = spec.architecture.normalization
    centred = isinstance(normalization, LayerNorm)
    if centred:
        x = x - x.mean(axis=-1, keepdims=True)
    variance = (x * x).mean(axis=-1, keepdims=True)
    y: Array = p["weight"] * x / np.sqrt(variance + normalization.eps)
    return y + p["bias"] if centred else y
