"""A loader that writes into what it is handed poisons nobody, and is told so."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Property
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.handed_weights import HandedWeights
from holotype_conformance.models.properties.agreement import gradients, logits
from holotype_conformance.models.properties.parameters import training_step
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights, random_weights
from holotype_spec import load
from holotype_spec.probes import probe

pytestmark = pytest.mark.slow

GPT2 = load("gpt2")


def zero(tensor: Tensor) -> None:
    tensor.zero_()


def zero_data(tensor: Tensor) -> None:
    tensor.data.zero_()  # the counter of versions does not see it


def zero_array(tensor: Tensor) -> None:
    tensor.numpy()[...] = 0


class Zeroing(ReferenceCandidate):
    """A port without norm biases, whose loader sets those that it is handed to zero."""

    paths = ("fused",)

    def __init__(self, write: Callable[[Tensor], None]) -> None:
        self.write = write

    def load(self, model: nn.Module, weights: Weights) -> None:
        for name, tensor in weights.items():
            if "norm" in name and name.endswith("bias"):
                self.write(tensor)
        super().load(model, weights)


class ScalingPublished(ReferenceCandidate):
    """Scales the published embeddings in place before it loads."""

    paths = ("fused",)

    def load(self, model: nn.Module, weights: Weights) -> None:
        weights.published()["transformer.wte.weight"].mul_(2.0)
        super().load(model, weights)


class Keeping(ReferenceCandidate):
    """Keeps the very tensors, and takes entries out of the dictionary on the way."""

    paths = ("fused",)

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def load(self, model: nn.Module, weights: Weights) -> None:
        model.load_state_dict({name: weights.pop(name) for name in list(weights)}, assign=True)
        with torch.no_grad():
            next(model.parameters()).mul_(self.factor)


def judged(candidate: ReferenceCandidate, property_: Property = logits) -> Result:
    subject = Subject(candidate, GPT2)
    return judge(subject, property_, Settings())


@pytest.mark.parametrize("write", [zero, zero_data, zero_array])
def test_writing_into_handed_weights_is_a_violation_however_it_is_done(
    write: Callable[[Tensor], None],
) -> None:
    result = judged(Zeroing(write))
    assert result.outcome == "failed"
    assert "load wrote into the weights that it was handed" in (result.reason or "")
    assert "norm.bias" in (result.reason or "")


def test_so_is_writing_into_published_ones() -> None:
    assert "load wrote into the weights" in (judged(ScalingPublished()).reason or "")


@pytest.mark.parametrize("property_", [logits, gradients, training_step], ids=lambda p: p.slug)
def test_a_loader_may_keep_what_it_is_handed_and_train_it(property_: Property) -> None:
    result = judged(Keeping(), property_)
    assert result.outcome == "passed", result.reason


def test_what_it_keeps_is_its_own_and_no_longer_the_references() -> None:
    result = judged(Keeping(factor=1.5))
    assert result.outcome == "failed"
    assert "logits and the reference's differ" in (result.reason or "")


def test_the_weights_of_a_subject_are_out_of_reach() -> None:
    subject = Subject(Zeroing(zero), GPT2)
    before = {name: each.clone() for name, each in subject.weights(2, 0).items()}
    with pytest.raises(AssertionError, match="load wrote"):
        subject.fresh_model(Setup(path="fused"))
    assert all(torch.equal(subject.weights(2, 0)[name], each) for name, each in before.items())


def test_published_copies_are_watched_too() -> None:
    weights = random_weights(probe(GPT2, layers=1), seed=0)
    handed = HandedWeights(weights)
    published = handed.published()
    assert handed.written(weights) == []
    for tensor in published.values():
        tensor.mul_(2.0)
    assert {name for name, _ in handed.written(weights)} >= published.keys()
