"""Padding: its content, its side and its amount change nothing at real positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.candidate import Inputs, Outputs, absolute_positions
from holotype_conformance.models.cases import (
    BatchCase,
    Padding,
    asked,
    batch_cases,
    batch_inputs,
    layer_counts,
    lengths,
    padded,
    padding_before,
    padding_mask,
    paddings,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.causality import has_source
from holotype_conformance.models.stillness import leaks, logits
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools.plain_tensor import plain_gradient


def _row(inputs: Inputs, row: int) -> Inputs:
    """One row of a padded batch, its padding cut away."""
    assert inputs.attention_mask is not None
    kept = inputs.attention_mask[row].bool()
    prefix, direction = inputs.prefix, inputs.right_to_left

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[row : row + 1, kept]

    return replace(
        inputs,
        token_ids=inputs.token_ids[row : row + 1, kept],
        attention_mask=None,
        position_ids=None,
        token_types=cut(inputs.token_types),
        source_ids=None if inputs.source_ids is None else inputs.source_ids[row : row + 1],
        prefix=None if prefix is None else (prefix - padding_before(inputs)).clamp(min=0)[[row]],
        right_to_left=None if direction is None else direction[[row]],
    )


def _check_invariance(subject: Subject, case: BatchCase, inputs: Inputs, path: str) -> None:
    """Every row of a padded batch is that row alone, without its padding."""
    assert inputs.attention_mask is not None
    model = subject.model(case.setup(path))
    together = subject.forward(model, inputs)
    for row in range(case.batch):
        kept = inputs.attention_mask[row].bool()
        alone = subject.forward(model, _row(inputs, row))
        demand_equal(
            together.logits[row : row + 1, kept],
            alone.logits,
            rows=torch.ones_like(alone.logits[..., 0], dtype=torch.bool),
            budget=subject.floor,
            what=f"row {row} padded on the {case.padding} and the same row without padding",
        )


@claim(
    slug="padding.right-invariance",
    clause="Right padding changes no output at real positions.",
    meaning=(
        "Padding on the right changes nothing at real positions. Rows of different lengths are "
        "padded on the right, and each must give what it gives alone. Look for a mask that is "
        "ignored, added as 0/1 to the scores, or broadcast along queries instead of keys."
    ),
    catches=("padding mask ignored", "0/1 mask added to scores", "mask broadcast along queries"),
    needs=("attention-mask",),
    cases=lambda subject: batch_cases(
        subject, least=2, choices=("right",), batches=st.integers(1, 4)
    ),
    examples=10,
    apart=True,
)
def right_invariance(subject: Subject, case: BatchCase, path: str) -> None:
    _check_invariance(subject, case, batch_inputs(subject, case), path)


@claim(
    slug="padding.left-invariance",
    clause="Left padding changes no output at real positions.",
    meaning=(
        "Padding on the left changes nothing at real positions (whose position ids count the real "
        "tokens). Rows of different lengths are padded on the left, as for generation, with "
        "position ids that count real tokens where the candidate takes them; each must give what "
        "it gives alone. Look for positions that count the padding, or for a row of scores that "
        "is masked whole and poisons the rest."
    ),
    catches=("padding mask ignored", "positions count the padding", "position ids ignored"),
    needs=("left-padding",),
    cases=lambda subject: batch_cases(
        subject, least=2, choices=("left",), batches=st.integers(1, 4)
    ),
    examples=10,
    apart=True,
)
def left_invariance(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    _check_invariance(subject, case, inputs, path)
    if inputs.position_ids is not None and not absolute_positions(subject.spec):
        _check_invariance(subject, case, replace(inputs, position_ids=None), path)


@claim(
    slug="padding.content",
    clause="Padding content changes no output.",
    meaning=(
        "Padding content changes no output. The tokens at padded positions are "
        "replaced by others, all shapes stay the same, and the real outputs must keep their very "
        "bits. Look for a mask that is derived from the token ids, or that is not applied in some "
        "layer or path."
    ),
    catches=("padding mask ignored", "mask derived from token ids", "mask in the first layer only"),
    needs=("attention-mask",),
    cases=lambda subject: batch_cases(subject, least=2, choices=("right", "left")),
    examples=15,
    apart=True,
)
def content(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    other = subject.inputs(tokens=(case.batch, case.length), seed=case.tokens + 1)
    rows = real_rows(inputs)
    changed = replace(inputs, token_ids=torch.where(rows, inputs.token_ids, other.token_ids))
    model = subject.model(case.setup(path))
    outputs = subject.forward(model, inputs), subject.forward(model, changed)
    what = "tokens at padded positions"
    demand_still = partial(_demand_still, subject, model, inputs, outputs)
    demand_still(rows, what, logits)
    if all(each.next_sentence is not None for each in outputs):
        first = rows[:, :1]  # the pooler reads the first position
        demand_still(first, f"{what} (next-sentence logits)", _sentence)


def _sentence(outputs: Outputs) -> Tensor:
    """(batch, 1, 2)."""
    assert outputs.next_sentence is not None
    return outputs.next_sentence[:, None]


def _demand_still(
    subject: Subject,
    model: nn.Module,
    inputs: Inputs,
    outputs: tuple[Outputs, Outputs],
    rows: Tensor,
    what: str,
    read: Callable[[Outputs], Tensor],
) -> None:
    before, after = map(read, outputs)
    found = leaks(subject, model, inputs, before, after, rows, read)
    if found.any():
        row, i = found.nonzero()[0].tolist()
        size = float((before[row, i] - after[row, i]).abs().max())
        raise Violation(
            f"output {i} of row {row} moved by {size:.1e} when only {what} changed; expected the same bits",
            row=row,
            position=i,
            moved=size,
        )


@claim(
    slug="padding.all-ones",
    clause="A mask of ones means the same as no mask.",
    meaning=(
        "A mask of ones means the same as no mask. The same batch is run without a mask and with "
        "one that is all ones. They often take different paths through the code; a causal mask "
        "that is built in only one of them shows here. Look at the branch on `attention_mask is "
        "None`."
    ),
    catches=("causal mask only without a padding mask", "encoder silently causal without a mask"),
    needs=("attention-mask",),
    cases=lambda subject: batch_cases(subject, choices=("none",)),
    examples=10,
    apart=True,
)
def all_ones(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    masked = padded(subject, inputs, "ones")
    if inputs.source_ids is not None:
        masked = replace(masked, source_mask=torch.ones_like(inputs.source_ids))
    model = subject.model(case.setup(path))
    demand_equal(
        subject.forward(model, masked).logits,
        subject.forward(model, inputs).logits,
        rows=real_rows(inputs),
        budget=subject.floor,
        what="the outputs with a mask of ones and without a mask",
    )


@claim(
    slug="padding.source",
    clause="Padding of the source changes no output.",
    meaning=(
        "Padding of the source changes nothing, in the encoder and in cross-attention, on either "
        "side (on the right alone where positions are absolute). Sources of different lengths are "
        "padded, and each row must give what it gives with its own source alone; the padding "
        "content is changed too. An encoder can mask correctly while cross-attention does "
        "not: look at the mask that the decoder hands to it."
    ),
    catches=("cross-attention mask dropped", "encoder mask dropped"),
    needs=("source-mask",),
    applies=has_source,
    cases=lambda subject: batch_cases(
        subject, least=1, choices=("none", "right"), batches=st.integers(1, 4)
    ),
    examples=10,
    apart=True,
)
def source(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    assert inputs.source_ids is not None
    model = subject.model(case.setup(path))
    # Left padding moves absolute positions, and those of a source cannot be told.
    sides: tuple[Padding, ...] = ("right", "left")
    for side in sides[:1] if absolute_positions(subject.spec) else sides:
        mask = padding_mask(inputs.source_ids, side)
        masked = replace(inputs, source_mask=mask)
        together = subject.forward(model, masked)
        for row in range(case.batch):
            alone = _with_source_of_row(inputs, row, mask[row].bool())
            demand_equal(
                together.logits[row : row + 1],
                subject.forward(model, alone).logits,
                rows=real_rows(inputs)[row : row + 1],
                budget=subject.floor,
                what=f"row {row} with its source padded on the {side} and with its source alone",
            )


def _with_source_of_row(inputs: Inputs, row: int, kept: Tensor) -> Inputs:
    assert inputs.source_ids is not None
    mask = inputs.attention_mask
    return replace(
        inputs,
        token_ids=inputs.token_ids[row : row + 1],
        attention_mask=None if mask is None else mask[row : row + 1],
        source_ids=inputs.source_ids[row : row + 1, kept],
    )


FINITE_IN: tuple[DType, ...] = ("float32", "float64", "bfloat16")


class FiniteCase(BatchCase, frozen=True, kw_only=True):
    """A padded batch, run in one dtype: what is finite in one may overflow in another."""

    dtype: DType = "float32"


def _finite_cases(subject: Subject) -> st.SearchStrategy[FiniteCase]:
    return st.builds(
        FiniteCase,
        length=lengths(2),
        batch=st.integers(2, 4),
        padding=paddings(subject, ("right", "left")),
        dtype=asked(subject, FINITE_IN),
        layers=layer_counts(),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


@claim(
    slug="padding.finite",
    clause="Fully masked rows keep outputs and gradients finite.",
    meaning=(
        "Rows of scores that are fully masked stay finite, and so does every gradient. A batch "
        "padded on the left has queries that see no key, and one row of it is padding throughout. "
        "The real outputs and the gradient of every parameter must be finite. Look for a softmax "
        "over -inf alone, whose NaN reaches other rows through 0 * NaN in the backward pass."
    ),
    catches=("softmax over -inf", "NaN from fully masked rows"),
    needs=("attention-mask",),
    cases=_finite_cases,
    examples=10,
    dtypes=FINITE_IN,
)
def finite(subject: Subject, case: FiniteCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    assert inputs.attention_mask is not None
    mask = inputs.attention_mask.clone()
    mask[-1] = 0
    inputs = replace(inputs, attention_mask=mask)
    learns = subject.has("gradients")
    model = subject.model(case.setup(path, dtype=case.dtype))
    logits = subject.forward(model, inputs, grad=learns).logits
    if not learns:
        return  # that they are finite has been demanded
    model.zero_grad()
    subject.backward(model, logits[real_rows(inputs)].square().sum())
    broken = [
        name
        for name, parameter in model.named_parameters()
        if (gradient := plain_gradient(parameter)) is not None
        and not torch.isfinite(gradient).all()
    ]
    model.zero_grad()
    if broken:
        raise Violation(
            f"the gradient of {broken[0]} is not finite ({len(broken)} such) when one row of the batch is"
            " all padding",
            parameters=broken[:5],
        )
