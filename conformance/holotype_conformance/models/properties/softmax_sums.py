"""Long rows of attention in low precision: whether the weights of hundreds of keys still sum to one.

What a softmax rounds hardly shows in a short row. Its exponentials and quotients have errors of their own, which cancel
over the keys, and a correct candidate rounds the scores and the weights themselves: such errors are of one size, and
cannot be told apart. The sum below the quotient is another matter. It is one number for the whole row, so that its
error does not cancel, and where each partial sum is rounded it grows with the row: in bfloat16, which has 8 digits, 256
and 1 make 256, and a sum of weights stands still from there on.

One token throughout makes this visible. All values of a row are then alike, whatever the scores are, and attention
gives that value times the sum of the weights.
"""

from __future__ import annotations

from hypothesis import strategies as st

from holotype_conformance.judge.sharing import shared
from holotype_conformance.models.cases import BatchCase
from holotype_conformance.models.claims import claim
from holotype_conformance.models.properties.rounding import (
    RoundingCase,
    check_rounding,
    steady_weights,
)
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights

SHORTEST, LONGEST = 280, 320  # keys a row: a sum of as many weights stands still in bfloat16
TEMPERED = 0.1  # queries times this: scores so close to each other that all keys of a row count


def long_row_cases(subject: Subject) -> st.SearchStrategy[RoundingCase]:
    most = min(LONGEST, subject.spec.max_positions)
    return st.builds(
        RoundingCase,
        length=st.integers(min(SHORTEST, most), most),
        batch=st.just(2),
        padding=st.just("none"),
        layers=st.just(2),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
        alike=st.just(True),
    )


@shared
def tempered_weights(subject: Subject, case: BatchCase) -> Weights:
    """Weights whose queries are so small that attention is nearly uniform."""
    steady = steady_weights(subject, case)
    return Weights(
        steady.spec,
        {
            name: value * (TEMPERED if name.split(".")[-2] == "query" else 1.0)
            for name, value in steady.items()
        },
    )


@claim(
    slug="agreement.long-rows",
    clause="Attention weights over long rows sum to one.",
    meaning=(
        "In bfloat16 the logits are as near to the exact ones as the reference's are where "
        "attention reads hundreds of keys alike. Each input is one token throughout, so that what "
        "attention gives is that token's value times the sum of the weights. Look for a softmax or "
        "a kernel that adds up its weights in half precision: the sum stands still at 256, and the "
        "weights are too large. A softmax of torch takes its sums in float32 by itself, whatever "
        "the dtype of the scores; a call without dtype=torch.float32 is no bug, and its results are "
        "those of one with it."
    ),
    catches=("softmax without upcast", "accumulator in half precision"),
    needs=("weights", "bfloat16"),
    binds="all",
    reference=True,
    cases=long_row_cases,
    examples=2,
    dtypes=("bfloat16",),
    apart=True,
)
def long_rows(subject: Subject, case: RoundingCase, path: str) -> None:
    far_sighted = subject.with_long_rows
    check_rounding(far_sighted, case, path, "bfloat16", tempered_weights(far_sighted, case))
