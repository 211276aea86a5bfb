"""The promises of every call: outputs of the right shape, dtype and values, and inputs left as they were."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from holotype_conformance.judge.property import Case, Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    Batch,
    BatchCase,
    Layers,
    Length,
    asked,
    batch_cases,
    batch_inputs,
    counted_ids,
    layer_counts,
    misfit_of_input,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import copies, real_rows
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject

EVERYDAY: tuple[DType, ...] = ("float32", "float64", "bfloat16")


class OutputCase(Case, frozen=True, kw_only=True):
    """A batch of random tokens on a model in one dtype."""

    length: Length
    batch: Batch
    dtype: DType
    layers: Layers

    def misfit(self, subject: Subject) -> str | None:
        """The probe takes inputs of this length."""
        return misfit_of_input(subject, self.length, "none")


@claim(
    slug="interface.outputs",
    clause="Logits are finite, of the right shape and dtype.",
    meaning=(
        "The logits are finite numbers (batch, length, vocabulary) in the dtype of the "
        "parameters. Every other property builds on this one. The message says what came back "
        "instead, or what was raised."
    ),
    catches=("wrong shape", "wrong dtype", "NaN", "an exception for some length or batch"),
    cases=lambda subject: st.builds(
        OutputCase,
        length=st.integers(1, min(41, subject.probe(2).max_positions)),
        batch=st.integers(1, 5),
        dtype=asked(subject, EVERYDAY),
        layers=layer_counts(),
    ),
    examples=12,
    dtypes=EVERYDAY,
)
def outputs(subject: Subject, case: OutputCase, path: str) -> None:
    inputs = subject.inputs(tokens=(case.batch, case.length))
    setup = Setup(layers=case.layers, dtype=case.dtype, path=path)
    subject.forward(subject.model(setup), inputs)


@claim(
    slug="interface.inputs-unchanged",
    clause="A call leaves the caller's tensors as they were.",
    meaning=(
        "A call leaves the caller's tensors as they were. Token ids, masks and position ids are "
        "compared before and after a call, with and without a cache. A caller who reads them "
        "again would get something else. Look for in-place operations (names that end in an "
        "underscore, assignments to a slice) on what was passed in."
    ),
    catches=("mask changed in place", "token ids changed in place"),
    cases=lambda subject: batch_cases(subject),
    examples=10,
)
def inputs_unchanged(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    if inputs.source_ids is not None and subject.has("source-mask"):
        inputs = replace(inputs, source_mask=torch.ones_like(inputs.source_ids))
    if inputs.position_ids is None and subject.has("position-ids"):
        inputs = replace(inputs, position_ids=counted_ids(subject, inputs))
    calls = ["forward", "forward_cached"] if subject.has("cache") else ["forward"]
    model = subject.model(case.setup(path))
    for call in calls:
        handed = copies(inputs)
        if call == "forward":
            subject.call(model, handed)
        else:
            with suppress(Violation):  # whether it can be called at all is for cache.chunks to say
                subject.call_cached(model, handed, None)
        for name, before in inputs.tensors().items():
            if not torch.equal(before, getattr(handed, name)):
                raise Violation(f"{call} changed the caller's {name}", tensor=name)


@claim(
    slug="interface.strides",
    clause="Strided views give what contiguous inputs give.",
    level="should",
    meaning=(
        "Inputs that are views with other strides give what their contiguous copies give. Token "
        "ids and masks are handed over as every second column of a wider tensor. Look for `view` "
        "where `reshape` is meant, and for kernels that assume contiguous memory."
    ),
    catches=("view of a strided tensor",),
    cases=lambda subject: batch_cases(subject),
    examples=5,
)
def strides(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    strided = Inputs(**{name: _strided(value) for name, value in inputs.tensors().items()})
    model = subject.model(case.setup(path))
    demand_equal(
        subject.call(model, strided).logits,
        subject.forward(model, inputs).logits,
        rows=real_rows(inputs),
        budget=subject.floor,
        what="the outputs for strided and for contiguous inputs",
    )


def _strided(tensor: Tensor) -> Tensor:
    """Every second column of a tensor whose rows have one column more, so that no `view` can flatten it."""
    wide = torch.cat([tensor.repeat_interleave(2, dim=-1), tensor[..., :1]], dim=-1)
    return wide[..., :-1:2]
