"""Agreement with the reference on the same weights: logits and gradients, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation, measured
from holotype_conformance.judge.records import DType
from holotype_conformance.judge.sharing import shared
from holotype_conformance.judge.tolerance import demand_equal, largest_error, relative_error
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.cases import (
    BatchCase,
    batch_inputs,
    farthest,
    layer_counts,
    lengths,
    padding_mask,
    paddings,
    random_order,
)
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import copies, real_rows
from holotype_conformance.models.narrow import UNLUCKY
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools.plain_tensor import plain_gradient, plain_tensor
from holotype_reference.model import Model, Output
from holotype_reference.weights import Weights
from holotype_spec.parameters import parameter_table
from holotype_spec.probes import ROWS

NARROW = 30.0  # errors within this factor of float32's are taken for it: a part has less, an unlucky one more


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
        length=st.integers(ROWS + 1, subject.longest * 5 // 4).map(
            lambda n: min(n, subject.longest)
        ),
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


@shared
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
    """(batch, length) growing position ids with gaps, other ones in every row, up to the last one that there is; or
    (batch, 2, length), the second ones in any order."""
    rng = np.random.default_rng([subject.seed, case.tokens, case.length])
    limit = farthest(subject.probe(2))
    rows = [np.sort(rng.choice(limit, case.length, replace=False)) for _ in range(case.batch)]
    ids = torch.from_numpy(np.stack(rows))
    ids[-1, -1] = limit - 1
    if subject.spec.two_positions:
        ids = torch.stack([ids, torch.from_numpy(rng.integers(0, limit, ids.shape))], dim=1)
    return ids.to(subject.device)


def check_logits(subject: Subject, case: AgreementCase, path: str, **changes: object) -> None:
    """Demand that the candidate's logits, of either head, are the reference's."""
    inputs = agreement_inputs(subject, case)
    setup = case.setup(path, **changes)
    actual = subject.forward(subject.model(setup), inputs)
    expected = _referred(subject, case, setup.on_any_path())
    try:
        demand_equal(
            actual.logits,
            expected.logits,
            rows=real_rows(inputs),
            budget=_logit_budget(subject, setup, inputs),
            stated=subject.limits.outputs(subject.widest),
            what="the logits and the reference's",
        )
    except Violation as violation:
        if subject.widest != "float64":
            raise
        raise hinted(violation, own_rounding(subject, setup, inputs, "float32")) from None
    if (
        subject.has("next-sentence")
        and actual.next_sentence is not None
        and expected.next_sentence is not None
    ):
        demand_equal(
            actual.next_sentence[:, None],
            expected.next_sentence[:, None],
            rows=real_rows(inputs)[:, :1],
            budget=subject.floor,
            stated=subject.limits.outputs(subject.widest),
            what="the next-sentence logits and the reference's",
        )


@shared
def _referred(subject: Subject, case: AgreementCase, setup: Setup) -> Output:
    """The outputs of the reference for the inputs of a case."""
    with torch.no_grad():
        return run_reference(subject.reference(setup), agreement_inputs(subject, case))


def _logit_budget(subject: Subject, setup: Setup, inputs: Inputs) -> float:
    """The tolerance of logits for rounding: below float64 the error of the reference itself on these inputs."""
    if subject.widest == "float64":
        return subject.floor
    return max(subject.floor, UNLUCKY * own_rounding(subject, setup, inputs, subject.widest))


def own_rounding(subject: Subject, setup: Setup, inputs: Inputs, dtype: DType) -> float:
    """The distance of the reference from itself if it computes in `dtype`."""
    narrow = msgspec.structs.replace(setup.on_any_path(), dtype=dtype)
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
    cases=near_and_far,
    examples=30,
    apart=True,
)
def logits(subject: Subject, case: AgreementCase, path: str) -> None:
    check_logits(subject, case, path)


@claim(
    slug="agreement.faint-logits",
    clause="Logits agree where the norms' epsilon decides.",
    meaning=(
        "With the same weights the logits are those of the reference also where activations are so "
        "small that the norms' epsilon decides. Weights "
        "are drawn so that what reaches a norm is about as large as the square root of its "
        "epsilon. An epsilon of another size, or in another place (outside the root, added to the "
        "standard deviation), hardly moves an ordinary activation; here it changes the result."
    ),
    catches=("another epsilon", "epsilon outside the root"),
    needs=("weights",),
    binds="all",
    reference=True,
    cases=agreement_cases,
    examples=8,
    apart=True,
)
def faint_logits(subject: Subject, case: AgreementCase, path: str) -> None:
    check_logits(subject, case, path, regime="faint")


# Gradients ------------------------------------------------------------------------------------------------


def objective(outputs: Outputs | Output, inputs: Inputs, seed: int, *, pairs: bool) -> Tensor:
    """A fixed random linear function of all real outputs, whose gradient is compared; of the next-sentence logits too,
    where the candidate has them (`pairs`)."""
    generator = torch.Generator().manual_seed(seed)

    def weigh(tensor: Tensor) -> Tensor:
        cotangent = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        return (tensor * cotangent.to(tensor)).sum()

    rows = real_rows(inputs)
    total = weigh(torch.where(rows[..., None], outputs.logits, 0.0))
    if outputs.next_sentence is None or not pairs:
        return total
    return total + weigh(outputs.next_sentence)


def backward(subject: Subject, model: nn.Module, inputs: Inputs, seed: int) -> None:
    """Leave the gradient of `objective` in the model's parameters."""
    model.zero_grad()
    outputs = subject.forward(model, inputs, grad=True)
    pairs = subject.has("next-sentence")
    subject.backward(model, objective(outputs, inputs, seed, pairs=pairs))


