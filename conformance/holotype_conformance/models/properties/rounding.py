"""Agreement with the reference in float32, bfloat16 and float16: as near to the formula as the reference is itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import msgspec
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.property import SuiteFault, Violation, measured
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.sharing import shared
from holotype_conformance.judge.tolerance import rms_error
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import (
    BatchCase,
    batch_inputs,
    counted_ids,
    paddings,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.setup import DTYPES, Setup
from holotype_conformance.models.subject import Subject
from holotype_reference import oracle
from holotype_reference.kernels.paths import Path
from holotype_reference.weights import Weights
from holotype_spec.parameters import Parameter
from holotype_spec.probes import LONG
from holotype_spec.schema import Spec
from holotype_spec.tensors import tensor_table

LowPrecision = Literal["float32", "bfloat16", "float16"]
PLAIN_PATHS: tuple[Path, ...] = ("fused", "eager")
ROUNDING_FACTOR = {"float32": 2.0, "bfloat16": 1.6, "float16": 2.0}
LOUD = (
    500.0  # embeddings times this: their squares leave the range of float16, they themselves do not
)


class RoundingCase(BatchCase, frozen=True, kw_only=True):
    """A batch whose rounding errors are compared.

    `far`: at positions far from each other and from 0. `alike`: one token throughout a row, and throughout its source.
    """

    far: bool = False
    alike: bool = False


@shared
def rounding_inputs(subject: Subject, case: RoundingCase) -> Inputs:
    inputs = batch_inputs(subject, case)
    if case.alike:
        return alike(inputs)
    if not case.far:
        return inputs
    return replace(inputs, position_ids=17 + 83 * counted_ids(subject, inputs))


def alike(inputs: Inputs) -> Inputs:
    """The inputs with each row's first token throughout, and a source as long as the row."""

    def repeated(ids: Tensor) -> Tensor:
        return ids[:, :1].expand(inputs.token_ids.shape).clone()

    source = None if inputs.source_ids is None else repeated(inputs.source_ids)
    return replace(inputs, token_ids=repeated(inputs.token_ids), source_ids=source)


Run = Callable[[Subject, nn.Module, Inputs], Tensor]


def run_at_once(subject: Subject, model: nn.Module, inputs: Inputs) -> Tensor:
    """The logits of one full pass: (batch, length, vocabulary)."""
    return subject.forward(model, inputs).logits


def check_rounding(
    subject: Subject,
    case: RoundingCase,
    path: str,
    dtype: LowPrecision,
    weights: Weights,
    *,
    run: Run = run_at_once,
    start: int = 0,
    stated: float = 0.0,
) -> None:
    """Demand that the candidate's error in `dtype` is of the size of the reference's, both against the oracle.

    Errors of one batch are chance, the more the deeper they are amplified: who is over the budget must be over that of
    another batch, too. The candidate is run by `run`, and what is compared begins at the position `start`. What it
    states of its outputs is added to the budget, and so is what it states of this way to run it, `stated`.
    """
    rounded = rounded_to(dtype, weights)
    setup = Setup(layers=case.layers, dtype=dtype, path=path)
    coarse = subject.limits.outputs(dtype) + stated
    for tokens in (case.tokens, case.tokens + 100):
        batch = msgspec.structs.replace(case, tokens=tokens)
        inputs = rounding_inputs(subject, batch)
        rows = _rows_from(start, inputs)
        model = subject.fresh_model(setup)
        subject.load(model, rounded)
        held = subject.held(model, rounded)
        exact, own = _exact_and_own(subject, batch, setup.on_any_path(), held, start)
        error = rms_error(run(subject, model, inputs)[rows], exact[rows])
        budget = ROUNDING_FACTOR[dtype] * own + coarse
        if error <= budget:
            break
    measured(error, budget)
    if not error <= budget:
        raise Violation(
            f"in {dtype} the logits are off by {error:.1e} (relative root mean square against the float64 oracle);"
            f" the reference's are by {own:.1e}, and {budget:.1e} is allowed{_of_which(coarse)}",
            error=error,
            reference_error=own,
            budget=budget,
        )


