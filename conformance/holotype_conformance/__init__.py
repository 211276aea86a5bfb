"""The conformance suite: is an implementation the model that it claims to be, and if not, what is wrong with it?

Importing this package imports neither torch nor hypothesis; the names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holotype_conformance.models.candidate import (
        Candidate,
        Difference,
        Floor,
        Inputs,
        Labels,
        Outputs,
    )
    from holotype_conformance.pytest_plugin.parametrize import parametrize_properties

_HOMES = {
    "Candidate": "models.candidate",
    "Difference": "models.candidate",
    "Floor": "models.candidate",
    "Inputs": "models.candidate",
    "Labels": "models.candidate",
    "Outputs": "models.candidate",
    "parametrize_properties": "pytest_plugin.parametrize",
}

__all__ = [
    "Candidate",
    "Difference",
    "Floor",
    "Inputs",
    "Labels",
    "Outputs",
    "parametrize_properties",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
