"""What is done in training alone is found, and a correct model that computes activations again is not accused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Candidate, FunctionCandidate, Inputs, Labels
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.properties.training import farthest_apart
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2 = load("gpt2")


def judged(candidate: Candidate, slug: str, spec: Spec = GPT2) -> Result:
    return judge(Subject(candidate, spec), PROPERTIES[slug], Settings())


# Train mode -----------------------------------------------------------------------------------------------------

Again = Callable[[nn.Module, Tensor], Tensor]


class Small(nn.Module):
    """Sums of what came before, a norm that is taken in float32, and dropout; `again` runs a layer in training."""

    def __init__(self, spec: Spec, again: Again, rate: float | None = None) -> None:
        super().__init__()
        self.again = again
        self.rate = spec.architecture.dropout.rate if rate is None else rate
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(
            nn.Linear(spec.hidden_size, spec.hidden_size) for _ in range(spec.layers)
        )
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size)

    def layer(self, linear: nn.Module, x: Tensor) -> Tensor:
        y = F.layer_norm(x.float().cumsum(1), x.shape[-1:]).to(x.dtype)
        return x + F.dropout(torch.tanh(linear(y)), self.rate, self.training)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for linear in self.layers:

            def run(x: Tensor, linear: nn.Module = linear) -> Tensor:
                return self.layer(linear, x)

            x = self.again(run, x) if self.training else run(x)  # type: ignore[arg-type]
        logits: Tensor = self.head(x)
        return logits


def small(again: Again, rate: float | None = None) -> Candidate:
    return FunctionCandidate(lambda spec: Small(spec, again, rate), "small")


def plainly(run: Callable[..., Tensor], x: Tensor) -> Tensor:
    return run(x)


def computed_again(run: Callable[..., Tensor], x: Tensor) -> Tensor:
    return checkpoint(run, x, use_reentrant=False)  # type: ignore[no-any-return]


def detached(run: Callable[..., Tensor], x: Tensor) -> Tensor:
    return run(x.detach())


def slightly_louder(run: Callable[..., Tensor], x: Tensor) -> Tensor:
    return run(1.01 * x)


@pytest.mark.parametrize("again", [plainly, computed_again])
def test_computing_activations_again_changes_nothing(again: Again) -> None:
    assert judged(small(again), "modes.train-without-dropout").reason is None


@pytest.mark.parametrize(
    ("again", "rate", "said"),
    [
        (detached, None, "gradients of"),
        (slightly_louder, None, "outputs in train mode"),
        (plainly, 0.1, "outputs in train mode"),
    ],
)
def test_what_training_alone_does_is_found_without_a_reference(
    again: Again, rate: float | None, said: str
) -> None:
    result = judged(small(again, rate), "modes.train-without-dropout")
    assert result.outcome == "failed"
    assert said in (result.reason or "")


def test_a_generic_spec_asks_for_no_dropout_rate() -> None:
    result = judged(small(plainly, 0.1), "modes.train-without-dropout", load("causal-decoder"))
    assert result.outcome == "skipped"


# The loss -------------------------------------------------------------------------------------------------------


class Learning(ReferenceCandidate):
    """The reference with a loss; `change` is done to the logits on their way to it."""

    paths = ("fused",)

    def __init__(self, change: Callable[[nn.Module, Tensor], Tensor], smoothing: float = 0) -> None:
        self.change = change
        self.smoothing = smoothing

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        logits = self.change(model, self.forward(model, inputs).logits)[:, :-1]
        smoothing = self.smoothing if model.training else 0.0
        targets = labels.tokens[:, 1:].flatten()
        return F.cross_entropy(logits.flatten(0, 1), targets, label_smoothing=smoothing)


def untouched(_model: nn.Module, logits: Tensor) -> Tensor:
    return logits


def cut_off(_model: nn.Module, logits: Tensor) -> Tensor:
    return logits.detach() + 0 * logits


@pytest.mark.parametrize(
    ("candidate", "outcome"),
    [
        (Learning(untouched), "passed"),
        (Learning(cut_off), "failed"),
        (Learning(untouched, smoothing=0.1), "failed"),
    ],
)
def test_a_loss_is_learned_from_as_its_formula_is(candidate: Candidate, outcome: str) -> None:
    assert judged(candidate, "objective.loss").outcome == "passed"
    assert judged(candidate, "objective.gradients").outcome == outcome


def test_gradients_are_compared_by_parameter_and_a_missing_one_is_zero() -> None:
    ones = torch.ones(4)
    assert farthest_apart({"a": ones}, {"a": ones}) == (0.0, "a")
    assert farthest_apart({"a": 3 * ones, "b": ones}, {"a": 2 * ones, "b": ones}) == (0.5, "a")
    assert farthest_apart({"b": ones}, {"a": ones, "b": ones}) == (1.0, "a")
    assert farthest_apart({"a": ones}, {"a": ones, "b": 0 * ones})[0] == 0.0
    assert farthest_apart({}, {}) == (0.0, "")


def test_a_setup_without_dropout_is_built_with_a_rate_of_zero() -> None:
    rates = []

    def build(spec: Spec) -> nn.Module:
        rates.append(spec.architecture.dropout.rate)
        return nn.Linear(1, 1)

    subject = Subject(FunctionCandidate(build, "rates"), GPT2)
    for dropping in (True, False):
        subject.fresh_model(Setup(dropping=dropping))
    assert rates[0] == 0.5
    assert rates[-1] == 0.0


# Other state ----------------------------------------------------------------------------------------------------


class Untied(ReferenceCandidate):
    """What is restored has a matrix more, which no call reads."""

    paths = ("fused",)

    def restore(self, spec: Spec, folder: Path, path: str = "fused") -> nn.Module:
        model = super().restore(spec, folder, path)
        model.head.copy = nn.Parameter(model.embeddings.token.weight.detach().clone())  # type: ignore[union-attr]
        return model


def test_a_tie_that_is_lost_in_loading_is_found_before_anything_is_trained() -> None:
    result = judged(Untied(), "storage.round-trip")
    assert result.outcome == "failed"
    assert "tied counted once" in (result.reason or "")


class Grown(nn.Module):
    """After an input longer than ten it remembers that there was one."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size)
        self.longest = 10

    def forward(self, tokens: Tensor) -> Tensor:
        self.longest = max(self.longest, tokens.shape[1])
        logits: Tensor = self.head(self.embed(tokens)) / self.longest
        return logits


def test_what_a_longer_input_leaves_behind_is_found() -> None:
    result = judged(FunctionCandidate(Grown, "grown"), "modes.determinism")
    assert result.outcome == "failed"
    assert result.counterexample is not None
    assert result.counterexample.case["length"] == 1
