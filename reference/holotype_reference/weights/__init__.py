"""Weights of models: random ones that expose bugs, and those of the published checkpoints."""

from holotype_reference.weights.checkpoints import Weights
from holotype_reference.weights.random import Regime, random_weights

__all__ = ["Regime", "Weights", "random_weights"]
