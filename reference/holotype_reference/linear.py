"""Matrices and tables: `torch.nn`'s own, left uninitialised, because `Model.reset_parameters` sets all parameters."""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """y = x Wᵀ + b with W (outputs, inputs), its memory uninitialised."""

    def reset_parameters(self) -> None:
        """Nothing: see `holotype_reference.model.Model.reset_parameters`."""


class Table(nn.Embedding):
    """One row (hidden_size) for each index, its memory uninitialised."""

    def reset_parameters(self) -> None:
        """Nothing: see `holotype_reference.model.Model.reset_parameters`."""
