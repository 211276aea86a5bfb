"""The parameters of a model: as many as the spec says, in the right shapes, tied where it ties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.guard import candidate_code
from holotype_conformance.judge.property import Case, Violation, noted
from holotype_conformance.judge.tolerance import demand_equal
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.cases import Layers
from holotype_conformance.models.claims import claim
from holotype_conformance.models.declarations import declaring, holding, inference_only
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.agreement import (
    AgreementCase,
    agreement_cases,
    agreement_inputs,
    backward,
    backward_of_reference,
    unfrozen,
)
from holotype_conformance.models.properties.extras import (
    numbers_beside,
    padding_rows,
    parameters_beside,
    whole_rows,
)
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools.plain_tensor import plain_gradient, plain_tensor
from holotype_reference.weights.checkpoints import CheckpointError, published
from holotype_spec.counts import count_parameters
from holotype_spec.parameters import parameter_table
from holotype_spec.schema import Spec


class SizeCase(Case, frozen=True, kw_only=True):
    """The full model, built on the meta device."""

    size: Literal["full"] = "full"


class LayersCase(Case, frozen=True, kw_only=True):
    """A probe of so many layers."""

    layers: Layers


def _demand_count(subject: Subject, model: nn.Module, spec: Spec, what: str) -> None:
    expected = count_parameters(spec).total
    with candidate_code("parameter_count"):
        total = subject.candidate.parameter_count(model)
    _demand_learning(subject, model)
    beside = numbers_beside(subject, model, total - expected)
    padding = padding_rows(subject, spec, total - beside - expected)
    found = total - beside - padding.numbers
    if found != expected:
        raise Violation(
            f"{what} has {found:,} parameters; expected {expected:,} ({found - expected:+,})"
            f"{_where(model, spec)}{_declared_by(spec, found, expected)}",
            found=found,
            expected=expected,
        )
    if beside:
        noted(f"{what} has {expected:,} parameters, and {beside:,} of adapters beside them")
    if padding.numbers:
        noted(
            f"{what} has {expected:,} parameters, and beside them {padding.rows:,} rows that pad the vocabulary, with"
            f" {padding.numbers:,}"
        )


def _demand_learning(subject: Subject, model: nn.Module) -> None:
    """Demand that every parameter can learn, of a candidate that can, and whose adapters do not learn instead."""
    if "adapters" in subject.candidate.holds or not subject.has("gradients"):
        return
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise Violation(
            f"{frozen[0]} does not require a gradient ({len(frozen)} such). {inference_only()}",
            frozen=frozen[:5],
        )


def _declared_by(spec: Spec, found: int, expected: int) -> str:
    """The declaration that says the difference is meant, if there is one: for a module that is hardly more than
    a shell, for a vocabulary with more rows, and for adapters."""
    if found * 100 < expected:
        return (
            f"; a candidate whose weights are no torch parameters declares {declaring('parameters')}, and its"
            " `parameter_count(model)` can tell how many they are"
        )
    if found < expected:
        return ""
    told = f"; adapters beside the weights are declared: {holding('adapters')}"
    if whole_rows(spec, found - expected):
        told += f", rows that pad the vocabulary and are cut off the logits: {holding('padded-vocabulary')}"
    return told


def _where(model: nn.Module, spec: Spec) -> str:
    """The tensors that differ, if the names are the canonical or the published ones."""
    own = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for stated in (_canonical_shapes(spec), _published_shapes(spec)):
        if stated and len(own.keys() & stated.keys()) * 2 > len(stated):
            return _differences(own, stated)
    return ""


def _differences(own: Mapping[str, tuple[int, ...]], stated: Mapping[str, tuple[int, ...]]) -> str:
    missing = [f"no {name}" for name in stated if name not in own]
    unexpected = [f"unexpected {name} {own[name]}" for name in own if name not in stated]
    misshaped = [
        f"{name} is {own[name]}, expected {stated[name]}"
        for name in own
        if name in stated and own[name] != stated[name]
    ]
    found = [*missing, *unexpected, *misshaped]
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return ": " + "; ".join(found[:3]) + more if found else ""


def _canonical_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    return {parameter.name: parameter.shape for parameter in parameter_table(spec)}


def _published_shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Empty where nobody has published weights, or nobody has written down how these are called."""
    empty = {name: _nowhere(shape) for name, shape in _canonical_shapes(spec).items()}
    try:
        return {name: tuple(tensor.shape) for name, tensor in published(spec, empty).items()}
    except CheckpointError:
        return {}


