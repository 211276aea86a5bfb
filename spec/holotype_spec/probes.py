"""Probes: a spec scaled down to sizes that expose bugs; `holotype_spec.schema.probing` says how these are chosen."""

from __future__ import annotations

from holotype_spec.schema import Spec
from holotype_spec.schema.probing import LONG as LONG
from holotype_spec.schema.probing import POSITIONS as POSITIONS
from holotype_spec.schema.probing import ROWS as ROWS
from holotype_spec.schema.probing import WINDOW as WINDOW


def probe(
    spec: Spec,
    *,
    layers: int = 2,
    groups: int | None = None,
    rows: int = ROWS,
    window: int = WINDOW,
) -> Spec:
    """The spec of a model of the same architecture that runs in a millisecond; see `Spec.probe`."""
    return spec.probe(layers=layers, groups=groups, rows=rows, window=window)