@shared
def _exact_and_own(
    subject: Subject, batch: RoundingCase, setup: Setup, held: Weights, start: int
) -> tuple[Tensor, float]:
    """The oracle's logits with these weights, and how far the reference is off in the dtype of `setup`."""
    inputs = rounding_inputs(subject, batch)
    exact = run_oracle(subject, batch, held, inputs)
    return exact, own_error(subject, setup, held, inputs, exact, _rows_from(start, inputs))


def _rows_from(start: int, inputs: Inputs) -> Tensor:
    """(batch, length) bool: the real positions from `start` on."""
    rows = real_rows(inputs)
    rows[:, :start] = False
    return rows


def _of_which(coarse: float) -> str:
    return f", {coarse:g} of it because the candidate states so" if coarse else ""


@shared
def rounded_to(dtype: DType, weights: Weights) -> Weights:
    """The weights as a model of that dtype holds them."""
    return Weights(weights.spec, {name: value.to(DTYPES[dtype]) for name, value in weights.items()})


def own_error(
    subject: Subject,
    setup: Setup,
    weights: Weights,
    inputs: Inputs,
    exact: Tensor,
    rows: Tensor | None = None,
) -> float:
    """The reference's own error in the dtype of `setup`: of its plain paths that of the worse one.

    Which of them rounds more is chance, and a correct candidate may go either way. `rows` (batch, length) are the
    positions that count, by default all real ones.

    Raises:
        SuiteFault: it is no number, and nothing can be measured by it.
    """
    rows = real_rows(inputs) if rows is None else rows
    errors = []
    for path in PLAIN_PATHS:
        reference = subject.fresh_reference(setup, path=path, weights=weights)
        with torch.no_grad():
            errors.append(rms_error(run_reference(reference, inputs).logits[rows], exact[rows]))
    found = max(errors)
    if not all(map(math.isfinite, errors)):
        raise SuiteFault(
            f"the reference's own error in {setup.dtype} is {errors}, by which no candidate can be measured"
        )
    return found


def run_oracle(subject: Subject, case: BatchCase, weights: Weights, inputs: Inputs) -> Tensor:
    """(batch, length, vocabulary): the float64 oracle's logits."""
    arrays = {name: tensor.cpu().numpy() for name, tensor in inputs.tensors().items()}
    output = oracle.logits(
        subject.probe(case.layers),
        {name: value.double().cpu().numpy() for name, value in weights.items()},
        arrays.pop("token_ids"),
        **arrays,
    )
    return torch.from_numpy(output.logits).to(subject.device)


def steady_weights(subject: Subject, case: BatchCase) -> Weights:
    """The weights of a case for low precision, in which rounding turns no choice of experts."""
    return subject.weights(case.layers, case.weights, "steady")