def _nowhere(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, device="meta")


@claim(
    slug="parameters.count",
    clause="The full-size model has the spec's parameter count.",
    meaning=(
        "The full-size model has exactly as many unique trainable parameters as the spec's "
        "arithmetic. The model is built at full size on the meta device, which allocates nothing, "
        "and its parameters are counted, shared ones once. If its names are the published ones, "
        "the message lists what is missing, too much or of another shape. Look for biases that "
        "should not be, an untied head, a wrong width."
    ),
    catches=("bias added", "head not tied", "feed-forward of another width"),
    needs=("count",),
    binds="all",
    cases=lambda subject: st.just(SizeCase()),
    examples=1,
    dtypes=(),
)
def count(subject: Subject, case: SizeCase) -> None:
    with candidate_code("build on the meta device"), torch.device("meta"):
        model = subject.candidate.build(subject.spec, subject.paths[0])
    _demand_count(subject, model, subject.spec, f"{subject.spec.name} at full size")


@claim(
    slug="parameters.scaling",
    clause="The parameter count is right at any depth.",
    meaning=(
        "The parameter count is exact at any depth: every layer has its own parameters. "
        "Probes of one to four layers, with sizes that all differ, are built and counted. Look "
        "for a size that is hard-coded, or layers that share what they should not."
    ),
    catches=("hard-coded size", "layers share parameters"),
    needs=("count",),
    binds="all",
    cases=lambda subject: st.builds(LayersCase, layers=st.integers(1, 4)),
    examples=4,
    dtypes=(),
)
def scaling(subject: Subject, case: LayersCase) -> None:
    model = subject.fresh_model(Setup(layers=case.layers, path=subject.paths[0]))
    _demand_count(subject, model, subject.probe(case.layers), f"a probe of {case.layers} layers")


@claim(
    slug="parameters.training-step",
    clause="Logits after a training step are the reference's.",
    meaning=(
        "After one step of gradient descent the candidate is still the reference: what is tied "
        "moves together, and nothing else does. Candidate and reference, with the same weights, "
        "take one step of plain gradient descent on the same objective, and their logits are "
        "compared again. A tie that is a copy gets two gradients and falls apart; a frozen or "
        "detached parameter stays behind. Parameters that are others by design, such as those of norms folded into "
        'the next matrix, learn otherwise: they are declared, holds = {"reparametrised": "why"}.'
    ),
    catches=("tie that is a copy", "parameter without gradient"),
    needs=("weights", "gradients", "training-step"),
    binds="all",
    reference=True,
    cases=agreement_cases,
    examples=4,
)
def training_step(subject: Subject, case: AgreementCase, path: str) -> None:
    inputs = agreement_inputs(subject, case)
    setup = Setup(layers=case.layers, weights=case.weights)
    model = unfrozen(subject, subject.fresh_model(case.setup(path)))
    reference = subject.fresh_reference(setup)
    backward(subject, model, inputs, case.tokens)
    backward_of_reference(subject, reference, inputs, case.tokens)
    for parameter in parameters_beside(subject, model).values():
        parameter.grad = None
    rate = _rate(reference)
    for each in (model, reference):
        _step(each, rate)
    demand_equal(
        subject.forward(model, inputs).logits,
        run_reference(reference, inputs).logits.detach(),
        rows=real_rows(inputs),
        budget=100 * subject.floor,
        stated=subject.limits.slopes(subject.widest),
        what="after one step of gradient descent the logits and the reference's",
    )


def _rate(reference: nn.Module) -> float:
    """A rate at which the step is a hundredth of the weights: seen well, and far from chaos."""
    weights = sum(float(parameter.detach().square().sum()) for parameter in reference.parameters())
    slope = sum(
        float(parameter.grad.square().sum())
        for parameter in reference.parameters()
        if parameter.grad is not None
    )
    return 0.01 * math.sqrt(weights / slope) if slope else 0.0


def _step(model: nn.Module, rate: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            gradient = plain_gradient(parameter)
            if gradient is not None:
                plain_tensor(parameter, "a parameter").sub_(rate * gradient)
