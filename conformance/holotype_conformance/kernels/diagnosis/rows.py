"""The search for blocks that the first row of a batch decides: in rows that see very different numbers of keys."""

from __future__ import annotations

from holotype_conformance.kernels.cases import AttentionCase

LONG = 261  # keys
# Keys of the first row: no two blocks that hold its last one end alike in all of these.
SIZES = (32, 96, 144)


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
