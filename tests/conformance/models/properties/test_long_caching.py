"""A cache that goes wrong only when it holds many tokens is found, where no reference is there to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.candidate import Candidate, Inputs, Outputs
from holotype_conformance.models.cases import padding_step
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
Kept = Callable[[Tensor], Tensor]


class Sum(nn.Module):
    """Each position takes the decayed sum of what came before it."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        place = torch.arange(tokens.shape[1], device=tokens.device)
        distance = place[:, None] - place
        x = self.embed(tokens)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        decay = torch.where(distance >= 0, 0.99 ** distance.to(x), 0.0)
        logits: Tensor = self.head(torch.tanh(decay @ x))
        return logits


class Remembering(Candidate):
    """Its cache is the tokens that were read, of which `kept` leaves some."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        return Sum(spec)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return Outputs(logits=model(inputs.token_ids))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        new = inputs.token_ids
        tokens = new if cache is None else torch.cat([self.kept(cache), new], dim=1)
        return Outputs(logits=model(tokens)[:, -new.shape[1] :], cache=tokens)


def judged(kept: Kept, slug: str = "cache.long-rows") -> Result:
    subject = Subject(Remembering(kept), load("causal-decoder"))
    return judge(subject, PROPERTIES[slug], Settings())


def everything(cache: Tensor) -> Tensor:
    return cache


def the_last_128(cache: Tensor) -> Tensor:
    """A rolling cache of a fixed size, in a model without a window."""
    return cache[:, -128:]


def the_first_256(cache: Tensor) -> Tensor:
    """A cache that is full, and takes no more."""
    return cache[:, :256]


def wrapped_at_64(cache: Tensor) -> Tensor:
    """What is written beyond the end goes to the beginning."""
    whole = cache.shape[1] // 64 * 64
    return cache if whole == 0 else torch.cat([cache[:, whole:], cache[:, :whole]], dim=1)


@pytest.mark.parametrize(
    ("kept", "length"), [(the_last_128, 130), (the_first_256, 258), (wrapped_at_64, 66)]
)
def test_a_cache_that_is_wrong_when_it_is_long_is_found_and_shrunk_to_where_that_begins(
    kept: Kept, length: int
) -> None:
    assert judged(everything).outcome == "passed"
    assert {judged(kept, slug).outcome for slug in ("cache.chunks", "cache.reuse")} == {"passed"}
    result = judged(kept)
    assert result.outcome == "failed"
    assert result.counterexample is not None
    assert result.counterexample.case["length"] == length


class Masked(Remembering):
    """It skips what is padding, in a full pass everywhere, and behind a cache as far as `reach`."""

    def __init__(self, reach: int) -> None:
        super().__init__(everything)
        self.reach = reach

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return Outputs(logits=model(inputs.token_ids, inputs.attention_mask))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        tokens = inputs.token_ids
        if cache is not None:
            tokens = torch.cat([cache, tokens], dim=1)
        mask = inputs.attention_mask
        if mask is not None and cache is not None:
            mask = mask.clone()
            mask[:, self.reach :] = 1
        new = inputs.token_ids.shape[1]
        return Outputs(logits=model(tokens, mask)[:, -new:], cache=tokens)


@pytest.mark.parametrize(("reach", "outcome"), [(523, "passed"), (64, "failed")])
def test_whole_blocks_of_padding_lie_in_a_long_cache(reach: int, outcome: str) -> None:
    subject = Subject(Masked(reach), load("llama2-7b"))
    assert subject.has("left-padding")
    assert judge(subject, PROPERTIES["cache.left-padding"], Settings()).outcome == "passed"
    assert judge(subject, PROPERTIES["cache.long-rows"], Settings()).outcome == outcome


def test_theta_that_grows_with_the_length_stays_as_it_is_in_each_row_of_a_case() -> None:
    property_ = replace(PROPERTIES["cache.long-rows"], examples=40, check=lambda *_: None)
    subject = Subject(resolve("reference"), load("qwen-1.8b"))
    spec = subject.probe(2)
    paddings = set()

    def tried(case: dict[str, Any]) -> None:
        paddings.add(case["padding"])
        rows = case["batch"] if case["padding"] == "left" else 1
        for row in range(rows):
            padding = row * padding_step(case["length"], rows)
            for read in (*case["cuts"], case["length"]):
                assert doublings(spec, read - padding) == doublings(spec, case["length"] - padding)

    assert judge(subject, property_, Settings(trying=tried)).reason is None
    assert {"none", "left"} <= paddings


def doublings(spec: Spec, length: int) -> int:
    """How often theta has been doubled for an input of so many tokens: a model trained for 9 is ready for 18, 36, …"""
    ready, count = 9, 0
    while length > ready:
        ready, count = 2 * ready, count + 1
    return count


@pytest.mark.parametrize(
    "name", ["gpt2", "mistral-7b-v0.1", "t5-small", "glm-10b", "qwen-1.8b", "mixtral-8x7b"]
)
def test_the_cache_of_the_reference_may_be_long(name: str) -> None:
    subject = Subject(resolve("reference"), load(name))
    assert judge(subject, PROPERTIES["cache.long-rows"], Settings()).reason is None


@pytest.mark.parametrize("name", ["gpt2", "mistral-7b-v0.1"])
def test_so_may_that_of_the_models_of_transformers(name: str) -> None:
    pytest.importorskip("transformers")
    subject = Subject(resolve("hf"), load(name))
    assert judge(subject, PROPERTIES["cache.long-rows"], Settings()).reason is None


def test_the_chunks_begin_at_edges_and_one_token_behind_them() -> None:
    property_ = replace(PROPERTIES["cache.long-rows"], examples=30)
    cuts: set[int] = set()

    def tried(case: dict[str, Any]) -> None:
        cuts.update(case["cuts"])

    candidate = Remembering(everything)
    judge(Subject(candidate, load("causal-decoder")), property_, Settings(trying=tried))
    assert {edge + step for edge in (64, 128, 256, 512) for step in (0, 1)} <= cuts
