"""Blocks of a mask that are skipped for every row of a batch because the first row does not see them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.diagnosis.changes import Change, Terms
from holotype_conformance.kernels.diagnosis.tiled import BLOCKS, UNEVEN, hidden

LONG = 261  # keys
# Keys of the first row: no two blocks that hold its last one end alike in all of these.
SIZES = (32, 96, 144)


def row_changes() -> Iterator[Change]:
    """One for every customary block."""
    for block in (*BLOCKS, *UNEVEN):
        yield _of_first_row(block)


def padded(case: AttentionCase) -> list[AttentionCase]:
    """Long cases whose rows have other numbers of keys, told in the same form."""
    return [
        AttentionCase(
            queries=LONG,
            keys=LONG,
            batch=3,
            head_dim=16,
            dtype=case.dtype,
            mask="right-padding",
            form=case.form,
            size=size,
            by_row=True,
            percent=case.percent,
        )
        for size in SIZES
    ]


def applies(case: AttentionCase) -> bool:
    """Whether rows of the case can differ in what they see by its mask."""
    return case.form != "arguments" and case.batch > 1


def _of_first_row(block: int) -> Change:
    """Which blocks a mask leaves is decided by the first row of the batch."""

    def made(terms: Terms, case: AttentionCase) -> Terms | None:
        if terms.visible is None or case.form == "arguments" or len(terms.visible) == 1:
            return None
        first = terms.visible[:1].any(axis=1, keepdims=True)
        queries, keys = (np.arange(0, length, block) for length in first.shape[2:])
        some = np.logical_or.reduceat(np.logical_or.reduceat(first, queries, 2), keys, 3)
        visited = np.repeat(np.repeat(some, block, 2), block, 3)
        return hidden(terms, visited[:, :, : first.shape[2], : first.shape[3]])

    return Change(
        slug=f"blocks.of-first-row.{block}",
        title=f"blocks of {block} keys are skipped that the first row of the batch does not see",
        made=made,
    )