def unfrozen(subject: Subject, model: nn.Module) -> nn.Module:
    """The model, with weights that learn again where they stand still because adapters beside them learn."""
    if "adapters" in subject.candidate.holds:
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    return model


def backward_of_reference(subject: Subject, model: Model, inputs: Inputs, seed: int) -> None:
    """The same of the reference."""
    model.zero_grad()
    outputs = run_reference(model, copies(inputs))
    pairs = subject.has("next-sentence")
    objective(outputs, inputs, seed, pairs=pairs).backward()  # type: ignore[no-untyped-call]


def slopes(
    subject: Subject, model: nn.Module, weights: Weights, directions: Weights
) -> dict[str, tuple[float, Tensor]]:
    """The change of the objective along a direction in each canonical tensor, by the gradients in `model`; and the
    direction, which is another one where the candidate holds its weights more coarsely than they are given.

    The candidate's parameters have names and layouts of its own. Loading is a linear map from ours to these, so
    the direction in its parameters is what loading the moved weights adds to them.
    """
    gradients = {
        name: gradient.clone()
        for name, each in model.named_parameters()
        if (gradient := plain_gradient(each)) is not None
    }
    start = {name: each.clone() for name, each in _held(model).items() if name in gradients}
    found = {}
    held = subject.held(model, weights)
    copied = {name: tensor.clone() for name, tensor in weights.items()}
    for name, direction in directions.items():
        moved = Weights(weights.spec, {**copied, name: copied[name] + direction})
        subject.load_copied(model, moved)
        now = _held(model)
        slope = sum(
            float((gradient * (now[own] - start[own])).sum())
            for own, gradient in gradients.items()
            if own in now
        )
        coarse = subject.held(model, moved)
        found[name] = slope, direction if coarse is moved else coarse[name] - held[name]
    subject.load(model, weights)
    return found


def _held(model: nn.Module) -> dict[str, Tensor]:
    """The contents of the parameters, by name: a loader may put other `Parameter`s in the places of the first ones."""
    found = model.named_parameters(remove_duplicate=False)
    return {name: plain_tensor(each, "a parameter").detach() for name, each in found}


