"""What shows only beyond a block of a kernel, or the numbers that bfloat16 has, is found by the shortest case."""

import pytest
import torch
from torch import nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.models.adapters.reference import ReferenceCandidate, run_reference
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.properties import agreement, rounding
from holotype_conformance.models.subject import Subject
from holotype_spec import load

pytestmark = pytest.mark.slow

BLOCK = 128


class Fused(ReferenceCandidate):
    paths = ("fused",)


class Forgetful(Fused):
    """A kernel in blocks, each of which forgets the keys of those before."""

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        pieces = [
            run_reference(model, Inputs(token_ids=tokens, position_ids=positions))
            for tokens, positions in zip(
                inputs.token_ids.split(BLOCK, dim=1),
                torch.arange(inputs.token_ids.shape[1])[None].split(BLOCK, dim=1),
                strict=True,
            )
        ]
        return Outputs(logits=torch.cat([piece.logits for piece in pieces], dim=1))


class CountingInBfloat16(Fused):
    """Positions that pass through bfloat16, which has no 257."""

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        places = torch.arange(inputs.token_ids.shape[1]).bfloat16().long()[None]
        return Outputs(
            logits=run_reference(
                model, Inputs(token_ids=inputs.token_ids, position_ids=places)
            ).logits
        )


@pytest.mark.parametrize(
    ("candidate", "spec", "length"),
    [
        (Forgetful(), "gpt2", BLOCK + 1),  # a table of positions, which is longer for it
        (Forgetful(), "llama2-7b", BLOCK + 1),
        (CountingInBfloat16(), "llama2-7b", 258),
    ],
)
def test_what_goes_wrong_far_into_an_input_is_found_and_shrunk_to_where_it_begins(
    candidate, spec, length
):
    subject = Subject(candidate, load(spec))
    assert not subject.has("attention-mask")
    result = judge(subject, agreement.logits, Settings())
    assert result.outcome == "failed"
    assert result.counterexample.case["length"] == length


def test_angles_that_are_far_off_in_low_precision_are_found_where_positions_cannot_be_told():
    result = judge(Subject(CountingInBfloat16(), load("llama2-7b")), rounding.bfloat16, Settings())
    assert result.outcome == "failed"
    assert (
        judge(Subject(Fused(), load("llama2-7b")), rounding.bfloat16, Settings()).outcome
        == "passed"
    )


def test_no_input_is_longer_than_the_model_takes():
    assert Subject(Fused(), load("gpt-1")).longest == 512
    assert Subject(Fused(), load("gpt2")).longest == 523
