"""YaRN: which pairs slow down by how much, and what scores are multiplied by."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import torch

import holotype_spec
from holotype_reference import oracle
from holotype_reference.model import build
from holotype_reference.oracle.positions import mscale
from holotype_reference.positions.rope_scaling import ScaledRotary, yarn_factor
from holotype_reference.weights import random_weights
from holotype_reference.weights.checkpoints import published
from holotype_spec import schema

DEEPSEEK = schema.YarnScaling(
    factor=40.0,
    original_max_positions=4096,
    beta_fast=32.0,
    beta_slow=1.0,
    mscale=0.707,
    mscale_all_dim=0.707,
)
# As good as none: the paper and most models multiply cosines and sines, and scores by nothing.
PAPER = msgspec.structs.replace(DEEPSEEK, mscale=1.0, mscale_all_dim=1e-30)


def rotary(scaling: schema.YarnScaling, d: int = 64, theta: float = 10_000.0) -> ScaledRotary:
    return ScaledRotary(
        d, schema.Rotary(theta=theta, pairing="half-split", fraction=1.0, scaling=scaling)
    )


# By hand: pair i turns n times where i = 64 ln(4096 / 2 pi n) / (2 ln 10000), 10.47 for n = 32 and 22.51 for n = 1.
def test_of_the_32_pairs_of_deepseek_11_stay_and_9_are_slowed_down_by_40() -> None:
    assert rotary(DEEPSEEK).bounds(DEEPSEEK) == (10, 23)
    slow = rotary(DEEPSEEK).ramp(DEEPSEEK).tolist()
    assert slow[:11] == [0.0] * 11
    assert slow[23:] == [1.0] * 9
    assert slow[11:23] == pytest.approx([k / 13 for k in range(1, 13)], rel=1e-12)
    like = torch.zeros((), dtype=torch.float64)
    frequencies = rotary(DEEPSEEK).frequencies(like)
    kept = (rotary(DEEPSEEK).scaled(frequencies) / frequencies).tolist()
    assert kept[10] == pytest.approx(1, rel=1e-12)
    assert kept[12] == pytest.approx(11 / 13 + 2 / 13 / 40, rel=1e-12)
    assert kept[31] == pytest.approx(1 / 40, rel=1e-12)


def test_scores_of_deepseek_are_multiplied_by_the_square_of_1_2608() -> None:
    # 0.1 · 0.707 · ln 40 + 1
    assert yarn_factor(DEEPSEEK, 0.707) == pytest.approx(1.260_804, abs=1e-6)
    assert mscale(DEEPSEEK, 0.707) == pytest.approx(1.260_804, abs=1e-6)
    spec = holotype_spec.load("deepseek-v2-lite")
    attention, plain = (
        build(each.probe()).decoder.layers[0].self_attention  # type: ignore[union-attr]
        for each in (spec, holotype_spec.load("llama-7b"))
    )
    lifted = [each.scale * each.head_dim**0.5 for each in (attention, plain)]
    assert lifted == [pytest.approx(1.260_804**2, abs=1e-5), pytest.approx(1)]


def test_cosines_and_sines_are_multiplied_by_the_quotient_of_both_factors() -> None:
    assert rotary(DEEPSEEK).amplitude == 1
    assert rotary(PAPER).amplitude == pytest.approx(0.1 * math.log(40) + 1, rel=1e-12)
    turns = rotary(PAPER).turns(torch.tensor([[0, 7]]), torch.float64)
    squares = turns.cos.square() + turns.sin.square()
    expected = torch.full_like(squares, (0.1 * math.log(40) + 1) ** 2)
    torch.testing.assert_close(squares, expected)


def test_where_both_bounds_are_one_pair_it_stays_and_the_next_one_is_slow() -> None:
    # The fastest pair turns 100 / 2 pi = 15.9 times: i = -0.04 for 16, which is rounded to 0 both ways.
    same = msgspec.structs.replace(
        DEEPSEEK, original_max_positions=100, beta_fast=16.0, beta_slow=16.0
    )
    assert rotary(same).bounds(same) == (0, 0)
    assert rotary(same).ramp(same)[:3].tolist() == [0.0, 1.0, 1.0]


# Elsewhere ----------------------------------------------------------------------------------------------------------


def theirs(scaling: schema.YarnScaling, **sizes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    told = {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": scaling.factor,
        "original_max_position_embeddings": scaling.original_max_positions,
        "beta_fast": scaling.beta_fast,
        "beta_slow": scaling.beta_slow,
    }
    return transformers.LlamaConfig(max_position_embeddings=163_840, rope_parameters=told, **sizes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"factor": 4.0},
        {"original_max_positions": 300},
        {"beta_fast": 8.0, "beta_slow": 2.0},
        {"original_max_positions": 1_000_000},
    ],
    ids=str,
)
@pytest.mark.slow
def test_frequencies_and_factor_equal_those_of_transformers(changes: dict[str, Any]) -> None:
    scaling = msgspec.structs.replace(PAPER, **changes)
    config = theirs(scaling, head_dim=64)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    expected, factor = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    unscaled = rotary(scaling).frequencies(torch.zeros((), dtype=torch.float64))
    found = rotary(scaling).scaled(unscaled)
    torch.testing.assert_close(found, expected.double(), rtol=1e-6, atol=0)
    assert rotary(scaling).amplitude == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("length", [5, 90])
@pytest.mark.slow
def test_a_llama_with_yarn_equals_that_of_transformers_and_the_oracle(length: int) -> None:
    transformers = pytest.importorskip("transformers")
    llama = holotype_spec.load("llama-7b").probe()
    positions = schema.Rotary(theta=10_000.0, pairing="half-split", fraction=1.0, scaling=PAPER)
    spec = msgspec.structs.replace(
        llama, architecture=msgspec.structs.replace(llama.architecture, positions=positions)
    )
    config = theirs(
        PAPER,
        num_hidden_layers=spec.layers,
        hidden_size=spec.hidden_size,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        intermediate_size=spec.ffn_size,
        vocab_size=spec.vocab_size,
        rms_norm_eps=spec.architecture.normalization.eps,
        tie_word_embeddings=False,
    )
    weights = random_weights(spec, seed=1)
    their_model = transformers.LlamaForCausalLM(config).double().eval()
    their_model.load_state_dict(published(spec, weights))
    ours = build(spec).double().eval()
    ours.load_state_dict(weights)
    tokens = torch.randint(1, 97, (2, length), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found, expected = ours(tokens).logits, their_model(tokens).logits
    # Their rotary tables and norms are float32 in a float64 model too.
    assert float((found - expected).norm() / expected.norm()) < 1e-6
    exact = torch.from_numpy(oracle.logits(spec, weights, tokens).logits)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)
