"""The class of `transformers` for DeBERTa has no enhanced mask decoder, and is DeBERTa in everything else."""

from __future__ import annotations

import pytest

from holotype_conformance.engine import Settings, judge
from holotype_conformance.properties.agreement import faint_logits, gradients, logits
from holotype_conformance.property import Property
from holotype_conformance.subject import Subject
from holotype_spec import load


@pytest.mark.parametrize("claim", [logits, faint_logits, gradients], ids=lambda each: each.slug)
def test_their_model_is_ours_to_rounding_without_the_mask_decoder(claim: Property) -> None:
    hf = pytest.importorskip("holotype_conformance.adapters.hf")
    found = judge(Subject(hf.TransformersCandidate(), load("deberta-base")), claim, Settings())
    assert found.outcome == "failed"
    assert [each.deviation for each in found.diagnosis] == ["head.mask-decoder-dropped"]
    assert found.diagnosis[0].residual < 1e-12
