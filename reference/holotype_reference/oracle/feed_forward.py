"""The feed-forward block and its activations."""

from __future__ import annotations

import math

import numpy as np

from holotype_reference.oracle.basics import Array, Scope, linear
from holotype_spec.schema import Activation, Spec


def feed_forward(spec: Spec, p: Scope, x: Array) -> Array:
    """Vaswani et al. 2017, equation 2; with a gate, Shazeer 2020, equation 6."""
    activation = spec.architecture.feed_forward.activation
    if "gate.weight" in p:
        inner = activate(activation, linear(p / "gate", x)) * linear(p / "up", x)
    else:
        inner = activate(activation, linear(p / "up", x))
    return linear(p / "down", inner)


def activate(activation: Activation, x: Array) -> Array:
    match activation:
        case "relu":
            return np.maximum(x, 0.0)
        case "silu":  # x times the logistic function (Hendrycks & Gimpel 2016, section 2)
            return x * np.exp(-np.logaddexp(0.0, -x))
        case "gelu":  # x times the normal distribution's (Hendrycks & Gimpel 2016, section 2)
            return x * 0.5 * (1 + _erf(x / math.sqrt(2)))
        case "gelu-tanh" | "gelu-tanh-rounded":  # its approximation in the same section
            constant = math.sqrt(2 / math.pi) if activation == "gelu-tanh" else 0.79788456
            inner: Array = np.tanh(constant * (x + 0.044715 * x * x * x))
            return 0.5 * x * (1 + inner)


def _erf(x: Array) -> Array:
    return np.array([math.erf(value) for value in x.ravel().tolist()]).reshape(x.shape)
