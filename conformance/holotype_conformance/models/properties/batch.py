"""Rows of a batch do not know of each other."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import BatchCase, batch_cases, batch_inputs
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.variants import (
    TwiceCase,
    allowance,
    demand_alike,
    twice_cases,
)
from holotype_conformance.models.stillness import leaks
from holotype_conformance.models.subject import Subject


def _select(inputs: Inputs, index: Tensor) -> Inputs:
    """The rows `index` of a batch."""
    return Inputs(**{name: tensor[index] for name, tensor in inputs.tensors().items()})


def _several(subject: Subject) -> st.SearchStrategy[BatchCase]:
    return batch_cases(subject, batches=st.integers(2, 4))


@claim(
    slug="batch.independence",
    clause="One row of a batch has no effect on another.",
    meaning=(
        "The content of one row of a batch has no effect on another row. All rows but the first "
        "get other tokens, all shapes stay the same, and the first row must keep its very bits. "
        "Look for a softmax or a norm over the batch, a reshape that mixes rows, and state kept "
        "in the module."
    ),
    catches=("softmax over the batch", "rows mixed by a reshape"),
    cases=_several,
    examples=10,
    apart=True,
)
def independence(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    source = 0 if inputs.source_ids is None else inputs.source_ids.shape[1]
    other = subject.inputs(tokens=(case.batch, case.length), source=source, seed=case.tokens + 1)
    tokens = other.token_ids.clone()
    tokens[0] = inputs.token_ids[0]
    changed = replace(inputs, token_ids=tokens)
    if inputs.source_ids is not None and other.source_ids is not None:
        changed = replace(
            changed, source_ids=torch.cat([inputs.source_ids[:1], other.source_ids[1:]])
        )
    first = real_rows(inputs)
    first[1:] = False
    model = subject.model(case.setup(path))
    before = subject.forward(model, inputs).logits
    after = subject.forward(model, changed).logits
    if leaks(subject, model, inputs, before, after, first).any():
        size = float((before - after)[first].abs().max())
        raise Violation(
            f"row 0 moved by {size:.1e} when only other rows changed; expected the same bits",
        )


@claim(
    slug="batch.order",
    clause="Reordered rows of a batch give reordered outputs.",
    meaning=(
        "Rows in another order give the same outputs in that order. The rows of a batch are "
        "reversed, and the outputs must be reversed. Look for anything that is indexed by the "
        "row's number, such as a mask or positions of the first row used for all."
    ),
    catches=("mask of the first row used for all", "position ids of the first row used for all"),
    cases=_several,
    examples=10,
    apart=True,
)
def order(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    backwards = torch.arange(case.batch - 1, -1, -1)
    model = subject.model(case.setup(path))
    demand_equal(
        subject.forward(model, _select(inputs, backwards)).logits[backwards],
        subject.forward(model, inputs).logits,
        rows=real_rows(inputs),
        budget=subject.floor,
        what="the outputs of the reversed batch, reversed back, and of the batch",
    )


@claim(
    slug="batch.size",
    clause="A row gives the same logits alone and in a batch.",
    meaning=(
        "A row gives in a batch what it gives alone. Each row is run in a batch of one. Look for "
        "a broadcast that is only right when the batch has one row."
    ),
    catches=("broadcast right only for one row", "capacity shared by the batch"),
    cases=_several,
    examples=10,
    apart=True,
)
def size(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    rows = real_rows(inputs)
    model = subject.model(case.setup(path))
    together = subject.forward(model, inputs).logits
    for row in range(case.batch):
        alone = _select(inputs, torch.tensor([row]))
        demand_equal(
            together[row : row + 1],
            subject.forward(model, alone).logits,
            rows=rows[row : row + 1],
            budget=subject.floor,
            what=f"row {row} in the batch and alone",
        )


@claim(
    slug="batch.rounding",
    clause="Batch size changes only rounding, in any precision.",
    meaning=(
        "batch.size in every dtype: each row alone and in the batch, within twice what the reference's own rounding "
        "allows. Kernels choose other tiles for other batches, so that bits may differ; more than rounding may not. "
        "Look for a scale or a quantisation that is computed over the whole batch, and for a path for large batches "
        "that accumulates in half precision."
    ),
    catches=("quantised with one scale for the batch",),
    needs=("weights",),
    cases=lambda subject: twice_cases(subject, ("bfloat16", "float32", "float16")),
    examples=3,
    dtypes=("float32", "bfloat16", "float16"),
    apart=True,
)
def rounding(subject: Subject, case: TwiceCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    budget = 2 * allowance(subject, case)
    rows = real_rows(inputs)
    model = subject.model(case.setup(path, dtype=case.dtype))
    together = subject.forward(model, inputs).logits
    alone = [
        subject.forward(model, _select(inputs, torch.tensor([row]))).logits
        for row in range(case.batch)
    ]
    demand_alike(
        torch.cat(alone),
        together,
        rows=rows,
        case=case,
        budget=budget,
        what="rows alone and in the batch",
    )
