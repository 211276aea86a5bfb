"""Whatever a candidate does becomes a violation with a sentence that says what it did."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.property import Violation
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.bold_weights import embolden
from holotype_conformance.models.candidate import (
    Candidate,
    Floor,
    FunctionCandidate,
    Inputs,
    Outputs,
    as_outputs,
)
from holotype_conformance.models.exchange import real_rows
from holotype_conformance.models.setup import FLOAT64_FLOOR, Setup
from holotype_conformance.models.subject import Subject
from holotype_reference.model import build
from holotype_reference.weights import Weights, random_weights
from holotype_spec import load
from holotype_spec.probes import probe
from holotype_spec.schema import Spec

GPT2 = load("gpt2")


class Answering(ReferenceCandidate):
    """The reference, but `change` has the last word on its outputs."""

    paths = ("fused",)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return self.change(super().forward(model, inputs))

    def change(self, outputs: Outputs) -> Outputs:
        raise NotImplementedError


def answer(candidate: Candidate) -> Outputs:
    subject = Subject(candidate, GPT2)
    return subject.forward(subject.model(Setup(path="fused")), subject.inputs(tokens=(2, 3)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda logits: logits[:, :-1], r"shape \(2, 2, 97\); expected \(2, 3, 97\)"),
        (lambda logits: logits.float(), r"torch.float32; expected torch.float64"),
        (lambda logits: logits.index_fill(1, torch.tensor([1]), torch.nan), "position 1 of row 0"),
        (lambda logits: logits.tolist(), "are a list; expected a tensor"),
    ],
)
def test_wrong_outputs_are_violations(change: Any, said: str) -> None:
    class Wrong(Answering):
        def change(self, outputs: Outputs) -> Outputs:
            return Outputs(logits=change(outputs.logits))

    with pytest.raises(Violation, match=said):
        answer(Wrong())


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (lambda: 1 / 0, "forward raised ZeroDivisionError: division by zero"),
        (lambda: sys.exit(3), "forward raised SystemExit: 3"),
    ],
)
def test_what_a_candidate_raises_is_a_violation(action: Any, said: str) -> None:
    class Raising(Answering):
        def change(self, outputs: Outputs) -> Outputs:
            action()
            return outputs

    with pytest.raises(Violation, match=said):
        answer(Raising())


def test_nan_at_padding_is_nobodys_business() -> None:
    class AtPadding(Answering):
        def change(self, outputs: Outputs) -> Outputs:
            logits = outputs.logits.clone()
            logits[0, 0] = torch.nan
            return Outputs(logits=logits)

    subject = Subject(AtPadding(), GPT2)
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    inputs = Inputs(token_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]), attention_mask=mask)
    outputs = subject.forward(subject.model(Setup(path="fused")), inputs)
    assert outputs.logits[0, 0].isnan().all()


def test_a_candidate_that_writes_into_its_inputs_harms_only_itself() -> None:
    class Writing(ReferenceCandidate):
        def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
            outputs = super().forward(model, inputs)
            inputs.token_ids.zero_()
            return outputs

    subject = Subject(Writing(), GPT2)
    inputs = subject.inputs(tokens=(2, 3))
    before = inputs.token_ids.clone()
    subject.forward(subject.model(Setup(path="fused")), inputs)
    assert torch.equal(inputs.token_ids, before)


def test_a_build_that_fails_makes_the_candidate_unusable() -> None:
    def broken(spec: Spec) -> nn.Module:
        raise RuntimeError("no such device")

    with pytest.raises(CandidateUnusable, match="build raised RuntimeError: no such device"):
        Subject(FunctionCandidate(broken, "broken"), GPT2).smoke()


def test_a_field_asked_for_by_the_name_that_others_have_for_it_is_named() -> None:
    def build(spec: Any) -> nn.Module:
        return nn.Embedding(spec.vocab_size, spec.n_embd)

    with pytest.raises(
        CandidateUnusable, match="no attribute 'n_embd'; a spec calls it hidden_size"
    ):
        Subject(FunctionCandidate(build, "theirs"), GPT2).smoke()


def test_a_module_without_parameters_is_no_model() -> None:
    with pytest.raises(CandidateUnusable, match="a module without parameters"):
        Subject(FunctionCandidate(lambda spec: nn.Identity(), "empty"), GPT2).smoke()


def test_logits_may_come_in_a_dictionary() -> None:
    logits = torch.zeros(1, 2, 3)
    assert as_outputs({"logits": logits, "past_key_values": 7}).logits is logits
    assert as_outputs({"logits": logits, "past_key_values": 7}).cache == 7
    with pytest.raises(TypeError, match="returned dict; expected"):
        as_outputs({"scores": logits})


def test_a_bare_function_has_the_capabilities_that_its_forward_names() -> None:
    class Bare(nn.Module):
        def __init__(self, spec: Spec) -> None:
            super().__init__()
            self.inner = build(spec)

        def forward(self, token_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
            logits: Tensor = self.inner(token_ids, attention_mask=attention_mask).logits
            return logits

    subject = Subject(FunctionCandidate(Bare, "bare"), GPT2)
    assert subject.has("attention-mask")
    assert subject.capabilities["position-ids"] == "its forward takes no `position_ids`"
    assert subject.capabilities["cache"] == "its forward takes no `past_key_values`"
    assert "defines no `load`" in (subject.capabilities["weights"] or "")
    assert subject.capabilities["token-types"] == "the spec has no token types"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda name: "net." + name,
            "it has net.transformer.wte.weight, expected transformer.wte.weight",
        ),
        (
            lambda name: None if name == "transformer.wpe.weight" else name,
            "it has no transformer.wpe.weight",
        ),
    ],
)
def test_what_keeps_weights_from_being_transferred_by_name_is_named(change, said) -> None:
    class Port(nn.Module):
        """Parameters of the published names and shapes, but for `change`."""

        def __init__(self, spec: Spec) -> None:
            super().__init__()
            for name, tensor in random_weights(spec, seed=0).published().items():
                if renamed := change(name):
                    *folders, last = renamed.split(".")
                    module: nn.Module = self
                    for folder in folders:
                        if folder not in dict(module.named_children()):
                            module.add_module(folder, nn.Module())
                        module = module.get_submodule(folder)
                    module.register_parameter(last, nn.Parameter(tensor))

        def forward(self, token_ids: Tensor) -> Tensor:
            raise AssertionError("nobody asks for outputs")

    subject = Subject(FunctionCandidate(Port, "port"), GPT2)
    assert (subject.capabilities["weights"] or "").endswith(said)


def test_a_matrix_that_a_port_turned_round_is_named_with_both_shapes() -> None:
    def turned(spec: Spec) -> nn.Module:
        model = build(spec)
        layer = model.decoder.layers[0].feed_forward
        layer.down.weight = nn.Parameter(layer.down.weight.T.contiguous())
        return model

    width, inner = probe(GPT2).hidden_size, probe(GPT2).ffn_size
    reason = Subject(FunctionCandidate(turned, "turned"), GPT2).capabilities["weights"] or ""
    assert reason.endswith(f"is ({inner}, {width}), expected ({width}, {inner})")


def test_logits_of_the_last_position_alone_are_called_that() -> None:
    class Last(nn.Module):
        def __init__(self, spec: Spec) -> None:
            super().__init__()
            self.inner = build(spec)

        def forward(self, token_ids: Tensor) -> Tensor:
            logits: Tensor = self.inner(token_ids).logits
            return logits[:, [-1]]

    subject = Subject(FunctionCandidate(Last, "last"), GPT2)
    model = subject.model(Setup())
    with pytest.raises(Violation, match=r"those of one position; expected those of all, \(2, 3, "):
        subject.forward(model, subject.inputs(tokens=(2, 3)))
    assert subject.forward(model, subject.inputs(tokens=(2, 1))).logits.shape[1] == 1


def test_canonical_names_are_enough_for_weights_to_be_transferred() -> None:
    subject = Subject(FunctionCandidate(lambda spec: build(spec), "ours"), GPT2)
    assert subject.has("weights")
    setup = Setup()
    ours = dict(subject.reference(setup).named_parameters())
    for name, parameter in subject.model(setup).named_parameters():
        assert torch.equal(parameter, ours[name])


def test_the_floor_is_rounding_unless_a_candidate_states_another() -> None:
    class Rough(ReferenceCandidate):
        def floor(self, spec: Spec) -> Floor:
            return Floor(relative=1e-6, reason="norms in float32")

    assert Subject(ReferenceCandidate(), GPT2).floor == FLOAT64_FLOOR
    assert Subject(Rough(), GPT2).floor == 1e-6


def test_models_are_built_the_same_whatever_was_drawn_before() -> None:
    subject = Subject(FunctionCandidate(lambda spec: build(spec), "ours"), GPT2)
    first = subject.fresh_model(Setup())
    torch.rand(7)
    second = subject.fresh_model(Setup())
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_building_leaves_the_random_numbers_and_the_default_dtype_as_they_were() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    Subject(ReferenceCandidate(), GPT2).fresh_model(Setup(path="fused"))
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.rand(1), expected)


def test_bold_weights_of_unknown_names_hide_nothing() -> None:
    model = build(Subject(ReferenceCandidate(), GPT2).probe(2))
    embolden(model, seed=3)
    for name, parameter in model.named_parameters():
        neutral = 1.0 if name.endswith("norm.weight") else 0.0
        assert (parameter != neutral).all(), name


def test_inputs_never_hold_the_padding_token() -> None:
    inputs = Subject(ReferenceCandidate(), load("bert-base-uncased")).inputs(tokens=(50, 40))
    assert inputs.token_ids.min() == 1
    assert inputs.token_ids.max() == 96


def test_token_zero_is_real_where_no_token_is_kept_for_padding() -> None:
    inputs = Subject(ReferenceCandidate(), GPT2).inputs(tokens=(2, 3))
    assert inputs.token_ids[0, 0] == 0


def test_a_candidate_whose_weights_do_not_load_is_not_unusable() -> None:
    class Stubborn(ReferenceCandidate):
        def load(self, model: nn.Module, weights: Weights) -> None:
            raise KeyError("no such tensor")

    subject = Subject(Stubborn(), GPT2)
    subject.smoke()
    with pytest.raises(Violation, match="load raised KeyError"):
        subject.model(Setup(path="fused"))


def test_real_rows_are_those_of_the_newest_tokens() -> None:
    inputs = Inputs(
        token_ids=torch.tensor([[5, 6]]), attention_mask=torch.tensor([[0, 1, 1, 1, 0]])
    )
    assert real_rows(inputs).tolist() == [[True, False]]
