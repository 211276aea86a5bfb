"""Greedy generation against the same choice made token by token without a cache."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import holotype_spec
from holotype_reference.generation import greedy
from holotype_reference.model import Model, build
from holotype_reference.weights import random_weights

DECODERS = ["gpt2", "llama-7b", "llama2-70b", "mistral-7b-v0.1"]


def model(name: str) -> Model:
    spec = holotype_spec.load(name).probe()
    built = build(spec).double().eval()
    built.load_state_dict(random_weights(spec, seed=1))
    return built


def ids(*shape: int) -> Tensor:
    return torch.randint(97, shape, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def without_cache(built: Model, tokens: Tensor, steps: int, **source: Tensor) -> Tensor:
    for _ in range(steps):
        logits = built(tokens, **source).logits
        tokens = torch.cat([tokens, logits[:, -1:].argmax(-1)], dim=1)
    return tokens


@pytest.mark.parametrize("name", DECODERS)
def test_greedy_equals_the_loop_without_a_cache(name: str) -> None:
    built = model(name)
    generated = greedy(built, ids(3, 5), steps=9)
    assert generated.equal(without_cache(built, ids(3, 5), 9))
    assert len(set(generated[0, 5:].tolist())) > 2  # else the comparison would say little


def test_encoder_decoder_starts_from_the_start_token_alone() -> None:
    built, source = model("t5-small"), ids(3, 6)
    expected = without_cache(built, torch.full((3, 1), 7), 9, source_ids=source)
    assert greedy(built, steps=9, source_ids=source, start_id=7).equal(expected)
    prompted = greedy(built, torch.full((3, 1), 7), steps=9, source_ids=source)
    assert prompted.equal(expected)


@pytest.mark.parametrize("name", DECODERS)
def test_left_padding_changes_nothing_of_what_is_generated(name: str) -> None:
    built, prompt = model(name), ids(2, 5)
    padded = prompt.clone()
    padded[1, :3] = 0
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]])
    generated = greedy(built, padded, steps=7, attention_mask=mask)
    assert generated[0].equal(greedy(built, prompt[:1], steps=7)[0])
    assert generated[1, 3:].equal(greedy(built, prompt[1:, 3:], steps=7)[0])


def test_row_that_has_ended_stays_ended_and_the_others_go_on() -> None:
    built = model("gpt2")
    free = greedy(built, ids(3, 5), steps=9)
    end = int(free[0, 6])  # the second token that row 0 generates
    ended = greedy(built, ids(3, 5), steps=9, end_id=end)
    for row, expected in zip(ended, free, strict=True):
        new = expected[5:].tolist()
        stop = new.index(end) + 1 if end in new else 9
        assert row[5 : 5 + stop].tolist() == new[:stop]
        assert row[5 + stop :].eq(end).all()


def test_generation_stops_when_every_row_has_ended() -> None:
    built = model("gpt2")
    end = int(greedy(built, ids(1, 5), steps=1)[0, -1])
    assert greedy(built, ids(1, 5), steps=9, end_id=end).shape == (1, 6)


def test_no_steps_give_the_prompt_back() -> None:
    assert greedy(model("gpt2"), ids(3, 5), steps=0).equal(ids(3, 5))


def test_training_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        greedy(model("gpt2").train(), ids(3, 5), steps=1)


def test_padding_on_the_right_is_an_error() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    with pytest.raises(ValueError, match="on the left"):
        greedy(model("gpt2"), ids(1, 5), steps=1, attention_mask=mask)


def test_missing_prompt_is_an_error() -> None:
    with pytest.raises(ValueError, match="either token_ids, or source_ids with start_id"):
        greedy(model("t5-small"), steps=1, source_ids=ids(3, 6))


def test_negative_steps_are_an_error() -> None:
    with pytest.raises(ValueError, match="not -1"):
        greedy(model("gpt2"), ids(3, 5), steps=-1)
