"""Agreement with the reference on the same weights: logits and gradients, in every dtype."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.adapters.reference import run_reference
from holotype_conformance.candidate import Inputs, Outputs
from holotype_conformance.compare import demand_equal, relative_error, rms_error
from holotype_conformance.properties.cases import (
    BatchCase,
    always,
    batch_inputs,
    counted_ids,
    farthest,
    layer_counts,
    lengths,
    padding_mask,
    paddings,
    random_order,
)
from holotype_conformance.property import Violation, claim, measured
from holotype_conformance.records import DType
from holotype_conformance.subject import DTYPES, Setup, Subject, copies, real_rows
from holotype_reference import oracle
from holotype_reference.model import Model, Output
from holotype_reference.positions import has_two_positions
from holotype_reference.weighted_sum import Path
from holotype_reference.weights import Weights
from holotype_spec.parameters import Parameter, parameter_table
from holotype_spec.probes import LONG, ROWS
from holotype_spec.schema import Rotary, Spec, TwoDimensionalRotary
from holotype_spec.tensors import tensor_table

LowPrecision = Literal["float32", "bfloat16", "float16"]
PLAIN_PATHS: tuple[Path, ...] = ("fused", "eager")
ROUNDING_FACTOR = {"float32": 2.0, "bfloat16": 1.6, "float16": 2.0}
NARROW = 30.0  # errors within this factor of float32's are taken for it: a part has less, an unlucky one more
LOUD = (
    500.0  # embeddings times this: their squares leave the range of float16, they themselves do not
)


class AgreementCase(BatchCase, frozen=True, kw_only=True):
    """A batch, with or without explicit position ids (which then skip some), token types, a padded source, and an order
    of prediction."""

    positions: Literal["counted", "skipping"] = "counted"
    types: bool = True
    pad_source: bool = False
    ordered: bool = False


def near_and_far(subject: Subject) -> st.SearchStrategy[AgreementCase]:
    """One in seven is long: only there do blocks of a kernel meet, and positions leave what bfloat16 can count."""
    near = agreement_cases(subject)
    if subject.longest <= ROWS:
        return near
    far = st.builds(
        AgreementCase,
        length=st.integers(ROWS + 1, subject.longest),
        batch=st.integers(1, 2),
        padding=paddings(subject),
        layers=st.integers(1, 2),
    )
    return st.integers(0, 6).flatmap(lambda kind: far if kind == 6 else near)


def agreement_cases(subject: Subject) -> st.SearchStrategy[AgreementCase]:
    told = subject.has("position-ids")
    return st.builds(
        AgreementCase,
        length=lengths(),
        batch=st.integers(1, 3),
        padding=paddings(subject),
        positions=st.sampled_from(("counted", "skipping") if told else ("counted",)),
        types=st.booleans() if subject.has("token-types") else st.just(True),
        pad_source=st.booleans() if subject.has("source-mask") else st.just(False),
        ordered=st.booleans() if subject.has("order") else st.just(False),
        layers=layer_counts(),
        weights=st.integers(0, 2),
        tokens=st.integers(0, 99),
    )


def agreement_inputs(subject: Subject, case: AgreementCase) -> Inputs:
    inputs = batch_inputs(subject, case)
    if not case.types:
        inputs = replace(inputs, token_types=None)
    if case.pad_source and inputs.source_ids is not None:
        side: Literal["left", "right"] = "right" if case.tokens % 2 else "left"
        inputs = replace(inputs, source_mask=padding_mask(inputs.source_ids, side))
    if case.ordered:
        inputs = replace(inputs, order=random_order(subject, case))
    if case.positions == "skipping":
        inputs = replace(inputs, position_ids=skipping_positions(subject, case))
    return inputs


def skipping_positions(subject: Subject, case: BatchCase) -> Tensor:
    """(batch, length) growing position ids with gaps, other ones in every row; or (batch, 2, length), the second ones
    in any order."""
    rng = np.random.default_rng([subject.seed, case.tokens, case.length])
    limit = farthest(subject.probe(2))
    rows = [np.sort(rng.choice(limit, case.length, replace=False)) for _ in range(case.batch)]
    ids = torch.from_numpy(np.stack(rows))
    if has_two_positions(subject.spec):
        ids = torch.stack([ids, torch.from_numpy(rng.integers(0, limit, ids.shape))], dim=1)
    return ids.to(subject.device)


def check_logits(subject: Subject, case: AgreementCase, **changes: object) -> None:
    """Demand that the candidate's logits, of either head, are the reference's."""
    inputs = agreement_inputs(subject, case)
    for path in subject.paths:
        setup = case.setup(path, **changes)
        actual = subject.forward(subject.model(setup), inputs)
        with torch.no_grad():
            expected = run_reference(subject.reference(setup.on_any_path()), inputs)
        try:
            demand_equal(
                actual.logits,
                expected.logits,
                rows=real_rows(inputs),
                budget=subject.floor,
                what="the logits and the reference's",
                path=path,
            )
        except Violation as violation:
            raise hinted(violation, float32_error(subject, setup, inputs)) from None
        if actual.next_sentence is not None and expected.next_sentence is not None:
            demand_equal(
                actual.next_sentence[:, None],
                expected.next_sentence[:, None],
                rows=real_rows(inputs)[:, :1],
                budget=subject.floor,
                what="the next-sentence logits and the reference's",
                path=path,
            )


def float32_error(subject: Subject, setup: Setup, inputs: Inputs) -> float:
    """How far the reference is from itself if it computes in float32."""
    narrow = msgspec.structs.replace(setup.on_any_path(), dtype="float32")
    wide = msgspec.structs.replace(setup.on_any_path(), regime=narrow.drawn)
    rows = real_rows(inputs)
    with torch.no_grad():
        rounded, exact = (
            run_reference(subject.reference(each), inputs).logits[rows] for each in (narrow, wide)
        )
    return relative_error(rounded, exact)


def hinted(violation: Violation, rounding: float) -> Violation:
    """The violation; if its error is of the size of float32's `rounding`, it says so."""
    error = violation.facts["error"]
    if not rounding / NARROW <= error <= rounding * NARROW:
        return violation
    return Violation(
        f"{violation.summary}. In float32 the reference itself is off by {rounding:.1e}: the candidate seems to compute"
        " a part of this in float32",
        **violation.facts,
    )


