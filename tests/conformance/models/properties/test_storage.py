"""What is restored is held to the bits that were saved, and its outputs to rounding alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.properties.storage import kept, same_numbers
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

ROUND_TRIP = {property_.slug: property_ for property_ in all_properties()}["storage.round-trip"]


def judged(candidate: ReferenceCandidate, spec: str = "gpt2") -> Result:
    return judge(Subject(candidate, load(spec)), replace(ROUND_TRIP, examples=2), Settings())


class Restored(ReferenceCandidate):
    """Whatever `change` makes of a restored model."""

    paths = ("fused",)

    def change(self, model: nn.Module) -> None:
        raise NotImplementedError

    def restore(self, spec: Spec, folder: Path, path: str = "fused") -> nn.Module:
        model = super().restore(spec, folder, path)
        self.change(model)
        return model


class Misaligned(Restored):
    """Each tensor starts 8 bytes behind a multiple of 64, as one of a mapped file may."""

    def change(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.data = moved_by_8_bytes(parameter.data)


def moved_by_8_bytes(tensor: Tensor) -> Tensor:
    room = torch.empty(tensor.numel() + 16, dtype=tensor.dtype)
    start = next(at for at in range(9) if room[at:].data_ptr() % 64 == 8)
    return room[start : start + tensor.numel()].view(tensor.shape).copy_(tensor)


class RoundsOtherwise(Restored):
    """A restored model rounds its outputs at the last place in another way than the saved one did."""

    def change(self, model: nn.Module) -> None:
        model.rounds_otherwise = True  # type: ignore[assignment]

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        outputs = super().forward(model, inputs)
        if hasattr(model, "rounds_otherwise"):
            outputs = replace(outputs, logits=outputs.logits * (1 + 2**-51))
        return outputs


class LastBits(Restored):
    """Numbers are stored with twelve digits: no output shows it."""

    def change(self, model: nn.Module) -> None:
        with torch.no_grad():
            parameter = next(iter(model.parameters()))
            parameter[0, 0] *= 1 + 1e-13


class Buffered(ReferenceCandidate):
    """A buffer that is kept and one that is computed anew, both with NaN; the second one changes."""

    paths = ("fused",)

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        model = super().build(spec, path)
        model.register_buffer("kept", torch.tensor([1.0, torch.nan]))
        model.register_buffer("computed", torch.rand(1), persistent=False)
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        model.load_state_dict(weights, strict=False)


class Forgotten(Buffered):
    """The buffer is kept and comes back with another number, which no call reads."""

    def restore(self, spec: Spec, folder: Path, path: str = "fused") -> nn.Module:
        model = super().restore(spec, folder, path)
        model.kept[0] += 1  # type: ignore[operator,index]
        return model


@pytest.mark.parametrize("candidate", [Misaligned(), RoundsOtherwise(), Buffered()])
def test_a_restored_model_may_round_otherwise(candidate: ReferenceCandidate) -> None:
    result = judged(candidate)
    assert result.outcome == "passed", result.reason


def test_a_stored_number_that_changed_in_its_last_bits_is_noticed_and_named() -> None:
    result = judged(LastBits())
    assert result.outcome == "failed"
    assert (result.reason or "").startswith(
        "embeddings.token.weight was saved and came back other by up to "
    )
    assert "in 1 of " in (result.reason or "")


class ShiftedAgain(Restored):
    """A loader that adds one to gains does so again to what was saved."""

    def change(self, model: nn.Module) -> None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("norm.weight"):
                    parameter += 1


class TiedAgain(Restored):
    """What is restored has one matrix for two names, as a config that is wrong says."""

    def change(self, model: nn.Module) -> None:
        layer: Any = model.decoder.layers[0]  # type: ignore[union-attr,index]
        layer.feed_forward_norm.bias = layer.self_attention_norm.bias


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (
            ShiftedAgain(),
            "came back with +1 added to each of its 40 numbers; tensors that changed: ",
        ),
        (
            TiedAgain(),
            "decoder.layers.0.self_attention_norm.bias and decoder.layers.0.feed_forward_norm.bias are one tensor when"
            " restored, and were not when saved",
        ),
    ],
)
def test_how_a_stored_tensor_changed_is_said(candidate: ReferenceCandidate, words: str) -> None:
    result = judged(candidate)
    assert result.outcome == "failed"
    assert words in (result.reason or "")


def test_a_buffer_that_is_kept_is_held_to_its_numbers() -> None:
    result = judged(Forgotten())
    assert result.outcome == "failed"
    assert "kept was saved and came back other by up to 1.0e+00" in (result.reason or "")


def test_tensors_are_the_same_where_their_numbers_are() -> None:
    nan = torch.tensor([torch.nan, 1.0])
    assert same_numbers(nan, nan.clone())
    assert same_numbers(nan, nan.double())
    assert not same_numbers(nan, torch.tensor([0.0, 1.0]))
    assert not same_numbers(torch.zeros(2), torch.zeros(1))


def test_what_a_file_has_to_hold_is_what_is_not_computed() -> None:
    model: Any = nn.Linear(1, 1)
    model.register_buffer("a", torch.zeros(1))
    model.register_buffer("b", torch.zeros(1), persistent=False)
    model.register_buffer("c", None)
    outer = nn.ModuleList([model, model])
    assert list(kept(outer)) == [f"{n}.{name}" for n in "01" for name in ("weight", "bias", "a")]
