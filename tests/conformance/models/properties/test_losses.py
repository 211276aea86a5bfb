"""The loss of an encoder-decoder is that of teacher forcing, and a decoder taught otherwise is found out."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Labels, Outputs
from holotype_conformance.models.properties.losses import (
    expected_loss,
    loss,
    random_labels,
    taught,
    teacher_forced,
)
from holotype_conformance.models.subject import Subject
from holotype_spec import load

pytestmark = pytest.mark.slow

T5 = load("t5-small")
ELECTRA = load("electra-small-discriminator")


def decoder_input(first: int, labels: Tensor) -> Tensor:
    start = torch.full_like(labels[:, :1], first)
    return torch.cat([start, labels[:, :-1]], 1).clamp(min=0)


class Taught(ReferenceCandidate):
    """The reference with a loss that reads what `shift` makes of the labels."""

    paths = ("fused",)

    def __init__(self, shift: Callable[[Tensor], Tensor]) -> None:
        self.shift = shift

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        assert inputs.token_ids.numel() == 0
        logits = model(self.shift(labels.tokens), source_ids=inputs.source_ids).logits
        return F.cross_entropy(logits.flatten(0, 1), labels.tokens.flatten())


def verdict(shift: Callable[[Tensor], Tensor]) -> Result:
    return judge(Subject(Taught(shift), T5), loss, Settings())


def test_labels_shifted_behind_the_start_token_pass() -> None:
    assert verdict(lambda labels: decoder_input(0, labels)).outcome == "passed"


@pytest.mark.parametrize(
    "shift",
    [
        pytest.param(lambda labels: decoder_input(1, labels), id="another start token"),
        pytest.param(lambda labels: labels.clamp(min=0), id="not shifted"),
        pytest.param(lambda labels: decoder_input(0, decoder_input(0, labels)), id="shifted twice"),
        pytest.param(lambda labels: labels.roll(1, 1).clamp(min=0), id="rolled"),
    ],
)
def test_another_decoder_input_fails(shift: Callable[[Tensor], Tensor]) -> None:
    assert verdict(shift).outcome == "failed"


def test_the_decoder_reads_the_start_token_and_all_labels_but_the_last() -> None:
    ignored = -100
    labels = Labels(tokens=torch.tensor([[5, 6, 7], [8, ignored, ignored]]))
    inputs = Inputs(token_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]), source_ids=torch.ones(2, 4))
    assert teacher_forced(T5, inputs, labels).token_ids.tolist() == [[0, 5, 6], [0, 8, 0]]
    assert taught(inputs).token_ids.shape == (2, 0)
    decoder = Inputs(token_ids=inputs.token_ids)
    assert teacher_forced(load("gpt2"), decoder, labels) is decoder
    assert taught(decoder) is decoder


def test_ignored_labels_end_the_rows_of_an_encoder_decoder_each_at_another_place() -> None:
    subject = Subject(ReferenceCandidate(), T5)
    for seed in range(20):
        inputs = subject.inputs(tokens=(3, 4), seed=seed)
        labelled = random_labels(subject, inputs, seed).tokens >= 0
        kept = labelled.sum(1).tolist()
        assert min(kept) >= 1
        assert len(set(kept)) == 3
        assert all(row[:count].all() for row, count in zip(labelled, kept, strict=True))


# Which tokens were replaced? --------------------------------------------------------------------------------------


class Detecting(ReferenceCandidate):
    """The reference with the loss of a discriminator, which compares with what `told` makes of the labels."""

    paths = ("fused",)

    def __init__(self, told: Callable[[Tensor], Tensor]) -> None:
        self.told = told

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        logits = self.forward(model, inputs).logits.squeeze(-1)
        real = labels.tokens >= 0
        targets = self.told(labels.tokens[real]).to(logits)
        return F.binary_cross_entropy_with_logits(logits[real], targets)


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        pytest.param(lambda labels: labels, "passed", id="1 is replaced"),
        pytest.param(lambda labels: 1 - labels, "failed", id="1 is the original"),
    ],
)
def test_a_replaced_token_is_labelled_one(told: Callable[[Tensor], Tensor], outcome: str) -> None:
    assert judge(Subject(Detecting(told), ELECTRA), loss, Settings()).outcome == outcome


def test_the_loss_of_a_replaced_token_of_even_odds_and_an_original_of_three_to_one() -> None:
    logits = (
        torch.tensor([0.0, 3.0]).clamp(min=1e-30).log()
    )  # odds of 0 and 3; the first is padding
    logits = torch.cat([torch.zeros(1), logits])[None, :, None]
    labels = Labels(tokens=torch.tensor([[1, -100, 0]]))
    found = expected_loss(ELECTRA, Outputs(logits=logits), labels)
    # ln 2 for even odds, ln 4 for an original that is taken for a replaced one at three to one.
    assert found.item() == pytest.approx(1.5 * torch.tensor(2.0).log().item())


def test_every_real_token_has_a_label_of_zero_or_one_where_replaced_ones_are_told() -> None:
    subject = Subject(ReferenceCandidate(), ELECTRA)
    inputs = subject.inputs(tokens=(3, 9))
    labels = random_labels(subject, inputs, seed=0).tokens
    assert set(labels.flatten().tolist()) == {0, 1}


class Divided(ReferenceCandidate):
    """A decoder whose loss is the sum over the labelled positions, divided by another number of them."""

    paths = ("fused",)

    def __init__(self, counted: Callable[[Tensor], Tensor]) -> None:
        self.counted = counted

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        logits, targets = self.forward(model, inputs).logits[:, :-1], labels.tokens[:, 1:]
        total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        return total / self.counted(labels.tokens)


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        (lambda tokens: (tokens != -100).sum(), True),  # position 0 among them
        (lambda tokens: torch.tensor(tokens.numel()), True),
        (lambda tokens: (tokens[:, 1:] != -100).sum() * 1.1371, False),
    ],
)
def test_a_loss_over_another_number_of_positions_is_told_by_how_many(
    counted: Callable[[Tensor], Tensor], said: bool
) -> None:
    result = judge(Subject(Divided(counted), load("gpt2")), loss, Settings())
    assert result.outcome == "failed"
    assert ("labelled positions gives that is divided by" in (result.reason or "")) is said
