"""Training: without dropout it computes what evaluation does, and its loss teaches what the formula teaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import strategies as st
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.tolerance import demand_equal, largest_error
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import BatchCase, batch_cases, batch_inputs
from holotype_conformance.models.claims import claim
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.properties.agreement import backward
from holotype_conformance.models.properties.losses import (
    expected_loss,
    loss_cases,
    taught_case,
)
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools.plain_tensor import plain_gradient

Gradients = dict[str, Tensor]
# Models are float32 here: what a checkpointed layer computes again is computed where no float32 can be lifted to
# float64. As many units in the last place as FLOAT64_FLOOR is of float64.
FLOAT32_FLOOR = 5e-4


def gradients_of(model: nn.Module) -> Gradients:
    """Of each parameter that has one, a copy of its gradient."""
    found = {
        name: gradient.detach().clone()
        for name, parameter in model.named_parameters()
        if (gradient := plain_gradient(parameter)) is not None
    }
    model.zero_grad()
    return found


def farthest_apart(actual: Gradients, expected: Gradients) -> tuple[float, str]:
    """The largest distance of the gradients of one parameter from each other, and its name.

    A parameter without a gradient has one of zero. Each difference is relative to the norm of the gradient, or to a
    hundredth of the largest norm, where that is more.
    """
    sizes = {name: float(each.norm()) for name, each in expected.items()}
    typical = max(sizes.values(), default=0.0) * 1e-2 or 1.0

    def apart(name: str) -> float:
        mine, other = actual.get(name), expected.get(name)
        if mine is None or other is None:
            given = mine if other is None else other
            difference = 0.0 if given is None else float(given.norm())
        else:
            difference = float((mine - other).norm())
        return difference / max(sizes.get(name, 0.0), typical)

    name, error = largest_error({name: apart(name) for name in {**expected, **actual}} or {"": 0.0})
    return error, name


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """The model in train mode, and in eval mode afterwards."""
    model.train()
    try:
        yield
    finally:
        model.eval()


@claim(
    slug="modes.train-without-dropout",
    clause="At dropout rate 0, train and eval mode agree.",
    meaning=(
        "Where the dropout rate is zero, train mode computes what eval mode does: the same logits and the same"
        " gradients, with padding and without. Models are built with a rate of 0. Look for what is done in training"
        " alone: activations that are computed again (gradient checkpointing) from other arguments, a mask or a"
        " kernel that only one mode takes, experts with a capacity, noise in a router, a layer that is skipped, a"
        " dropout rate that is written into the code, a loss with smoothed labels."
    ),
    catches=(
        "checkpointed layer without its mask",
        "capacity in training alone",
        "noise in a router",
        "dropout rate written into the code",
    ),
    needs=("train-mode", "float32"),
    binds=("architecture.dropout",),
    cases=lambda subject: batch_cases(subject, least=4, batches=st.integers(2, 3)),
    examples=3,
    dtypes=("float32",),
)
def train_without_dropout(subject: Subject, case: BatchCase, path: str) -> None:
    inputs = batch_inputs(subject, case)
    model = subject.fresh_model(case.setup(path, dtype="float32", dropping=False))
    evaluated, expected = _logits_and_gradients(subject, model, inputs, case.tokens)
    with training(model):
        trained, actual = _logits_and_gradients(subject, model, inputs, case.tokens)
    demand_equal(
        trained,
        evaluated,
        rows=real_rows(inputs),
        budget=FLOAT32_FLOOR,
        what="the outputs in train mode, with a dropout rate of zero, and in eval mode",
    )
    error, name = farthest_apart(actual, expected)
    if not error <= 10 * FLOAT32_FLOOR:
        raise Violation(
            f"with a dropout rate of zero the gradients of {name} in train mode and in eval mode differ by"
            f" {error:.1e} (relative; rounding stays below {10 * FLOAT32_FLOOR:.0e})",
            parameter=name,
            error=error,
        )


def _logits_and_gradients(
    subject: Subject, model: nn.Module, inputs: Inputs, seed: int
) -> tuple[Tensor, Gradients]:
    """Logits and gradients of the model in its mode; no gradients of a candidate that has none."""
    learns = subject.has("gradients")
    logits = subject.forward(model, inputs, grad=learns).logits.detach()
    if not learns:
        return logits, {}
    backward(subject, model, inputs, seed)
    return logits, gradients_of(model)


@claim(
    slug="objective.gradients",
    clause="Gradients of the loss are those of the formula.",
    meaning=(
        "The gradient of the training loss is that of the formula, through the candidate's own logits, in train mode"
        " with a dropout rate of zero. The loss is differentiated, and so is the mean cross-entropy of the logits:"
        " every parameter must get the same. Look for a detach or a no_grad on the way to the loss, and for what is"
        " added to it or smoothed in training alone. A model with experts, which may add a loss of their routers, is"
        " looked at in eval mode."
    ),
    catches=("loss detached from the logits", "labels smoothed in training alone"),
    needs=("loss", "gradients", "float32"),
    binds=("architecture.objective", "architecture.dropout"),
    cases=loss_cases,
    examples=2,
    dtypes=("float32",),
)
def objective_gradients(subject: Subject, case: BatchCase, path: str) -> None:
    given, labels, read = taught_case(subject, case)
    model = subject.fresh_model(case.setup(path, dtype="float32", dropping=False))
    model.train(subject.has("train-mode") and not subject.candidate.routes(subject.spec))
    loss = subject.loss(model, given, labels, grad=True)
    subject.backward(model, loss, "the backward pass of the loss")
    actual = gradients_of(model)
    outputs = subject.forward(model, read, grad=True)
    subject.backward(model, expected_loss(subject.spec, outputs, labels))
    error, name = farthest_apart(actual, gradients_of(model))
    if not error <= 10 * FLOAT32_FLOOR:
        raise Violation(
            f"the gradients of {name} by the loss and by the formula on the same logits differ by {error:.1e}"
            f" (relative; expected less than {10 * FLOAT32_FLOOR:.0e})",
            parameter=name,
            error=error,
        )
