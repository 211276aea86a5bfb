"""Generic specs: what still runs without a reference, what is skipped and why, and what it finds."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from holotype_conformance.commands.check import check
from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Property
from holotype_conformance.judge.records import Request, Result
from holotype_conformance.models import subject as subjects
from holotype_conformance.models.candidate import FunctionCandidate
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_conformance.run.session import RequestError, Session
from holotype_reference.support import unsupported
from holotype_spec import generics, load
from holotype_spec.catalogue import MODELS
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}


@dataclass(frozen=True)
class Bug:
    """What is wrong with the toy below."""

    sees_next: bool = False
    blind_to_first: bool = False
    mean_over_all: bool = False
    ignores_mask: bool = False
    cannot_be_trained: bool = False


class Toy(nn.Module):
    """A decoder that nobody has heard of: each position takes the decayed sum of what came before it."""

    def __init__(self, spec: Spec, bug: Bug) -> None:
        super().__init__()
        self.bug = bug
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.mix = nn.ModuleList(
            nn.Linear(spec.hidden_size, spec.hidden_size) for _ in range(spec.layers)
        )
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size)

    def forward(
        self,
        tokens: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Tensor:
        """Only distances count, so that position ids are taken and not needed."""
        x = self.embed(tokens)
        real = torch.ones_like(tokens) if attention_mask is None else attention_mask
        if self.bug.ignores_mask:
            real = torch.ones_like(tokens)
        length = tokens.shape[1]
        distance = torch.arange(length)[:, None] - torch.arange(length)
        decay = torch.where(distance >= -int(self.bug.sees_next), 0.9**distance, 0.0)
        if self.bug.blind_to_first:
            decay[1:, 0] = 0
        weights = decay.to(x) * real[:, None, :]
        if self.bug.mean_over_all:
            weights = weights / length
        for mix in self.mix:
            x = x + torch.tanh(mix(weights @ x))
        logits: Tensor = self.head(x)
        if self.bug.cannot_be_trained and logits.requires_grad:
            logits.register_hook(refuse)
        return logits


def refuse(gradient: Tensor) -> None:
    raise AssertionError("no gradients in eval mode")


def judged(spec: str, slug: str, bug: Bug = Bug()) -> Result:
    candidate = FunctionCandidate(lambda probe: Toy(probe, bug), "toy")
    return judge(Subject(candidate, load(spec)), PROPERTIES[slug], Settings())


@pytest.mark.parametrize(
    ("bug", "slug"),
    [
        (Bug(sees_next=True), "causality.future-perturbation"),
        (Bug(blind_to_first=True), "causality.required-dependence"),
        (Bug(mean_over_all=True), "causality.truncation"),
        (Bug(ignores_mask=True), "padding.content"),
    ],
)
def test_an_unknown_architecture_is_checked_without_a_reference(bug: Bug, slug: str) -> None:
    assert judged("causal-decoder", slug).outcome == "passed"
    assert judged("causal-decoder", slug, bug).outcome == "failed"


def test_what_a_backward_pass_raises_is_the_candidates_failure() -> None:
    result = judged("causal-decoder", "padding.finite", Bug(cannot_be_trained=True))
    assert result.outcome == "failed"
    assert "the backward pass raised AssertionError: no gradients in eval mode" in str(
        result.reason
    )


def test_a_decoder_is_no_encoder() -> None:
    result = judged("encoder", "causality.required-dependence")
    assert result.outcome == "failed"
    assert "does not depend on input" in (result.reason or "")


@pytest.mark.parametrize("name", [name for name in generics() if not unsupported(load(name))])
def test_the_reference_conforms_to_every_generic_spec_that_it_builds(name: str) -> None:
    run = Session(Request(target="reference", specs=(name,)), resolve("reference"))
    results = [
        run.judge(run.specs[0], replace(property_, examples=min(property_.examples, 5)))
        for property_ in run.properties
    ]
    assert [
        result.property for result in results if result.outcome not in ("passed", "skipped")
    ] == []
    passed = {result.property for result in results if result.outcome == "passed"}
    assert len(passed) >= 18
    assert "causality.required-dependence" in passed
    assert ("causality.future-perturbation" in passed) == (name != "encoder")
    assert ("causality.source-dependence" in passed) == (name == "encoder-decoder")


@pytest.mark.parametrize("property_", PROPERTIES.values(), ids=PROPERTIES)
def test_no_property_compares_with_the_reference_unless_it_says_so(
    property_: Property, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError(f"{property_.slug} builds the reference and does not say so")

    monkeypatch.setattr(subjects, "build_reference", forbidden)
    # Without a reference a budget cannot be measured, and a property that has one keeps to float64.
    spec = load("gpt2" if property_.reference else "causal-decoder")
    few = replace(property_, examples=2)
    result = judge(Subject(resolve("reference"), spec), few, Settings())
    assert (result.outcome == "error") == property_.reference, result.reason


def test_what_a_generic_spec_leaves_open_is_skipped_by_its_name() -> None:
    subject = Subject(resolve("reference"), load("causal-decoder"))
    reasons = {
        slug: judge(subject, PROPERTIES[slug], Settings()).reason
        for slug in ("agreement.logits", "parameters.count", "positions.shift-matters")
    }
    assert reasons == {
        "agreement.logits": "a generic spec has no numbers to compare with",
        "parameters.count": "a generic spec has no numbers to compare with",
        "positions.shift-matters": "a generic spec promises nothing about positions",
    }


# Specs that the reference cannot build ------------------------------------------------------------------------


def test_without_a_reference_the_properties_that_need_none_still_run() -> None:
    subject = Subject(resolve("reference"), load("gpt2"))
    lacking = "holotype_conformance.judge.engine.unsupported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lacking, lambda spec: ("time travel",))
        outcomes = {
            slug: judge(subject, PROPERTIES[slug], Settings())
            for slug in ("agreement.logits", "parameters.count", "batch.order")
        }
    assert outcomes["agreement.logits"].reason == "the reference has no time travel yet"
    assert outcomes["parameters.count"].outcome == "passed"
    assert outcomes["batch.order"].outcome == "passed"


def test_a_reference_that_is_not_there_is_a_request_that_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "holotype_conformance.models.adapters.reference.unsupported", lambda spec: ("time travel",)
    )
    with pytest.raises(RequestError, match="reference against gpt2: the reference has no time"):
        Session(Request(target="reference", specs=("gpt2",)), resolve("reference"))


def test_the_hf_adapter_asks_which_class_a_generic_spec_means() -> None:
    pytest.importorskip("transformers")
    with pytest.raises(RequestError, match=r"hf against encoder: .* as in hf:LlamaForCausalLM"):
        Session(Request(target="hf", specs=("encoder",)), resolve("hf"))


@pytest.mark.parametrize(
    ("key", "said"), [("layers", "--spec causal-decoder checks"), ("structure", "--family generic")]
)
def test_a_model_of_which_too_little_is_known_is_refused_with_the_nearest_generic_spec(
    tmp_path: Path, key: str, said: str
) -> None:
    text = (MODELS / "gpt2.toml").read_text(encoding="utf-8")
    text = re.sub(rf"(?m)^{key} = [^#\n]*", f'{key} = "undisclosed" ', text)
    (tmp_path / "secret.toml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(
        check, ["reference", "--spec", str(tmp_path / "secret.toml") + ":gpt2"]
    )
    assert result.exit_code == 2
    assert "is undisclosed" in result.stderr
    assert said in result.stderr
