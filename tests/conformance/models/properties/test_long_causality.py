"""What sees too much or too little in long inputs only is found, where no reference is there to compare with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import msgspec
import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.candidate import FunctionCandidate
from holotype_conformance.models.cases import BatchCase, batch_inputs
from holotype_conformance.models.deviations import DeviatedCandidate, find
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.properties.long_causality import LongCase
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_spec import load, probe
from holotype_spec.schema import SlidingWindow, Spec

pytestmark = pytest.mark.slow

OF_WHAT_IS_SEEN = (
    "causality.future-perturbation",
    "causality.required-dependence",
    "causality.truncation",
    "causality.long-rows",
    "batch.size",
)
PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
Sight = Callable[[Tensor, Tensor], Tensor]


class Plain(nn.Module):
    """Attention written out, one head: query i sees key j where `seen(i, j)` says so."""

    def __init__(self, spec: Spec, seen: Sight) -> None:
        super().__init__()
        self.seen = seen
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.place = nn.Embedding(spec.max_positions, spec.hidden_size)
        self.mix = nn.ModuleList(
            nn.Linear(spec.hidden_size, 3 * spec.hidden_size) for _ in range(spec.layers)
        )
        self.norm = nn.LayerNorm(spec.hidden_size)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        place = torch.arange(tokens.shape[1], device=tokens.device)
        i, j = place[:, None], place
        seen = self.seen(i, j)
        x = self.embed(tokens) + self.place(place)
        for mix in self.mix:
            query, key, value = mix(self.norm(x)).chunk(3, dim=-1)
            scores = query @ key.mT / query.shape[-1] ** 0.5
            x = x + scores.masked_fill(~seen, -torch.inf).softmax(-1) @ value
        logits: Tensor = self.head(x)
        return logits


def right(i: Tensor, j: Tensor) -> Tensor:
    return j <= i


def mask_that_ends(i: Tensor, j: Tensor) -> Tensor:
    """Made for 64 tokens, and what is beyond it is not masked."""
    return (j <= i) | (i >= 64)


def off_by_one_at_an_edge(edge: int, i: Tensor, j: Tensor) -> Tensor:
    """The last row of a block sees the first token of the next one."""
    return (j <= i) | (i == edge - 1) & (j == edge)


def unmasked_blocks(edge: int, i: Tensor, j: Tensor) -> Tensor:
    """Beyond the first, the block on the diagonal is not masked."""
    return (j <= i) | (i >= edge) & (i // edge == j // edge)


def past_lost(edge: int, i: Tensor, j: Tensor) -> Tensor:
    """Each block forgets those before."""
    return (j <= i) & (i // edge == j // edge)


def past_lost_by_distance(reach: int, i: Tensor, j: Tensor) -> Tensor:
    """What stands further back than that is gone."""
    return (j <= i) & (j > i - reach)


def one_query_blind(edge: int, i: Tensor, j: Tensor) -> Tensor:
    """The first query of a block sees that block alone, which is itself."""
    return (j <= i) & ((i != edge) | (j == i))


def last_query_blind(length: int, i: Tensor, j: Tensor) -> Tensor:
    """The last query of the longest input sees itself alone."""
    return (j <= i) & ((i != length - 1) | (j == i))


def judged(seen: Sight, spec: Spec, slug: str = "causality.long-rows", **settings: str) -> Result:
    candidate = FunctionCandidate(lambda small: Plain(small, seen), "plain")
    return judge(Subject(candidate, spec), PROPERTIES[slug], Settings(**settings))  # type: ignore[arg-type]


FLAWS = [
    (mask_that_ends, 66, "depends on"),
    (partial(off_by_one_at_an_edge, 128), 129, "depends on"),
    (partial(off_by_one_at_an_edge, 256), 257, "depends on"),
    (partial(off_by_one_at_an_edge, 512), 513, "depends on"),
    (partial(unmasked_blocks, 64), 66, "depends on"),
    (partial(unmasked_blocks, 256), 258, "depends on"),
    (partial(past_lost, 128), 132, "does not depend on"),
    (partial(past_lost, 512), 516, "does not depend on"),
    (partial(past_lost_by_distance, 128), None, "does not depend on"),
    (partial(one_query_blind, 64), 65, "does not depend on"),
    (partial(one_query_blind, 256), 257, "does not depend on"),
    (partial(last_query_blind, 523), 523, "does not depend on"),
]


@pytest.mark.parametrize(("seen", "length", "said"), FLAWS)
def test_a_flaw_of_long_inputs_is_found_without_a_reference_and_shrunk_to_where_it_begins(
    seen: Sight, length: int | None, said: str
) -> None:
    result = judged(seen, load("causal-decoder"))
    assert result.outcome == "failed"
    assert said in (result.reason or "")
    assert result.counterexample is not None
    assert length in (None, result.counterexample.case["length"])


@pytest.mark.parametrize("seen", [flaw[0] for flaw in FLAWS])
def test_in_short_inputs_these_flaws_do_not_show(seen: Sight) -> None:
    short = torch.arange(64)
    assert (seen(short[:, None], short) == right(short[:, None], short)).all()


@pytest.mark.parametrize("seen", [mask_that_ends, partial(past_lost, 128)])
@pytest.mark.parametrize("spec", ["causal-decoder", "llama2-7b"])
def test_no_other_property_of_what_is_seen_finds_them_without_weights(
    spec: str, seen: Sight
) -> None:
    found = {slug: judged(seen, load(spec), slug).outcome for slug in OF_WHAT_IS_SEEN}
    assert found == dict.fromkeys(OF_WHAT_IS_SEEN, "passed") | {"causality.long-rows": "failed"}


def window_forgotten(edge: int, window: int, i: Tensor, j: Tensor) -> Tensor:
    """Up to there a query sees its window, beyond it the whole past."""
    return (j <= i) & ((j > i - window) | (i >= edge))


def test_a_window_that_is_forgotten_in_long_inputs_is_found() -> None:
    spec = load("mistral-7b-v0.1")
    window = probe(spec).architecture.attention.pattern
    assert isinstance(window, SlidingWindow)
    assert judged(partial(window_forgotten, 2000, window.window), spec).outcome == "passed"
    forgotten = partial(window_forgotten, 256, window.window)
    assert judged(forgotten, spec, "causality.future-perturbation").outcome == "passed"
    result = judged(forgotten, spec)
    assert result.outcome == "failed"
    assert result.counterexample is not None
    i, j = result.counterexample.facts["pair"]
    assert i >= 256 > j
    assert result.counterexample.case["length"] == 257


def test_an_encoder_that_is_blind_beyond_a_chunk_is_found() -> None:
    spec = load("encoder")
    assert judged(lambda i, j: i + j >= 0, spec).outcome == "passed"
    result = judged(lambda i, j: i // 128 == j // 128, spec)
    assert result.outcome == "failed"
    assert "does not depend on" in (result.reason or "")


@pytest.mark.parametrize(
    ("slug", "spec", "place", "expected"),
    [
        ("mask.ends", "gpt2", 100, {*range(64, 131)}),
        ("mask.ends", "gpt2", 63, {*range(63, 131)}),
        ("mask.block-edge", "gpt2", 128, {*range(127, 131)}),
        ("mask.block-edge", "gpt2", 127, {*range(127, 131)}),
        ("mask.blocks-forget", "gpt2", 126, {126, 127}),
        ("mask.blocks-forget", "gpt2", 128, {128, 129, 130}),
        ("window.forgotten-far-on", "mistral-7b-v0.1", 100, {*range(100, 105), *range(256, 260)}),
    ],
)
def test_a_deviation_reaches_as_far_as_its_title_says(
    slug: str, spec: str, place: int, expected: set[int]
) -> None:
    subject = Subject(DeviatedCandidate(find(slug), paths=("fused",)), load(spec))
    case = BatchCase(length=260 if slug.startswith("window") else 131, layers=1)
    model, inputs = subject.model(case.setup("fused")), batch_inputs(subject, case)
    tokens = inputs.token_ids.clone()
    tokens[:, place] = tokens[:, place] % 96 + 1
    before, after = (
        subject.forward(model, each).logits
        for each in (inputs, dataclasses.replace(inputs, token_ids=tokens))
    )
    assert {*(before != after).any(-1)[0].nonzero().flatten().tolist()} == expected


# What is right -------------------------------------------------------------------------------------------------------


class Fading(nn.Module):
    """No attention, but a sum of all that came before, which fades with the distance at its own speed."""

    def __init__(self, spec: Spec, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.mix = nn.Linear(spec.hidden_size, spec.hidden_size)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        place = torch.arange(tokens.shape[1], device=tokens.device)
        distance = (place[:, None] - place).clamp(min=-1)
        x = self.embed(tokens)
        weights = torch.where(distance < 0, 0.0, self.decay ** distance.to(x))
        logits: Tensor = self.head(torch.tanh(self.mix(weights @ x)))
        return logits


@pytest.mark.parametrize("decay", [0.999, 0.9, 0.5, 0.2])
def test_influence_may_fade_until_no_bit_is_left_of_it(decay: float) -> None:
    candidate = FunctionCandidate(lambda small: Fading(small, decay), "fading")
    subject = Subject(candidate, load("causal-decoder"))
    assert judge(subject, PROPERTIES["causality.long-rows"], Settings()).outcome == "passed"


RIGHT = (
    "gpt2",  # learned positions
    "bloom-560m",  # ALiBi, under which the far past hardly counts
    "transformer-base",  # scores so large that attention looks at few tokens; and a source
    "mistral-7b-v0.1",  # a window
    "mixtral-8x7b",  # experts
    "glm-10b",  # prefixes
    "unilm-v1-base-cased",  # a mixture of masks
    "xlnet-base-cased",
    "qwen-1.8b",  # scores that grow with the position
    "encoder",
    "encoder-decoder",
)


@pytest.mark.parametrize("name", RIGHT)
def test_the_reference_sees_in_long_inputs_what_it_should(name: str) -> None:
    subject = Subject(resolve("reference"), load(name))
    assert judge(subject, PROPERTIES["causality.long-rows"], Settings()).reason is None


@pytest.mark.parametrize("name", ["gpt2", "mistral-7b-v0.1"])
def test_so_do_the_models_of_transformers(name: str) -> None:
    pytest.importorskip("transformers")
    subject = Subject(resolve("hf"), load(name))
    assert judge(subject, PROPERTIES["causality.long-rows"], Settings()).reason is None


def test_experts_that_choose_tokens_may_move_by_rounding_only() -> None:
    subject = Subject(resolve("reference"), load("mixtral-8x7b"))
    assert subject.stillness == subject.floor


# Which inputs --------------------------------------------------------------------------------------------------------


def test_every_edge_and_what_is_beside_it_is_looked_at_in_one_case() -> None:
    spec = probe(load("gpt2"))
    looked_at = {
        place
        for batch, row_places in LongCase(length=523).batches(spec)
        for place in row_places
        if place < batch.length
    }
    assert {e + step for e in (64, 128, 256, 512) for step in (-1, 0, 1)} <= looked_at
    assert {0, 522} <= looked_at


def test_no_input_is_longer_than_the_model_takes() -> None:
    case = msgspec.json.encode(LongCase(length=512)).decode()
    assert judged(right, load("gpt-1"), case=case).outcome == "passed"
    subject = Subject(resolve("reference"), load("gpt-1"))
    assert judge(subject, PROPERTIES["causality.long-rows"], Settings()).reason is None
