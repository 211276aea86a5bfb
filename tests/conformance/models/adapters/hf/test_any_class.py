"""Any class of `transformers` as a candidate: what it claims, how it is made small, and that leaks show."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

pytest.importorskip("transformers")

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.importing import TargetError
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.hf import any_class as hf_class
from holotype_conformance.models.adapters.hf.any_class import ClassCandidate
from holotype_conformance.models.adapters.hf.shrinking import Sizes, attempts, small
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_spec import load

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
FUTURE = "causality.future-perturbation"


def judged(name: str, spec: str, slug: str) -> Result:
    property_ = replace(PROPERTIES[slug], examples=5)
    subject = Subject(ClassCandidate(name), load(spec))
    subject.smoke()
    return judge(subject, property_, Settings())


@pytest.mark.parametrize(
    "name",  # the layers of Gemma 4 differ in their heads
    ["LlamaForCausalLM", "BertLMHeadModel", "XLMWithLMHeadModel", "Gemma4ForCausalLM"],
)
def test_a_class_that_claims_to_be_causal_and_is_passes(name: str) -> None:
    result = judged(name, "causal-decoder", FUTURE)
    assert result.outcome == "passed", result.reason


def test_where_tokens_choose_what_computes_them_rounding_may_move_what_must_not() -> None:
    routed = ["MixtralForCausalLM", "ReformerModelWithLMHead"]
    spec = load("causal-decoder")
    assert [
        name for name in [*routed, "LlamaForCausalLM"] if ClassCandidate(name).routes(spec)
    ] == routed


@pytest.mark.parametrize(
    ("name", "told"),
    [("BertLMHeadModel", "is_decoder=True"), ("XLMWithLMHeadModel", "causal=True")],
)
def test_what_a_class_must_be_told_to_be_causal_is_told_and_said(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ClassCandidate(name).title == f"hf:{name} ({told})"
    monkeypatch.setattr(hf_class, "CAUSAL", {})
    assert ClassCandidate(name).title == f"hf:{name}"
    result = judged(name, "causal-decoder", FUTURE)
    assert result.outcome == "failed"
    assert "depends on input" in (result.reason or "")


@pytest.mark.parametrize(
    ("name", "spec", "slug"),
    [
        ("BertForMaskedLM", "encoder", "causality.required-dependence"),
        ("T5ForConditionalGeneration", "encoder-decoder", "causality.source-dependence"),
        ("BartForConditionalGeneration", "encoder-decoder", "padding.source"),
        ("GPT2LMHeadModel", "causal-decoder", "cache.left-padding"),
        ("MixtralForCausalLM", "causal-decoder", "objective.loss"),
        ("LlamaForCausalLM", "causal-decoder", "storage.round-trip"),
    ],
)
def test_other_kinds_are_held_to_what_they_claim(name: str, spec: str, slug: str) -> None:
    result = judged(name, spec, slug)
    assert result.outcome == "passed", result.reason


def test_experts_may_round_otherwise_when_other_tokens_change_and_no_more() -> None:
    subject = Subject(ClassCandidate("MixtralForCausalLM"), load("causal-decoder"))
    assert subject.stillness > 0
    content = replace(PROPERTIES["padding.content"], examples=5)
    assert judge(subject, content, Settings()).outcome == "passed"
    assert Subject(ClassCandidate("LlamaForCausalLM"), load("causal-decoder")).stillness == 0


def test_position_ids_that_count_rows_are_told_as_rows() -> None:
    # Liu et al. 2019, the release: positions start behind the padding token, which is 0 here.
    result = judged("RobertaForMaskedLM", "encoder", "positions.explicit")
    assert result.outcome == "passed", result.reason


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("BertForMaskedLM", "causal-decoder", r"not offered as .*; it is offered as: encoder"),
        ("LlamaForCausalLM", "encoder", "it is offered as: causal-decoder"),
        ("XLNetLMHeadModel", "causal-decoder", "XLNetLMHeadModel is not offered as what"),
        ("BertModel", "encoder", "BertModel is not offered as what the spec describes"),
        ("LlamaForCausalLM", "llama2-7b", "the target hf has the class of this spec"),
    ],
)
def test_a_class_is_not_held_to_what_it_does_not_claim(name: str, spec: str, said: str) -> None:
    refusal = ClassCandidate(name).refusal(load(spec))
    assert refusal is not None
    assert re.search(said, refusal)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("hf:LlamaForCausal", "no class 'LlamaForCausal': did you mean LlamaForCausalLM"),
        ("hf:AutoModelForCausalLM", "AutoModelForCausalLM is no model of transformers"),
        ("hf:LlamaConfig", "LlamaConfig is no model of transformers"),
    ],
)
def test_what_is_no_class_of_a_model_is_no_target(target: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        resolve(target)


# Making it small ----------------------------------------------------------------------------------------------


def test_a_configuration_is_made_small_by_the_names_of_its_fields() -> None:
    sizes = Sizes(
        layers=2,
        heads=5,
        kv_heads=5,
        head_dim=8,
        hidden_size=40,
        ffn_size=52,
        max_positions=43,
        vocab_size=97,
        dropout=0.5,
    )
    defaults = {
        "n_embd": 4096,
        "d_ff": None,
        "num_key_value_heads": None,
        "attn_pdrop": 0.0,
        "sliding_window": 128,
        "pad_token_id": None,
        "num_hidden_layers": 6,
        "layer_types": ["a", "a", "a", "a", "a", "b"],
        "moe_intermediate_size": 0,
        "unheard_of": 7,
    }
    assert small(defaults, sizes) == {
        "n_embd": 40,
        "num_key_value_heads": 5,
        "attn_pdrop": 0.5,
        "sliding_window": 4096,
        "pad_token_id": 0,
        "num_hidden_layers": 2,
        "layer_types": ["a", "b"],
    }


def test_the_sizes_of_the_spec_are_tried_first() -> None:
    first, *others = attempts(load("causal-decoder").probe(layers=3))
    assert (first.layers, first.heads, first.hidden_size, first.vocab_size) == (3, 5, 40, 97)
    assert first.max_positions >= 41
    assert len(others) >= 5


def test_a_class_that_stays_large_is_given_up_before_it_takes_the_memory() -> None:
    with pytest.raises(CandidateUnusable, match=r"it still has [0-9,]{9,} parameters"):
        Subject(ClassCandidate("BltForCausalLM"), load("causal-decoder")).smoke()
