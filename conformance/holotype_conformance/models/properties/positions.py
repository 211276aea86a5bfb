"""Positions: passed or counted, shifted or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec
from hypothesis import strategies as st

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.tolerance import demand_equal, relative_error
from holotype_conformance.models.candidate import absolute_positions
from holotype_conformance.models.cases import (
    BatchCase,
    batch_cases,
    batch_inputs,
    counted_ids,
    farthest,
    layer_counts,
    lengths,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.subject import Subject
from holotype_spec.schema import Spec


class ShiftCase(BatchCase, frozen=True, kw_only=True):
    """A batch whose position ids begin at `shift`."""

    shift: Annotated[int, msgspec.Meta(ge=0)] = 0

    def misfit(self, subject: Subject) -> str | None:
        """No position is beyond those that there are."""
        most = farthest(subject.probe(2)) - self.length
        if self.shift > most:
            return f"shift {self.shift} puts the last token beyond the positions that there are; at most {most}"
        return super().misfit(subject)


def _shifts(subject: Subject) -> st.SearchStrategy[ShiftCase]:
    longest = 20
    return st.builds(
        ShiftCase,
        length=lengths(2, longest),
        shift=st.integers(1, farthest(subject.probe(2)) - longest),
        batch=st.integers(1, 3),
        layers=layer_counts(),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


def rotary(spec: Spec) -> str | None:
    """Whether only distances between positions matter, and position ids can be passed."""
    if not spec.architecture.positions.rotates:
        return "the spec's positions are not rotary"
    return "the spec's scores grow with the position" if absolute_positions(spec) else None


def absolute(spec: Spec) -> str | None:
    """Whether positions themselves move every output."""
    return None if spec.added_positions else "the spec's positions are not absolute"


@claim(
    slug="positions.explicit",
    clause="Position ids 0, 1, 2, … mean the same as none.",
    meaning=(
        "Position ids 0, 1, 2, … mean the same as none. The batch is run without position ids and "
        "with those that counting gives. Look at where counting starts, and at whether position "
        "ids are read at all."
    ),
    catches=("counting starts elsewhere",),
    needs=("position-ids",),
    cases=lambda subject: batch_cases(subject, choices=("none", "ones", "right")),
    examples=8,
    apart=True,
)
def explicit(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    count = counted_ids(subject, inputs)
    model = subject.model(case.setup(path))
    demand_equal(
        subject.forward(model, replace(inputs, position_ids=count)).logits,
        subject.forward(model, inputs).logits,
        rows=real_rows(inputs),
        budget=subject.floor,
        what="the outputs with position ids 0, 1, 2, … and without any",
    )


@claim(
    slug="positions.shift-invariance",
    clause="A shift of all RoPE positions changes no output.",
    meaning=(
        "With rotary positions (RoPE) only distances count: a shift of all position ids changes nothing, "
        "other distances do. All position ids are shifted by the same number, which must change "
        "nothing but rounding, and then doubled, which must. Look for a rotation of the queries "
        "or the keys alone, for positions that are ignored, or that index a table which is too "
        "short."
    ),
    catches=("only queries rotated", "position ids ignored"),
    needs=("position-ids",),
    binds=("architecture.positions",),
    applies=rotary,
    cases=_shifts,
    examples=8,
    apart=True,
)
def shift_invariance(subject: Subject, case: ShiftCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    count = counted_ids(subject, inputs)
    model = subject.model(case.setup(path))
    plain = subject.forward(model, inputs).logits
    shifted = replace(inputs, position_ids=count + case.shift)
    demand_equal(
        subject.forward(model, shifted).logits,
        plain,
        rows=real_rows(inputs),
        # Angles themselves are rounded, and the larger they are the more.
        budget=10 * subject.floor,
        what=f"the outputs with position ids shifted by {case.shift} and not shifted",
    )
    doubled = subject.forward(model, replace(inputs, position_ids=2 * count)).logits
    rows = real_rows(inputs)
    if relative_error(doubled[rows], plain[rows]) <= subject.floor:
        raise Violation("doubled position ids changed nothing; expected other outputs")


@claim(
    slug="positions.shift-matters",
    clause="A shift of all absolute positions changes outputs.",
    meaning=(
        "With absolute positions another position is another embedding: a shift of the position "
        "ids changes every output. All position ids are shifted by the same number, and every "
        "output must move. Look for position ids that are accepted and not read."
    ),
    catches=("position ids ignored",),
    needs=("position-ids",),
    binds=("architecture.positions",),
    applies=absolute,
    cases=_shifts,
    examples=6,
    apart=True,
)
def shift_matters(subject: Subject, case: ShiftCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    count = counted_ids(subject, inputs)
    model = subject.model(case.setup(path))
    plain = subject.forward(model, inputs).logits
    shifted = subject.forward(model, replace(inputs, position_ids=count + case.shift)).logits
    still = (plain == shifted).all(-1)
    if still.any():
        row, i = still.nonzero()[0].tolist()
        raise Violation(
            f"output {i} of row {row} kept every bit when all position ids were shifted by {case.shift}",
            row=row,
            position=i,
        )