class Slope(NamedTuple):
    """The slope along one tensor, the reference's, and how far it is off as a share of a typical slope."""

    name: str
    found: float
    expected: float
    error: float


def demand_slopes(subject: Subject, found: Sequence[Slope]) -> None:
    """Demand that every slope is right to rounding, or all of them to what the candidate states, in root mean square.

    Raises:
        Violation: they are not; it names the one that is farthest off.
    """
    name, error = largest_error({each.name: each.error for each in found})
    worst = next(each for each in found if each.name == name)
    stated = subject.limits.slopes(subject.widest)
    budget, said = 10 * subject.floor, "rounding stays below"
    if stated and not error <= budget:
        error = (sum(each.error**2 for each in found) / len(found)) ** 0.5
        budget, said = (
            stated,
            f"all of them by {error:.1e} in root mean square; the candidate states",
        )
    measured(error, budget)
    if not error <= budget:
        raise Violation(
            f"the slope along {worst.name} is {worst.found:.6g}, the reference's {worst.expected:.6g}: they differ by"
            f" {worst.error:.1e} of a typical slope ({said} {budget:.1g})",
            parameter=worst.name,
            error=worst.error,
        )


@shared
def _weights_and_directions(subject: Subject, case: AgreementCase) -> tuple[Weights, Weights]:
    """The weights of a case, and a random direction in each of them."""
    setup = Setup(layers=case.layers, weights=case.weights)
    weights = subject.weights_of(setup)
    others = subject.weights_of(msgspec.structs.replace(setup, weights=case.weights + 7))
    directions = {row.name: others[row.name].roll(1, 0) for row in parameter_table(weights.spec)}
    return weights, Weights(weights.spec, directions)


@shared
def _own_gradients(subject: Subject, case: AgreementCase) -> dict[str, Tensor | None]:
    """The reference's gradients of the objective, by canonical name; None where the inputs call for none."""
    reference = subject.reference(Setup(layers=case.layers, weights=case.weights))
    backward_of_reference(subject, reference, agreement_inputs(subject, case), case.tokens)
    return {
        name: None if parameter.grad is None else parameter.grad.cpu()
        for name, parameter in reference.named_parameters()
    }


@claim(
    slug="agreement.gradients",
    clause="Every gradient is the reference's.",
    meaning=(
        "With the same weights the gradient of every parameter is that of the reference. A random "
        "linear function of the logits is differentiated in both, and the slopes along a random "
        "direction in each parameter are compared. Logits that agree with gradients that do not "
        "mean a detach, a no_grad, an in-place change, a hand-written backward, or a tie that is "
        "a copy."
    ),
    catches=("detached branch", "tie that is a copy", "wrong hand-written backward"),
    needs=("weights", "gradients", "parameters"),
    binds="all",
    reference=True,
    cases=agreement_cases,
    examples=4,
)
def gradients(subject: Subject, case: AgreementCase, path: str) -> None:
    inputs = agreement_inputs(subject, case)
    weights, directions = _weights_and_directions(subject, case)
    own = _own_gradients(subject, case)
    sizes = {name: float(grad.norm()) for name, grad in own.items() if grad is not None}
    typical = max(sizes.values()) * 1e-2
    model = unfrozen(subject, subject.fresh_model(case.setup(path)))
    backward(subject, model, inputs, case.tokens)
    found = []
    for name, (slope, direction) in slopes(subject, model, weights, directions).items():
        grad = own[name]
        # What these inputs do not call for has no gradient: segments where none are told, one stream of two.
        expected = 0.0 if grad is None else float((grad * direction).sum())
        size = max(sizes.get(name, 0.0), typical)
        scale = size * float(direction.norm()) / direction.numel() ** 0.5 or 1.0
        found.append(Slope(name, slope, expected, abs(slope - expected) / scale))
    demand_slopes(subject, found)