def rounding_cases(subject: Subject) -> st.SearchStrategy[RoundingCase]:
    return st.builds(
        RoundingCase,
        length=st.integers(12, 24),
        batch=st.integers(3, 5),
        padding=paddings(subject),
        layers=st.sampled_from((2, 3)),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


def far_cases(subject: Subject) -> st.SearchStrategy[RoundingCase]:
    """Some of them at far positions, where these are computed: passed, or reached by a long input."""
    if not subject.spec.architecture.positions.rotates:
        return rounding_cases(subject)
    if not subject.has("position-ids"):
        return long_rounding_cases(subject)
    near_or_far = st.tuples(rounding_cases(subject), st.booleans())
    return near_or_far.map(lambda drawn: msgspec.structs.replace(drawn[0], far=drawn[1]))


def long_rounding_cases(subject: Subject) -> st.SearchStrategy[RoundingCase]:
    """Some of them so long that rotary angles of low precision are far off."""
    near = rounding_cases(subject)
    if subject.longest < LONG:
        return near
    far = st.builds(
        RoundingCase, length=st.just(LONG), layers=st.just(2), tokens=st.integers(0, 99)
    )
    return st.one_of(near, far)


def reads_embeddings_raw(spec: Spec) -> bool:
    """Whether no norm stands before the first attention: products of large embeddings leave the range of float16."""
    architecture = spec.architecture
    return architecture.residual == "post-norm" and not architecture.normalization.embedding


@shared
def loud_weights(subject: Subject, case: BatchCase) -> Weights:
    """Weights whose embeddings are so large that their squares overflow in float16."""
    weights = steady_weights(subject, case)
    # What scales its embeddings makes them as large by itself.
    scaled = weights.spec.architecture.embeddings.scale == "sqrt-hidden-size"
    factor = LOUD / (weights.spec.hidden_size**0.5 if scaled else 1.0)
    loud = {
        row.name: weights[row.name] * (factor if _is_embedded(row) else 1.0)
        for row in tensor_table(weights.spec)
    }
    return Weights(weights.spec, loud)


def _is_embedded(row: Parameter) -> bool:
    """Whether it is a table of what is summed for a token; others, as that of distances, attention reads raw."""
    return row.role == "embedding" and row.name.startswith(("embeddings.", "source_embeddings."))


@claim(
    slug="agreement.float32",
    clause="Logits in float32 are as exact as the reference's.",
    meaning=(
        "In float32 the logits are as near to the exact ones as the reference's are. Both run in "
        "float32, and both are measured against the float64 oracle. A candidate that is right in "
        "float64 and much worse here computes a part in a lower precision, or in an order that "
        "cancels. Look for casts."
    ),
    catches=("a part computed in half precision",),
    needs=("weights", "float32"),
    binds="all",
    reference=True,
    cases=rounding_cases,
    examples=5,
    dtypes=("float32",),
    apart=True,
)
def float32(subject: Subject, case: RoundingCase, path: str) -> None:
    check_rounding(subject, case, path, "float32", steady_weights(subject, case))


@claim(
    slug="agreement.bfloat16",
    clause="Logits in bfloat16 are as exact as the reference's.",
    meaning=(
        "In bfloat16 the logits are as near to the exact ones as the reference's are, which "
        "computes norms, softmax and rotary tables in float32. Both run in bfloat16, with the "
        "same rounded weights, and both are measured against the float64 oracle. A candidate that "
        "is worse here computes a norm, a softmax or the rotary angles in bfloat16. Look for a "
        "missing upcast."
    ),
    catches=("softmax without upcast", "norm without upcast", "rotary angles in bfloat16"),
    needs=("weights", "bfloat16"),
    binds="all",
    reference=True,
    cases=far_cases,
    examples=5,
    dtypes=("bfloat16",),
    apart=True,
)
def bfloat16(subject: Subject, case: RoundingCase, path: str) -> None:
    check_rounding(subject, case, path, "bfloat16", steady_weights(subject, case))


@claim(
    slug="agreement.float16-range",
    clause="Large activations do not overflow in float16.",
    meaning=(
        "Embeddings are so large that their squares leave the range of float16, as real models' "
        "activations do; the logits must be as near to the exact ones as those of the reference, "
        "which takes the statistics of norms in float32. Look for a norm that squares before it casts."
    ),
    catches=("norm without upcast", "variance computed in half precision"),
    needs=("weights", "float16"),
    binds="all",
    reference=True,
    applies=lambda spec: (
        "the first attention reads the embeddings as they are, and its scores would overflow"
        if reads_embeddings_raw(spec)
        else None
    ),
    cases=rounding_cases,
    examples=3,
    dtypes=("float16",),
    apart=True,
)
def float16_range(subject: Subject, case: RoundingCase, path: str) -> None:
    check_rounding(subject, case, path, "float16", loud_weights(subject, case))
