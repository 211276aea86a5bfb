"""One class of inputs is read by the reference, the suite and its adapters."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import torch

import holotype_conformance
import holotype_conformance.candidate
from holotype_conformance.models.adapters.reference import run_reference
from holotype_reference.inputs import Inputs
from holotype_reference.model import build
from holotype_spec import load

TOKENS = torch.arange(12).reshape(2, 6)
HALF = torch.tensor([3, 4])


def test_the_suite_hands_out_the_inputs_of_the_reference() -> None:
    assert holotype_conformance.Inputs is Inputs
    assert holotype_conformance.candidate.Inputs is Inputs
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inputs(token_ids=TOKENS).token_ids = TOKENS  # type: ignore[misc]


def test_they_pass_to_another_process() -> None:
    inputs = Inputs(token_ids=TOKENS, prefix=HALF)
    again = pickle.loads(pickle.dumps(inputs))
    assert type(again) is Inputs
    assert again.tensors().keys() == {"token_ids", "prefix"}
    assert torch.equal(again.prefix, HALF)


@pytest.mark.parametrize(
    ("name", "tensors", "numbers"),
    [
        ("glm-10b", {"prefix": HALF}, {"prefix": (3, 4)}),
        ("glm-10b", {"prefix": torch.tensor(3)}, {"prefix": 3}),
        ("unilm-v1-base-cased", {"prefix": HALF}, {"prefix": (3, 4)}),
        ("unilm-v1-base-cased", {"right_to_left": torch.ones(2)}, {"right_to_left": True}),
        ("unilm-v1-base-cased", {}, {"right_to_left": False}),
    ],
)
def test_a_prefix_or_a_direction_is_a_tensor_or_pythons_numbers(
    name: str, tensors: dict[str, Any], numbers: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = build(load(name).probe()).eval()
    with torch.no_grad():
        given = run_reference(model, Inputs(token_ids=TOKENS, **tensors)).logits
        assert torch.equal(given, model(TOKENS, **numbers).logits)
        if tensors:
            assert not torch.allclose(given, model(TOKENS).logits)


def test_an_unknown_argument_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match="segment_ids"):
        build(load("gpt2").probe())(TOKENS, segment_ids=TOKENS)
