"""Ordinary code of users is not called wrong, and the mistakes that resemble it still are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Candidate, Capability, Inputs, Outputs
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_conformance.torch_tools.float64 import Float64Throughout, default_dtype
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2 = load("gpt2")
Theirs: Any = type(resolve(f"{ROOT}/examples/third_party_gpt2/adapter.py:Adapter"))


def judged(candidate: Candidate, slug: str, spec: Spec = GPT2) -> Result:
    return judge(Subject(candidate, spec), PROPERTIES[slug], Settings())


# Constants that are made in `forward` ---------------------------------------------------------------------------


def teaching_gelu(x: Tensor) -> Tensor:
    """The GELU of a popular teaching code: 0-dimensional tensors, made anew in every call."""
    root = torch.sqrt(torch.tensor(2.0 / torch.pi))
    return 0.5 * x * (1 + torch.tanh(root * (x + 0.044715 * torch.pow(x, 3))))


def counted_gelu(x: Tensor) -> Tensor:
    """The same with a factor that is made in other ways: by counting, and added to zeros."""
    two = torch.arange(3.0)[2] + torch.zeros(x.shape[-1])
    inner = (two / math.pi).sqrt() * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))


def wrong_gelu(x: Tensor) -> Tensor:
    """Its factor is rounded to three places."""
    root = torch.sqrt(torch.tensor(0.637))
    return 0.5 * x * (1 + torch.tanh(root * (x + 0.044715 * torch.pow(x, 3))))


class WithGelu(Theirs):
    """A third party's GPT-2 with another activation."""

    def __init__(self, gelu: Callable[[Tensor], Tensor]) -> None:
        self.gelu = gelu

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        model: nn.Module = super().build(spec, path)
        for block in model.blocks:  # type: ignore[union-attr]
            block.mlp.activate = self.gelu  # type: ignore[union-attr]
        return model


@pytest.mark.parametrize("gelu", [teaching_gelu, counted_gelu])
@pytest.mark.parametrize("slug", ["agreement.logits", "cache.chunks", "agreement.gradients"])
def test_a_constant_made_in_forward_is_float64_in_a_float64_probe(gelu: Any, slug: str) -> None:
    assert judged(WithGelu(gelu), slug).reason is None


def test_a_constant_that_is_wrong_in_the_fourth_place_is_still_found() -> None:
    assert judged(WithGelu(wrong_gelu), "agreement.logits").outcome == "failed"


def test_the_default_dtype_of_a_call_is_seen_by_nobody_else() -> None:
    with default_dtype(torch.float64):
        assert torch.tensor(0.5).dtype is torch.float64
    assert torch.get_default_dtype() is torch.float32
    subject = Subject(WithGelu(teaching_gelu), GPT2)
    subject.forward(subject.model(Setup()), subject.inputs(tokens=(1, 3)))
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_default_dtype_that_forward_sets_is_still_found(dtype: torch.dtype) -> None:
    class Setting(ReferenceCandidate):
        paths = ("fused",)

        def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
            torch.set_default_dtype(dtype)
            return super().forward(model, inputs)

    result = judged(Setting(), "devices.settings-kept")
    assert result.outcome == "failed"
    assert "default dtype" in (result.reason or "")
    assert torch.get_default_dtype() is torch.float32


# float32 that is written into the code --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lowered",
    [
        lambda x: x.softmax(-1, torch.float32),
        lambda x: torch.softmax(x, -1, torch.float32),
        lambda x: nn.functional.softmax(x, dim=-1, dtype=torch.float32),
        lambda x: x.sum(-1, False, dtype=torch.float32),
        lambda x: x.to("cpu", torch.float32),
        lambda x: x.type("torch.FloatTensor"),
        lambda x: x.type(torch.FloatTensor),
        lambda x: torch.zeros(3, dtype=torch.float32) + x,
    ],
)
def test_float32_is_lifted_however_it_is_asked_for(lowered: Callable[[Tensor], Tensor]) -> None:
    with Float64Throughout():
        assert lowered(torch.ones(3, dtype=torch.float64)).dtype is torch.float64


def test_the_constructor_of_old_is_lifted_and_put_back() -> None:
    before = torch.FloatTensor
    with Float64Throughout():
        with Float64Throughout():
            assert torch.FloatTensor(2, 3).dtype is torch.float64
        assert torch.FloatTensor([1.0]).dtype is torch.float64
        assert isinstance(torch.ones(1, dtype=torch.float64), torch.FloatTensor)
    assert torch.FloatTensor is before
    assert torch.FloatTensor(2).dtype is torch.float32


