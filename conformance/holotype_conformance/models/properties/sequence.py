"""One model, several inputs one after the other: each is answered as if no other had come before."""

from __future__ import annotations

from typing import Annotated

import msgspec
from hypothesis import strategies as st

from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    BatchCase,
    Length,
    batch_inputs,
    layer_counts,
    paddings,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.subject import Subject
from holotype_spec.probes import ROWS


class SequenceCase(BatchCase, frozen=True, kw_only=True):
    """A short input, one of `longest` tokens, the short one again, and `others` rows of it."""

    longest: Length
    others: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2

    def misfit(self, subject: Subject) -> str | None:
        """The long one is longer, and the probe takes it."""
        if self.longest <= self.length:
            return f"longest {self.longest} is not more than length {self.length}"
        longer = BatchCase(length=self.longest, padding=self.padding)
        return super().misfit(subject) or longer.misfit(subject)


def _sequences(subject: Subject) -> st.SearchStrategy[SequenceCase]:
    most = max(subject.longest, ROWS)
    return st.builds(
        SequenceCase,
        length=st.integers(2, 9),
        longest=st.sampled_from((*[most] * 7, 30)),
        batch=st.integers(1, 3),
        others=st.integers(4, 5),
        padding=paddings(subject),
        layers=layer_counts(),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


@claim(
    slug="modes.sequence",
    clause="Outputs do not depend on earlier calls.",
    meaning=(
        "One model is given a short input, a long one, the short one again, another batch size, and the short one "
        "once more; each answer must be that of a model that was given nothing before, to rounding. Where the short "
        "one changes after the long one, what was made for the longest input so far stays: a rotary base or a table "
        "that has grown, a mask buffer that is cut at its wrong end. Where it changes after another batch size, "
        "something is kept for each size, or for the first. Where each answer differs from the one before, a "
        "counter or a running mean goes on. Keep such things only if they are the same for every input, and key them "
        "by all that they depend on."
    ),
    catches=(
        "RoPE base that stays grown after a long input",
        "mask buffer of another input",
        "state kept for each batch size",
        "position counter in the module",
    ),
    cases=_sequences,
    examples=1,
)
def sequence(subject: Subject, case: SequenceCase, path: str) -> None:
    steps = _steps(subject, case)
    setup = msgspec.structs.replace(case.setup(path), long=case.longest > ROWS)
    model = subject.fresh_model(setup)
    alone = {
        name: subject.forward(subject.fresh_model(setup), inputs).logits
        for name, inputs in dict(steps).items()
    }
    for number, (name, inputs) in enumerate(steps):
        before = ", ".join(each for each, _ in steps[:number]) or "nothing"
        demand_equal(
            subject.forward(model, inputs).logits,
            alone[name],
            rows=real_rows(inputs),
            budget=subject.floor,
            what=f"{name} on a model that was given {before} before, and on a fresh one,",
            before=before,
        )


def _steps(subject: Subject, case: SequenceCase) -> list[tuple[str, Inputs]]:
    """The inputs of the model in their order, each with its name."""
    fields = {name: getattr(case, name) for name in BatchCase.__struct_fields__}
    short = batch_inputs(subject, BatchCase(**fields))
    long = batch_inputs(subject, BatchCase(**fields | {"length": case.longest, "batch": 1}))
    other = batch_inputs(subject, BatchCase(**fields | {"batch": case.others}))
    named = (("the short input", short), ("the long one", long), ("another batch", other))
    return [named[index] for index in (0, 1, 0, 2, 0)]