@claim(
    slug="agreement.logits",
    clause="Logits are the reference's, with the same weights.",
    level="must",
    meaning=(
        "With the same weights the logits are those of the reference, to float64 rounding. Bold "
        "random weights, in which no gain is one and no bias zero, are loaded into the candidate "
        "and the reference, and all logits are compared: with and without padding, at lengths up to "
        "523, with positions that skip, with token types and a padded source. Something is computed in another way: "
        "see the diagnosis below, if there is one, and else compare module by module from the "
        "embeddings on."
    ),
    catches=(
        "scale dropped",
        "rotary pairs interleaved",
        "key-value heads tiled",
        "pre-norm for post-norm",
        "another activation",
        "another bucket",
        "head scale dropped",
        "positions counted in half precision",
        "a block of a kernel that forgets the one before",
    ),
    needs=("weights",),
    binds="all",
    reference=True,
    applies=always,
    cases=near_and_far,
    case_type=AgreementCase,
    examples=30,
)
def logits(subject: Subject, case: AgreementCase) -> None:
    check_logits(subject, case)


@claim(
    slug="agreement.faint-logits",
    clause="So they are where the norms' epsilon decides.",
    level="must",
    meaning=(
        "The same holds where activations are so small that the norms' epsilon decides. Weights "
        "are drawn so that what reaches a norm is about as large as the square root of its "
        "epsilon. An epsilon of another size, or in another place (outside the root, added to the "
        "standard deviation), hardly moves an ordinary activation; here it changes the result."
    ),
    catches=("another epsilon", "epsilon outside the root"),
    needs=("weights",),
    binds="all",
    reference=True,
    applies=always,
    cases=agreement_cases,
    case_type=AgreementCase,
    examples=8,
)
def faint_logits(subject: Subject, case: AgreementCase) -> None:
    check_logits(subject, case, regime="faint")


# Gradients ------------------------------------------------------------------------------------------------


def objective(outputs: Outputs | Output, inputs: Inputs, seed: int) -> Tensor:
    """A fixed random linear function of all real outputs, whose gradient is compared."""
    generator = torch.Generator().manual_seed(seed)

    def weigh(tensor: Tensor) -> Tensor:
        cotangent = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return (tensor * cotangent.to(tensor)).sum()

    rows = real_rows(inputs)
    total = weigh(torch.where(rows[..., None], outputs.logits, 0.0))
    return total if outputs.next_sentence is None else total + weigh(outputs.next_sentence)


def backward(subject: Subject, model: nn.Module, inputs: Inputs, seed: int) -> None:
    """Leave the gradient of `objective` in the model's parameters."""
    model.zero_grad()
    if isinstance(model, Model):
        objective(run_reference(model, copies(inputs)), inputs, seed).backward()  # type: ignore[no-untyped-call]
    else:
        objective(subject.forward(model, inputs, grad=True), inputs, seed).backward()  # type: ignore[no-untyped-call]


