"""What depends on how long an input is: theta that grows with it, and scores that do (Qwen)."""

from __future__ import annotations

import math

import msgspec
import pytest
import torch
from torch import Tensor

import holotype_spec
from holotype_reference import oracle
from holotype_reference.attention import Positions
from holotype_reference.model import Model, build
from holotype_reference.oracle.positions import log_length, ntk_alpha
from holotype_reference.positions.log_length import LogLength
from holotype_reference.positions.rope_scaling import ScaledRotary
from holotype_reference.weights import random_weights
from holotype_reference.weights.checkpoints import published
from holotype_spec import schema

QWEN = holotype_spec.load(
    "qwen-7b"
).probe()  # theta grows beyond 9 tokens, scores from position 11 on


def model(spec: schema.Spec, path: str = "fused") -> Model:
    built = build(spec, path=path).double().eval()  # type: ignore[arg-type]
    built.load_state_dict(random_weights(spec, seed=1))
    return built


def ids(rows: int, length: int) -> Tensor:
    return torch.randint(1, 97, (rows, length), generator=torch.Generator().manual_seed(2))


# By hand ----------------------------------------------------------------------------------------------------------

# a = 2^ceil(log2(n / 8) + 1) - 1: n = 9 gives ceil(1.17) = 2 and 3, n = 17 gives ceil(2.09) = 3 and 7.
GROWTH = {1: 1, 8: 1, 9: 3, 16: 3, 17: 7, 32: 7, 33: 15, 64: 15, 65: 31}


def growing(d: int, theta: float) -> ScaledRotary:
    scaling = schema.DynamicScaling(original_max_positions=8)
    return ScaledRotary(
        d, schema.Rotary(theta=theta, pairing="half-split", fraction=1.0, scaling=scaling)
    )


@pytest.mark.parametrize(("tokens", "growth"), GROWTH.items())
def test_theta_grows_by_1_3_7_and_15_as_the_input_doubles(tokens: int, growth: int) -> None:
    rotary = growing(4, theta=100.0)
    assert rotary.growth(torch.tensor([[tokens]])).item() == growth
    assert ntk_alpha(tokens, 8) == growth


def test_the_slowest_pair_slows_down_by_the_growth_and_the_fastest_not_at_all() -> None:
    # Of 6 dimensions the pairs turn by theta^(-2i / 6); theta · 3^(6 / 4) makes that theta^(-2i / 6) · 3^(-i / 2).
    rotary = growing(6, theta=1000.0)
    turns = rotary.turns(torch.tensor([[1]]), torch.float64, torch.tensor([[16]]))
    expected = [math.cos(1), math.cos(0.1 / math.sqrt(3)), math.cos(0.01 / 3)]
    assert turns.cos.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_scores_grow_with_the_logarithm_of_the_number_of_keys_beyond_those_trained() -> None:
    # log_4 of 1, 4, 5, 8 and 16, at least 1.
    positions = torch.tensor([[0, 3, 4, 7, 15]])
    expected = pytest.approx([1, 1, math.log(5) / math.log(4), 1.5, 2], rel=1e-12)
    assert (
        LogLength(Positions(), trained=4).factors(positions, torch.float64).flatten().tolist()
        == expected
    )
    assert log_length(positions.numpy(), 4).flatten().tolist() == expected


# Elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [5, 9, 18, 36])
@pytest.mark.slow
def test_theta_grows_as_in_transformers_at_lengths_where_both_formulas_agree(length: int) -> None:
    """Theirs ("dynamic") follows the length exactly; with factor 2 both give 1, 3 and 7 at 9, 18 and 36 tokens."""
    transformers = pytest.importorskip("transformers")
    qwen2 = holotype_spec.load("qwen2-7b").probe()
    positions = msgspec.structs.replace(
        QWEN.architecture.positions, theta=qwen2.architecture.positions.theta
    )
    spec = msgspec.structs.replace(
        qwen2, architecture=msgspec.structs.replace(qwen2.architecture, positions=positions)
    )
    assert isinstance(positions, schema.Rotary)
    config = transformers.Qwen2Config(
        num_hidden_layers=spec.layers,
        hidden_size=spec.hidden_size,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        intermediate_size=spec.ffn_size,
        vocab_size=spec.vocab_size,
        max_position_embeddings=9,
        rms_norm_eps=spec.architecture.normalization.eps,
        rope_parameters={"rope_type": "dynamic", "rope_theta": positions.theta, "factor": 2.0},
    )
    theirs = transformers.Qwen2ForCausalLM(config).double().eval()
    weights = random_weights(spec, seed=1)
    theirs.load_state_dict(published(spec, weights))
    tokens = ids(2, length)
    with torch.no_grad():
        found, expected = model(spec)(tokens).logits, theirs(tokens).logits
    # Their rotary tables and norms are float32 in a float64 model too.
    assert float((found - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("length", [9, 10, 12, 19, 40])
def test_the_reference_agrees_with_the_oracle_at_every_growth(length: int, path: str) -> None:
    mask = torch.ones(3, length, dtype=torch.int64)
    mask[0, -4:] = mask[1, :8] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    given = {"attention_mask": mask, "position_ids": places}
    tokens = ids(3, length)
    with torch.no_grad():
        found = model(QWEN, path)(tokens, **given).logits
    expected = torch.from_numpy(
        oracle.logits(QWEN, random_weights(QWEN, seed=1), tokens, **given).logits
    )
    real = mask == 1
    torch.testing.assert_close(found[real], expected[real], rtol=1e-10, atol=1e-10)


# What is read together --------------------------------------------------------------------------------------------


def test_a_row_turns_as_alone_whatever_the_others_are() -> None:
    built, tokens = model(QWEN), ids(3, 20)
    mask = torch.ones(3, 20, dtype=torch.int64)
    mask[1, 15:] = mask[2, 8:] = 0
    with torch.no_grad():
        together = built(tokens, attention_mask=mask).logits
        for row, length in enumerate((20, 15, 8)):
            alone = built(tokens[row : row + 1, :length]).logits[0]
            torch.testing.assert_close(together[row, :length], alone, rtol=0, atol=1e-11)


def test_a_packed_document_turns_as_alone() -> None:
    built, tokens, packed = model(QWEN), ids(2, 24), ((4, 20), (11, 13))
    with torch.no_grad():
        together = built(tokens, documents=packed).logits
        for row, lengths in enumerate(packed):
            parts = torch.split(tokens[row], list(lengths))
            alone = torch.cat([built(part[None]).logits[0] for part in parts])
            torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-11)


def read(built: Model, tokens: Tensor, *chunks: int) -> Tensor:
    cache = built.new_cache()
    with torch.no_grad():
        pieces = [built(chunk, cache=cache).logits for chunk in tokens.split(chunks, dim=1)]
    return torch.cat(pieces, dim=1)


def test_behind_a_cache_tokens_turn_as_the_first_call_did() -> None:
    tokens = ids(2, 20)
    expected = model(QWEN)(tokens).logits
    # 10 … 18 tokens are one growth, 19 … 36 the next.
    torch.testing.assert_close(read(model(QWEN), tokens, 19, 1), expected, rtol=0, atol=1e-11)
    assert not torch.allclose(read(model(QWEN), tokens, 18, 2), expected)
    # After a first call of 9 tokens theta has not grown, and stays.
    fixed = schema.Rotary(
        theta=10_000.0, pairing="half-split", fraction=1.0, scaling=schema.NoScaling()
    )
    still = msgspec.structs.replace(
        QWEN, architecture=msgspec.structs.replace(QWEN.architecture, positions=fixed)
    )
    found = read(model(QWEN), tokens, 9, 1, 10)
    torch.testing.assert_close(found, model(still)(tokens).logits, rtol=0, atol=1e-11)
