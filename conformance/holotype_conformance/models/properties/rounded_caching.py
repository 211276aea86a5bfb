"""Incremental decoding in low precision: what a step computes is as near to exact as what a full pass does."""

from __future__ import annotations

from typing import Annotated

import msgspec
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import can_pad_left, shortest_alike
from holotype_conformance.models.claims import claim
from holotype_conformance.models.properties.caching import read_in_chunks, unpadded
from holotype_conformance.models.properties.causality import decodes
from holotype_conformance.models.properties.rounding import (
    RoundingCase,
    check_rounding,
    steady_weights,
)
from holotype_conformance.models.subject import Subject
from holotype_spec.probes import LONG
from holotype_spec.schema import Alibi

STEPS = 8  # tokens that are read one at a time behind all the others


class StepsCase(RoundingCase, frozen=True, kw_only=True):
    """A batch whose last `steps` tokens are read one at a time behind the others."""

    steps: Annotated[int, msgspec.Meta(ge=1)] = STEPS

    def misfit(self, subject: Subject) -> str | None:
        """Something is read before the steps."""
        if self.steps >= self.length:
            return f"steps {self.steps} are not fewer than length {self.length}"
        return super().misfit(subject)

    @property
    def at_once(self) -> int:
        return self.length - self.steps


def steps_cases(subject: Subject) -> st.SearchStrategy[StepsCase]:
    """Short inputs, with padding too, and as often long ones, behind which low precision cannot count."""
    small = subject.probe(2)

    def of_length(length: int, padding: str, batch: int) -> st.SearchStrategy[StepsCase]:
        rows = batch if padding == "left" else 1
        return st.builds(
            StepsCase,
            length=st.just(length),
            batch=st.just(batch),
            padding=st.just(padding),
            steps=st.just(min(STEPS, length - shortest_alike(small, length, rows))),
            layers=st.just(2),
            weights=st.integers(0, 2),
            tokens=st.integers(0, 99),
        )

    left = st.just("left") if can_pad_left(subject) else unpadded(subject)
    near = st.tuples(st.integers(14, 24), st.one_of(unpadded(subject), left), st.just(4))
    far = st.tuples(st.just(LONG), unpadded(subject), st.just(2))
    # With ALiBi the release of BLOOM itself adds in bfloat16 what grows with the length.
    distant = small.max_positions >= LONG and not isinstance(small.architecture.positions, Alibi)
    either = st.one_of(near, far) if distant else near
    return either.flatmap(lambda drawn: of_length(*drawn)).filter(lambda case: case.steps > 0)


@claim(
    slug="cache.rounding",
    clause="Decoding in bfloat16 is as exact as a full pass.",
    meaning=(
        "In bfloat16 the logits of tokens that are read one at a time through a cache, behind up to 515 others, are as"
        " near to the exact ones as those of the reference's full pass. Decoding often has a path of its own, and a"
        " cache of its own dtype. Look for positions that are counted in the dtype of the activations (bfloat16 cannot"
        " count beyond 256), for a softmax of the steps without upcast, and for keys that are kept in fewer bits than"
        " the model has."
    ),
    catches=(
        "positions of the steps counted in half precision",
        "cache in fewer bits",
        "softmax of the steps without upcast",
    ),
    needs=("cache", "weights", "bfloat16"),
    binds="all",
    reference=True,
    applies=decodes,
    cases=steps_cases,
    examples=3,
    dtypes=("bfloat16",),
    apart=True,
)
def rounding(subject: Subject, case: StepsCase, path: str) -> None:
    weights = steady_weights(subject, case)
    cuts = tuple(range(case.at_once, case.length))

    def run(subject: Subject, model: nn.Module, inputs: Inputs) -> Tensor:
        return read_in_chunks(subject, model, inputs, cuts)

    stated = subject.limits.through_a_cache("bfloat16")
    check_rounding(
        subject, case, path, "bfloat16", weights, run=run, start=case.at_once, stated=stated
    )