def slopes(
    subject: Subject, model: nn.Module, weights: Weights, directions: Weights
) -> dict[str, float]:
    """How the objective changes along a direction in each canonical tensor, by the gradients in `model`.

    The candidate's parameters have names and layouts of its own. Loading is a linear map from ours to these, so
    the direction in its parameters is what loading the moved weights adds to them.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    start = [parameter.detach().clone() for parameter in parameters]
    found = {}
    for name, direction in directions.items():
        moved = Weights(weights.spec, {**weights, name: weights[name] + direction})
        subject.load(model, moved)
        found[name] = sum(
            float((parameter.grad * (parameter.detach() - before)).sum())
            for parameter, before in zip(parameters, start, strict=True)
            if parameter.grad is not None
        )
    subject.load(model, weights)
    return found


@claim(
    slug="agreement.gradients",
    clause="Every gradient is the reference's.",
    level="must",
    meaning=(
        "With the same weights the gradient of every parameter is that of the reference. A random "
        "linear function of the logits is differentiated in both, and the slopes along a random "
        "direction in each parameter are compared. Logits that agree with gradients that do not "
        "mean a detach, a no_grad, an in-place change, a hand-written backward, or a tie that is "
        "a copy."
    ),
    catches=("detached branch", "tie that is a copy", "wrong hand-written backward"),
    needs=("weights",),
    binds="all",
    reference=True,
    applies=always,
    cases=agreement_cases,
    case_type=AgreementCase,
    examples=4,
)
def gradients(subject: Subject, case: AgreementCase) -> None:
    inputs = agreement_inputs(subject, case)
    weights = subject.weights(case.layers, case.weights)
    directions = Weights(
        weights.spec,
        {
            row.name: subject.weights(case.layers, case.weights + 7)[row.name].roll(1, 0)
            for row in parameter_table(weights.spec)
        },
    )
    reference = subject.reference(Setup(layers=case.layers, weights=case.weights))
    backward(subject, reference, inputs, case.tokens)
    own = {
        name: None if parameter.grad is None else parameter.grad.cpu()
        for name, parameter in reference.named_parameters()
    }
    sizes = {name: float(grad.norm()) for name, grad in own.items() if grad is not None}
    typical = max(sizes.values()) * 1e-2
    for path in subject.paths:
        model = subject.fresh_model(case.setup(path))
        backward(subject, model, inputs, case.tokens)
        for name, slope in slopes(subject, model, weights, directions).items():
            grad, direction = own[name], directions[name]
            # What these inputs do not call for has no gradient: segments where none are told, one stream of two.
            expected = 0.0 if grad is None else float((grad * direction).sum())
            size = max(sizes.get(name, 0.0), typical)
            scale = size * float(direction.norm()) / direction.numel() ** 0.5
            error = abs(slope - expected) / scale
            if error > 10 * subject.floor:
                raise Violation(
                    f"the slope along {name} is {slope:.6g}, the reference's {expected:.6g}: they differ by {error:.1e}"
                    f" of a typical slope (rounding stays below {10 * subject.floor:.0e})",
                    parameter=name,
                    error=error,
                    path=path,
                )


# Rounding -------------------------------------------------------------------------------------------------


class RoundingCase(BatchCase, frozen=True, kw_only=True):
    """A batch whose rounding errors are compared.

    `far`: at positions far from each other and from 0. `alike`: one token throughout a row, and throughout its source.
    """

    far: bool = False
    alike: bool = False


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


def check_rounding(
    subject: Subject, case: RoundingCase, dtype: LowPrecision, weights: Weights
) -> None:
    """Demand that the candidate's error in `dtype` is of the size of the reference's, both against the oracle.

    Errors of one batch are chance, the more the deeper they are amplified: whoever is over the budget must be over that
    of another batch, too.
    """
    rounded = rounded_to(dtype, weights)
    suspects = subject.paths
    for tokens in (case.tokens, case.tokens + 100):
        batch = msgspec.structs.replace(case, tokens=tokens)
        inputs = rounding_inputs(subject, batch)
        exact = run_oracle(subject, batch, rounded, inputs)
        setup = Setup(layers=case.layers, dtype=dtype)
        own = own_error(subject, setup, rounded, inputs, exact)
        budget = ROUNDING_FACTOR[dtype] * own
        errors = {path: error_on(subject, path, setup, rounded, inputs, exact) for path in suspects}
        suspects = tuple(path for path, error in errors.items() if error > budget)
        if not suspects:
            measured(max(errors.values()), budget)
            return
    error = errors[suspects[0]]
    measured(error, budget)
    raise Violation(
        f"in {dtype} the logits are off by {error:.1e} (relative root mean square against the float64 oracle);"
        f" the reference's are by {own:.1e}, and {budget:.1e} is allowed",
        error=error,
        reference_error=own,
        budget=budget,
        path=suspects[0],
    )


def rounded_to(dtype: DType, weights: Weights) -> Weights:
    """The weights as a model of that dtype holds them."""
    return Weights(weights.spec, {name: value.to(DTYPES[dtype]) for name, value in weights.items()})


def error_on(
    subject: Subject, path: str, setup: Setup, weights: Weights, inputs: Inputs, exact: Tensor
) -> float:
    """The candidate's error on one of its paths."""
    rows = real_rows(inputs)
    model = subject.fresh_model(msgspec.structs.replace(setup, path=path))
    subject.load(model, weights)
    return rms_error(subject.forward(model, inputs).logits[rows], exact[rows])


