"""What a subject calls a candidate with, and what it makes of the answer, on one that notes what it was given."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import DType
from holotype_conformance.models.candidate import Inputs, Labels, Outputs
from holotype_conformance.models.exchange import copies, real_rows
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_spec import load

GPT2 = load("gpt2")
BERT = load("bert-base-uncased")
T5 = load("t5-small")

noting = run_path(str(Path(__file__).with_name("noting.py")))
Noting, Small = noting["Noting"], noting["Small"]


# Inputs ---------------------------------------------------------------------------------------------------------


def test_inputs_have_the_tokens_of_the_vocabulary_but_for_padding() -> None:
    subject = Subject(Noting(), BERT)
    inputs = subject.inputs(tokens=(50, 40), types=True)
    assert inputs.token_ids.shape == (50, 40)
    assert inputs.token_ids.dtype is torch.int64
    assert set(inputs.token_ids.unique().tolist()) == set(range(1, 97))
    assert inputs.token_types is not None
    assert inputs.token_types.shape == (50, 40)
    assert set(inputs.token_types.unique().tolist()) == {0, 1}
    assert inputs.source_ids is None
    assert inputs.attention_mask is None
    assert subject.inputs(tokens=(2, 3)).token_types is None


@pytest.mark.parametrize("padding", [0, 50, 96])
def test_whatever_the_padding_token_is_the_next_one_stands_for_it(padding: int) -> None:
    architecture = msgspec.structs.replace(BERT.architecture, padding_id=padding)
    spec = msgspec.structs.replace(BERT, architecture=architecture)
    ids = Subject(Noting(), spec).inputs(tokens=(50, 40)).token_ids
    bert = Subject(Noting(), BERT).inputs(tokens=(50, 40)).token_ids  # which draws 1 to 96
    assert torch.equal(ids, bert.where(bert != padding, torch.tensor((padding + 1) % 97)))


def test_a_source_has_its_own_length_and_tokens_seeds_and_shapes_draw_others() -> None:
    subject = Subject(Noting(), T5)
    inputs = subject.inputs(tokens=(2, 3))
    assert inputs.source_ids is not None
    assert inputs.source_ids.shape == (2, 7)
    other = subject.inputs(tokens=(2, 3), source=5)
    assert other.source_ids is not None
    assert other.source_ids.shape == (2, 5)
    assert torch.equal(inputs.token_ids, other.token_ids)
    gpt2 = Subject(Noting(), GPT2)
    drawn = [gpt2.inputs(tokens=(9, 9)), gpt2.inputs(tokens=(9, 9), seed=1)]
    drawn.append(Subject(Noting(), GPT2, seed=1).inputs(tokens=(9, 9)))
    assert len({tuple(each.token_ids.flatten().tolist()) for each in drawn}) == 3
    assert drawn[0].token_ids[0, 0] == 0
    assert (drawn[0].token_ids.flatten()[1:] > 0).all()
    there = Subject(Noting(), GPT2, device="meta").inputs(tokens=(9, 9))
    assert there.token_ids.device == torch.device("meta")


# Calling --------------------------------------------------------------------------------------------------------


@pytest.fixture
def called() -> tuple[Noting, Subject, nn.Module]:
    candidate = Noting()
    subject = Subject(candidate, GPT2)
    model = subject.model(Setup(path="slow"))
    candidate.drawn.clear()
    return candidate, subject, model


Called = tuple[Noting, Subject, nn.Module]
INPUTS = Inputs(token_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]))
LABELS = Labels(tokens=torch.tensor([[1, 2, 3], [4, 5, 6]]))


def test_a_call_takes_copies_and_has_gradients_only_where_they_are_asked_for(
    called: Called,
) -> None:
    candidate, subject, model = called
    assert not subject.forward(model, INPUTS).logits.requires_grad
    assert subject.forward(model, INPUTS, grad=True).logits.requires_grad
    outputs = subject.forward_cached(model, INPUTS, "cache")
    assert not outputs.logits.requires_grad
    assert outputs.cache == "longer"
    assert candidate.caches == ["cache"]
    subject.loss(model, INPUTS, LABELS)
    assert subject.loss(model, INPUTS, LABELS, grad=True).requires_grad
    assert [grad for _, grad, _ in candidate.called] == [False, True, False, False, True]
    for inputs, _, _ in candidate.called:
        assert torch.equal(inputs.token_ids, INPUTS.token_ids)
        assert inputs.token_ids.data_ptr() != INPUTS.token_ids.data_ptr()
    assert set(candidate.defaults.values()) == {torch.float64, torch.float32}
    assert candidate.defaults["forward"] is candidate.defaults["loss"] is torch.float64
    subject.call(model, INPUTS)
    assert candidate.called[-1][0] is INPUTS
    assert subject.call_cached(model, INPUTS, 3).cache == "longer"
    assert candidate.caches[-1] == 3


def test_a_step_that_hands_back_no_cache_is_a_violation(called: Called) -> None:
    candidate, subject, model = called
    candidate.forward_cached = lambda model, inputs, cache: candidate.forward(model, inputs)  # type: ignore[method-assign]
    with pytest.raises(Violation, match="forward_cached returned no cache"):
        subject.forward_cached(model, INPUTS, None)


def test_a_call_with_a_cache_disturbs_only_who_has_one(called: Called) -> None:
    candidate, subject, model = called
    subject.disturb_with_cache(model, INPUTS)
    assert candidate.caches == [None]
    candidate.answer = lambda outputs: Outputs(logits=outputs.logits[:, :2])  # type: ignore[method-assign]
    subject.disturb_with_cache(model, INPUTS)  # what it raises is for others to say
    without = Noting()
    without.found = {"cache": "it has none"}
    other = Subject(without, GPT2)
    other.disturb_with_cache(other.model(Setup(path="fast")), INPUTS)
    assert without.caches == []


class Lifting(Noting):
    def answer(self, outputs: Outputs) -> Outputs:
        ones = torch.ones(1, dtype=torch.float32)
        return Outputs(
            logits=outputs.logits.to(torch.promote_types(ones.dtype, outputs.logits.dtype)) * 0
            + ones.element_size()
        )


def test_float32_in_a_float64_probe_is_lifted_unless_the_candidate_says_no() -> None:
    def size(lifted: bool, dtype: DType) -> float:
        candidate = Lifting()
        candidate.lifted = lifted
        subject = Subject(candidate, GPT2)
        model = subject.model(Setup(path="fast", dtype=dtype))
        return float(subject.forward(model, INPUTS).logits[0, 0, 0])

    assert size(True, "float64") == 8
    assert size(False, "float64") == 4
    assert size(True, "float32") == 4


def test_a_backward_pass_leaves_gradients_or_says_why_it_cannot_begin(called: Called) -> None:
    _, subject, model = called
    total = subject.forward(model, INPUTS, grad=True).logits.sum()
    subject.backward(model, total)
    assert model.scale.grad is not None
    with pytest.raises(Violation) as caught:
        subject.backward(model, total.detach())
    said = caught.value.summary
    assert said.startswith("the backward pass cannot begin: nothing leads from what is returned")
    assert "A candidate for inference alone declares absent" in said


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda: 3.0, "the loss is a float; expected a tensor, a scalar"),
        (lambda: torch.zeros(1), "expected one finite number"),
        (lambda: torch.tensor(torch.nan), "expected one finite number"),
        (lambda: torch.tensor(torch.inf), "expected one finite number"),
    ],
)
def test_a_loss_that_is_no_finite_scalar_is_a_violation(
    called: Called, loss: Any, said: str
) -> None:
    candidate, subject, model = called
    candidate.loss = lambda model, inputs, labels: loss()  # type: ignore[method-assign]
    with pytest.raises(Violation, match=said):
        subject.loss(model, INPUTS, LABELS)


class Own(Tensor):
    """A subclass whose code is its own."""


def test_outputs_and_losses_are_looked_at_as_plain_tensors(called: Called) -> None:
    candidate, subject, model = called
    candidate.answer = lambda outputs: Outputs(  # type: ignore[method-assign]
        logits=outputs.logits.as_subclass(Own),
        next_sentence=torch.zeros(2, 2).as_subclass(Own),
        cache=5,
    )
    for outputs in (subject.call(model, INPUTS), subject.call_cached(model, INPUTS, None)):
        assert type(outputs.logits) is Tensor
        assert type(outputs.next_sentence) is Tensor
    assert subject.call(model, INPUTS).cache == 5
    candidate.loss = lambda model, inputs, labels: torch.zeros(()).as_subclass(Own)  # type: ignore[method-assign]
    assert type(subject.loss(model, INPUTS, LABELS)) is Tensor


def test_one_number_a_token_may_come_without_an_axis_of_its_own() -> None:
    class Flat(Noting):
        def answer(self, outputs: Outputs) -> Outputs:
            return Outputs(logits=outputs.logits[..., 0])

    electra = Subject(Flat(), load("electra-small-discriminator"))
    model = electra.model(Setup(path="fast"))
    assert electra.forward(model, INPUTS).logits.shape == (2, 3, 1)
    gpt2 = Subject(Flat(), GPT2)
    assert gpt2.call(gpt2.model(Setup(path="fast")), INPUTS).logits.shape == (2, 3)
    deep = Subject(Noting(), electra.spec)
    assert deep.forward(deep.model(Setup(path="fast")), INPUTS).logits.shape == (2, 3, 1)


class Sentences(Noting):
    def __init__(self, sentence: Any) -> None:
        super().__init__()
        self.sentence, self.found = sentence, {}

    def answer(self, outputs: Outputs) -> Outputs:
        return Outputs(logits=outputs.logits, next_sentence=self.sentence)


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        (None, r"the outputs have no next-sentence logits; expected \(batch, 2\)"),
        (
            torch.zeros(2, 3).double(),
            r"next-sentence logits have the shape \(2, 3\); expected \(2, 2\)",
        ),
        (
            torch.zeros(2, 2).half(),
            "next-sentence logits are torch.float16; expected torch.float64",
        ),
    ],
)
def test_next_sentence_logits_are_checked_where_there_are_some(sentence: Any, said: str) -> None:
    candidate = Sentences(sentence)
    subject = Subject(candidate, BERT)
    with pytest.raises(Violation, match=said):
        subject.forward(subject.model(Setup(path="fast")), INPUTS)
    without = Sentences(sentence)
    without.found = {"next-sentence": "it has none"}
    other = Subject(without, BERT)
    assert other.forward(other.model(Setup(path="fast")), INPUTS).logits.shape == (2, 3, 97)


def test_the_first_number_that_is_not_finite_at_a_real_position_is_named(called: Called) -> None:
    candidate, subject, model = called

    def answer(outputs: Outputs) -> Outputs:
        logits = outputs.logits.clone()
        logits[0, 0, 3] = torch.nan  # at padding
        logits[1, 1, 5] = torch.inf
        logits[1, 2] = torch.nan
        return Outputs(logits=logits)

    candidate.answer = answer  # type: ignore[method-assign]
    inputs = Inputs(token_ids=INPUTS.token_ids, attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]]))
    with pytest.raises(Violation, match="not finite at real position 1 of row 1") as caught:
        subject.forward(model, inputs)
    assert caught.value.facts == {"row": 1, "position": 1}
    assert type(caught.value.facts["row"]) is type(caught.value.facts["position"]) is int
    with pytest.raises(Violation, match="not finite at real position 0 of row 0"):
        subject.forward(model, INPUTS)


# Positions that mean something ----------------------------------------------------------------------------------


def test_copies_are_of_every_input_that_there_is() -> None:
    inputs = Inputs(
        token_ids=torch.tensor([[1]]), token_types=torch.tensor([[0]]), order=torch.tensor([[0]])
    )
    copied = copies(inputs)
    assert copied.tensors().keys() == inputs.tensors().keys()
    for name, each in copied.tensors().items():
        assert torch.equal(each, inputs.tensors()[name])
        assert each.data_ptr() != inputs.tensors()[name].data_ptr()


def test_real_rows_are_the_unpadded_ones_behind_another_in_the_order_of_prediction() -> None:
    ids = torch.ones(2, 4, dtype=torch.int64)
    everywhere = real_rows(Inputs(token_ids=ids))
    assert everywhere.dtype is torch.bool
    assert everywhere.tolist() == [[True] * 4] * 2
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    order = torch.tensor(
        [[2, 0, 3, 1], [0, 3, 2, 1]]
    )  # in the second row, the first to come is padding
    rows = real_rows(Inputs(token_ids=ids, attention_mask=mask, order=order))
    assert rows.tolist() == [[True, False, True, True], [False, True, True, False]]
    assert real_rows(Inputs(token_ids=ids, order=order)).tolist() == [
        [True, False, True, True],
        [False, True, True, True],
    ]
    late = torch.tensor([[0, 0, 0, 1]])  # its only token is the last of the order
    alone = Inputs(token_ids=ids[:1], attention_mask=late, order=torch.tensor([[0, 1, 2, 3]]))
    assert real_rows(alone).tolist() == [[False] * 4]
    cached = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 1, 1]])
    assert real_rows(Inputs(token_ids=ids, attention_mask=cached)).tolist() == [
        [True, True, True, False],
        [True, False, True, True],
    ]
