"""The class of `transformers` for DeBERTa has no enhanced mask decoder, and is DeBERTa in everything else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Property
from holotype_conformance.models.adapters.hf.released import TransformersCandidate
from holotype_conformance.models.declarations import Difference
from holotype_conformance.models.diagnosis import diagnose
from holotype_conformance.models.properties.agreement import faint_logits, gradients, logits
from holotype_conformance.models.properties.parameters import count
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

DEBERTA = load("deberta-base")


class Unstated(TransformersCandidate):
    """Their class, taken for all that the spec says."""

    def differences(self, spec: Spec) -> tuple[Difference, ...]:
        return ()


@pytest.mark.parametrize("claim", [logits, faint_logits, gradients], ids=lambda each: each.slug)
def test_their_model_is_ours_to_rounding_without_the_mask_decoder(claim: Property) -> None:
    found = judge(Subject(Unstated(), DEBERTA), claim, Settings(diagnose=diagnose))
    assert found.outcome == "failed"
    assert [each.deviation for each in found.diagnosis] == ["head.mask-decoder-dropped"]
    assert found.diagnosis[0].residual < 1e-12


@pytest.mark.parametrize("claim", [logits, gradients, count], ids=lambda each: each.slug)
def test_all_else_is_held_to_numbers_once_that_is_stated(claim: Property) -> None:
    found = judge(Subject(TransformersCandidate(), DEBERTA), claim, Settings())
    assert found.outcome == "passed", found.reason


class Scaled(TransformersCandidate):
    """With a mistake of its own beside the difference that is stated."""

    def load(self, model: nn.Module, weights: Weights) -> None:
        super().load(model, weights)
        with torch.no_grad():
            next(model.parameters()).mul_(1.001)


def test_a_mistake_beside_a_stated_difference_is_seen() -> None:
    found = judge(Subject(Scaled(), DEBERTA), logits, Settings())
    assert found.outcome == "failed"
