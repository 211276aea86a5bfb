"""Keys and values that no query sees: slots of a cache that a window has left behind, or that nobody has written."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st

from holotype_conformance.judge.property import Skip, Violation
from holotype_conformance.kernels.cases import AttentionCase, Mask, cases
from holotype_conformance.kernels.claims import claim
from holotype_conformance.kernels.plain import plain
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.tolerance import allowed, demand_near, error


def _cut_off(subject: KernelSubject) -> st.SearchStrategy[AttentionCase]:
    """Few queries behind many keys, of which a window or the beginning of a document leaves the first ones unseen."""

    def windowed(case: AttentionCase, more: int, size: int) -> AttentionCase:
        return msgspec.structs.replace(case, keys=case.queries + size + more, size=size)

    def packed(case: AttentionCase, more: int, size: int) -> AttentionCase:
        keys = case.queries + size + more
        documents = (more, case.queries + size)
        return msgspec.structs.replace(case, keys=keys, documents=documents, size=1)

    def ways(mask: Mask) -> st.SearchStrategy[AttentionCase]:
        few = cases(subject.dtypes, masks=(mask,), most=9)
        made = packed if mask == "documents" else windowed
        return st.builds(made, few, st.integers(1, 150), st.integers(1, 40))

    taken: tuple[Literal["window", "band", "documents"], ...] = ("window", "band", "documents")
    known = [mask for mask in taken if subject.has(mask)]
    if not known:
        raise Skip("it takes no window and no documents by argument: a mask promises less")
    return st.one_of([ways(mask) for mask in known])


@claim(
    slug="masks.unseen-nan",
    clause="A NaN that no query sees reaches nothing.",
    level="should",
    meaning=(
        "Keys and values that a window or documents, passed as arguments, hide from every query may hold NaN or "
        "infinity: slots of a cache that were never written, or were left behind. They have no weight, and the result "
        "is what it is without them. A product of 0 and NaN is NaN: leave out the blocks that nobody sees, or put "
        "zeros for the values there (torch.where on v, as on the scores). Of what a mask hides this is not asked, for "
        "torch's own kernels do not keep it."
    ),
    catches=("0 times NaN from values that nobody sees", "a maximum taken over unseen keys"),
    wants=("unequal-lengths",),
    cases=_cut_off,
    examples=15,
)
def unseen_nan(subject: KernelSubject, case: AttentionCase) -> None:
    problem = subject.problem(case)
    assert problem.visible is not None
    unseen = np.flatnonzero(~problem.visible.any(axis=(0, 1, 2)))
    if not unseen.size:  # by what the kernel declares there are more queries
        return
    places = torch.from_numpy(unseen).to(problem.call.k.device)
    number, word = ((float("nan"), "NaN"), (float("inf"), "infinity"))[case.data % 2]
    k, v = (
        problem.call.k.index_fill(2, places, number),
        problem.call.v.index_fill(2, places, number),
    )
    expected = problem.expected()
    output = subject.output(problem.changed(k=k, v=v).call, finite=False)
    if not torch.isfinite(output).all():
        raise Violation(
            f"with {word} in the keys and values 0 to {unseen[-1]}, which no query sees, the result is not finite;"
            " expected what it is without them"
        )
    measured = error(plain(problem), expected.output, expected.output_size)
    demand_near(
        output,
        expected.output,
        expected.output_size,
        budget=allowed(measured, output.dtype, expected),
        what=f"the result with {word} in keys and values that no query sees",
    )