def own_error(
    subject: Subject, setup: Setup, weights: Weights, inputs: Inputs, exact: Tensor
) -> float:
    """The reference's own error in the dtype of `setup`: of its plain paths that of the worse one.

    Which of them rounds more is chance, and a correct candidate may go either way.
    """
    rows = real_rows(inputs)
    errors = []
    for path in PLAIN_PATHS:
        reference = subject.fresh_reference(setup, path=path)
        reference.load_state_dict(weights)
        with torch.no_grad():
            errors.append(rms_error(run_reference(reference, inputs).logits[rows], exact[rows]))
    return max(errors)


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
    """Some of them at far positions, where these are computed: told, or reached by a long input."""
    rotates = Rotary | TwoDimensionalRotary
    if not isinstance(subject.spec.architecture.positions, rotates):
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


def loud_weights(subject: Subject, case: BatchCase) -> Weights:
    """Weights whose embeddings are so large that their squares overflow in float16."""
    weights = subject.weights(case.layers, case.weights, "steady")
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
    clause="In float32, as near to exact as the reference.",
    level="must",
    meaning=(
        "In float32 the logits are as near to the exact ones as the reference's are. Both run in "
        "float32, and both are measured against the float64 oracle. A candidate that is right in "
        "float64 and much worse here computes a part in a lower precision, or in an order that "
        "cancels. Look for casts."
    ),
    catches=("a part computed in half precision",),
    needs=("weights",),
    binds="all",
    reference=True,
    applies=always,
    cases=rounding_cases,
    case_type=RoundingCase,
    examples=5,
    dtypes=("float32",),
)
def float32(subject: Subject, case: RoundingCase) -> None:
    check_rounding(subject, case, "float32", subject.weights(case.layers, case.weights, "steady"))


@claim(
    slug="agreement.bfloat16",
    clause="In bfloat16, as near to exact as the reference.",
    level="must",
    meaning=(
        "In bfloat16 the logits are as near to the exact ones as the reference's are, which "
        "computes norms, softmax and rotary tables in float32. Both run in bfloat16, with the "
        "same rounded weights, and both are measured against the float64 oracle. A candidate that "
        "is worse here computes a norm, a softmax or the rotary angles in bfloat16. Look for a "
        "missing upcast."
    ),
    catches=("softmax without upcast", "norm without upcast", "rotary angles in bfloat16"),
    needs=("weights",),
    binds="all",
    reference=True,
    applies=always,
    cases=far_cases,
    case_type=RoundingCase,
    examples=5,
    dtypes=("bfloat16",),
)
def bfloat16(subject: Subject, case: RoundingCase) -> None:
    check_rounding(subject, case, "bfloat16", subject.weights(case.layers, case.weights, "steady"))


@claim(
    slug="agreement.float16-range",
    clause="In float16, large activations do not overflow.",
    level="must",
    meaning=(
        "Embeddings are so large that their squares leave the range of float16, as real models' "
        "activations do; the logits must be as near to the exact ones as those of the reference, "
        "which takes the statistics of norms in float32. Look for a norm that squares before it casts."
    ),
    catches=("norm without upcast", "variance computed in half precision"),
    needs=("weights",),
    binds="all",
    reference=True,
    applies=lambda spec: (
        "the first attention reads the embeddings as they are, and its scores would overflow"
        if reads_embeddings_raw(spec)
        else None
    ),
    cases=rounding_cases,
    case_type=RoundingCase,
    examples=3,
    dtypes=("float16",),
)
def float16_range(subject: Subject, case: RoundingCase) -> None:
    check_rounding(subject, case, "float16", loud_weights(subject, case))