def test_half_precision_is_not_lifted() -> None:
    with Float64Throughout():
        assert torch.ones(3).softmax(-1, torch.bfloat16).dtype is torch.bfloat16
        assert torch.ones(3).type("torch.HalfTensor").dtype is torch.float16


# Loaders --------------------------------------------------------------------------------------------------------


def replacing(model: nn.Module, weights: Weights) -> None:
    """Put new `Parameter`s in the places of those that there are."""
    for name, tensor in weights.items():
        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        setattr(module, leaf, nn.Parameter(tensor.to(getattr(module, leaf)).clone()))


def assigning(model: nn.Module, weights: Weights) -> None:
    dtype = next(model.parameters()).dtype
    model.load_state_dict({name: each.to(dtype) for name, each in weights.items()}, assign=True)


def forgetful(model: nn.Module, weights: Weights) -> None:
    """Replaces all but one, which keeps a tenth of what it was."""
    kept = next(iter(weights))
    replacing(model, Weights(weights.spec, {**weights, kept: weights[kept] * 1.001}))


class Loading(ReferenceCandidate):
    """The reference with a loader of somebody else's."""

    paths = ("fused",)

    def __init__(self, loader: Callable[[nn.Module, Weights], None]) -> None:
        self.loader = loader

    def load(self, model: nn.Module, weights: Weights) -> None:
        self.loader(model, weights)


ABOUT_PARAMETERS = (
    "agreement.gradients",
    "parameters.scaling",
    "parameters.training-step",
    "storage.round-trip",
)


@pytest.mark.parametrize("loader", [replacing, assigning])
@pytest.mark.parametrize("spec", ["gpt2", "llama2-7b"])
@pytest.mark.parametrize("slug", ABOUT_PARAMETERS)
def test_a_loader_may_replace_the_parameters(loader: Any, spec: str, slug: str) -> None:
    assert judged(Loading(loader), slug, load(spec)).reason is None


def test_a_loader_that_replaces_them_wrongly_is_found() -> None:
    assert judged(Loading(forgetful), "agreement.gradients").outcome == "failed"


class TiedTwice(Theirs):
    """Holds its one matrix of words under two names, and loads both of them anew, as `assign=True` does."""

    class Head(nn.Module):
        def __init__(self, words: nn.Parameter) -> None:
            super().__init__()
            self.weight = words

    copies = False

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        model: nn.Module = super().build(spec, path)
        model.head = self.Head(model.words.weight)  # type: ignore[union-attr,arg-type]
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        head = model.head
        del model.head
        super().load(model, weights)
        model.head = head
        words = model.words.weight.detach()  # type: ignore[union-attr,operator]
        model.words.weight = nn.Parameter(words)  # type: ignore[union-attr]
        model.head.weight = nn.Parameter(words.clone() if self.copies else words)  # type: ignore[union-attr]


class Untied(TiedTwice):
    copies = True


def test_one_storage_under_two_parameters_is_one_tensor() -> None:
    for slug in ABOUT_PARAMETERS:
        assert judged(TiedTwice(), slug).reason is None, slug


def test_a_copy_under_a_second_name_is_two() -> None:
    assert judged(Untied(), "parameters.scaling").outcome == "failed"


# A next-sentence head that is left out --------------------------------------------------------------------------


class WithoutPairs(ReferenceCandidate):
    """BERT whose port hands out no next-sentence logits."""

    paths = ("fused",)
    absent: Mapping[Capability, str] = {"next-sentence": "the port leaves the pooler's head out"}
    scale = 1.0

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return Outputs(logits=super().forward(model, inputs).logits * self.scale)


class WithoutPairsAndWrong(WithoutPairs):
    scale = 1.0 + 1e-6


PAIRED = ("agreement.logits", "agreement.gradients", "parameters.training-step")


@pytest.mark.parametrize("slug", PAIRED)
def test_what_is_declared_absent_is_left_out_of_the_comparison(slug: str) -> None:
    assert judged(WithoutPairs(), slug, load("bert-base")).reason is None
    assert judged(WithoutPairsAndWrong(), slug, load("bert-base")).outcome == "failed"


# A cache that raises --------------------------------------------------------------------------------------------


class RaisingCache(ReferenceCandidate):
    paths = ("fused",)

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        raise RuntimeError("no cache today")


@pytest.mark.parametrize(
    "slug", ["modes.kept", "modes.determinism", "interface.inputs-unchanged", "objective.loss"]
)
def test_a_cache_that_raises_fails_no_property_of_something_else(slug: str) -> None:
    assert judged(RaisingCache(), slug).outcome in ("passed", "skipped")


def test_a_cache_that_raises_fails_the_properties_of_caches() -> None:
    result = judged(RaisingCache(), "cache.chunks")
    assert result.outcome == "failed"
    assert "no cache today" in (result.reason or "")
