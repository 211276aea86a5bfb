"""The oracle against `transformers`, against numbers worked by hand, and against what must not matter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import holotype_spec
from holotype_reference import oracle
from holotype_reference.weights import random_weights
from holotype_spec.schema import (
    Causal,
    GatedFeedForward,
    LayerNorm,
    Llama3Scaling,
    NoScaling,
    RMSNorm,
    Rotary,
    SlidingWindow,
    Spec,
)

Kwargs = dict[str, Any]


def probe(name: str) -> Spec:
    return holotype_spec.probe(holotype_spec.load(name))


def changed(spec: Spec, **architecture: Any) -> Spec:
    return msgspec.structs.replace(
        spec, architecture=msgspec.structs.replace(spec.architecture, **architecture)
    )


def padded_inputs(spec: Spec, seed: int = 0) -> Kwargs:
    """Three rows of 19 tokens, one padded on the left and one on the right, positions counted past the padding."""
    generator = np.random.default_rng(seed)
    mask = np.ones((3, 19), dtype=np.int64)
    mask[0, :6] = mask[1, -4:] = 0
    inputs: Kwargs = {"token_ids": generator.integers(1, spec.vocab_size, mask.shape)}
    if spec.architecture.structure == "encoder-decoder":
        inputs["source_ids"] = generator.integers(1, spec.vocab_size, mask.shape)
        return inputs | {"source_mask": mask}
    if spec.architecture.token_types:
        inputs["token_types"] = generator.integers(0, spec.architecture.token_types, mask.shape)
    return inputs | {"attention_mask": mask, "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0)}


def in_their_words(inputs: Kwargs) -> dict[str, torch.Tensor]:
    words = {"token_ids": "input_ids", "token_types": "token_type_ids"}
    if "source_ids" in inputs:
        words = {
            "token_ids": "decoder_input_ids",
            "source_ids": "input_ids",
            "source_mask": "attention_mask",
        }
    return {words.get(name, name): torch.from_numpy(value) for name, value in inputs.items()}


def their_logits(output: Any) -> np.ndarray:
    """(batch, length, vocabulary or 1)"""
    logits = output.logits if "logits" in output else output.prediction_logits
    return (logits if logits.dim() == 3 else logits[..., None]).numpy()  # type: ignore[no-any-return]


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).mean() / (b**2).mean()))


# Against transformers -----------------------------------------------------------------------------

# Their LLaMA, Mistral and T5 compute norms (and rotary tables) in float32 whatever the dtype of the model.
FLOORS = {
    "gpt2": 1e-12,
    "bert-base-uncased": 1e-12,
    "albert-base-v2": 1e-12,
    "electra-base-generator": 1e-12,
    "electra-small-discriminator": 1e-12,
    "bart-base": 1e-12,
    "mbart-large-50": 1e-12,
    "t5-small": 1e-6,
    "llama-7b": 1e-6,
    "llama2-70b": 1e-6,
    "llama3-8b": 1e-6,
    "giraffe-13b-16k": 1e-6,
    "mistral-7b-v0.1": 1e-6,
    "mixtral-8x7b": 1e-6,
    "deepseek-v2-lite": 1e-6,
    "deepseek-v3": 1e-6,
}
Read = Callable[[Any, dict[str, torch.Tensor]], None]


@pytest.mark.parametrize("name", FLOORS)
@pytest.mark.parametrize("regime", ["bold", "faint"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_oracle_equals_transformers(
    name: str,
    regime: str,
    attention: str,
    their_model: Callable[..., torch.nn.Module],
    read_by: Read,
) -> None:
    spec = probe(name)
    weights = random_weights(spec, 3, regime)
    theirs = their_model(spec, attention)
    read_by(theirs, weights.published())
    inputs = padded_inputs(spec)
    real = inputs.get("attention_mask", np.ones_like(inputs["token_ids"])) == 1
    if attention == "eager" and FLOORS[name] > 1e-12:
        # Their eager softmax goes through float32, where the float64 filler of a row without any key is -inf, and NaN.
        inputs = {key: value[1:] for key, value in inputs.items()}
        real = real[1:]
    with torch.no_grad():
        output = theirs(**in_their_words(inputs))
    ours = oracle.logits(spec, weights, **inputs)
    logits = their_logits(output)
    assert relative(logits[real], ours.logits[real]) <= FLOORS[name]
    if ours.next_sentence is not None:
        classes = output.get("seq_relationship_logits", output.get("sop_logits")).numpy()
        assert relative(classes, ours.next_sentence) <= FLOORS[name]


@pytest.mark.parametrize("name", FLOORS)
def test_oracle_equals_transformers_without_any_optional_input(
    name: str, their_model: Callable[..., torch.nn.Module], read_by: Read
) -> None:
    spec = probe(name)
    weights = random_weights(spec, 4)
    theirs = their_model(spec, "sdpa")
    read_by(theirs, weights.published())
    inputs = {
        key: ids for key, ids in padded_inputs(spec).items() if key in ("token_ids", "source_ids")
    }
    with torch.no_grad():
        output = theirs(**in_their_words(inputs))
    logits = their_logits(output)
    assert relative(logits, oracle.logits(spec, weights, **inputs).logits) <= FLOORS[name]


@pytest.mark.parametrize("name", ["gpt-j-6b", "bloom-560m"])
def test_oracle_equals_the_models_of_transformers_that_know_eager_attention_alone(
    name: str, their_model: Callable[..., torch.nn.Module], read_by: Read
) -> None:
    spec = probe(name)
    weights = random_weights(spec, 4)
    theirs = their_model(spec)
    read_by(theirs, weights.published())
    inputs = {"token_ids": padded_inputs(spec)["token_ids"]}
    with torch.no_grad():
        logits = theirs(**in_their_words(inputs)).logits.numpy()
    # Their scores, or what they do with them, are float32 in a float64 model too.
    assert relative(logits, oracle.logits(spec, weights, **inputs).logits) <= 1e-6


# By hand ------------------------------------------------------------------------------------------


def scope(**weights: list[Any]) -> oracle.basics.Scope:
    return oracle.basics.Scope(
        {name: np.array(value, dtype=float) for name, value in weights.items()}
    )


def test_layer_norm_of_1_and_3_is_minus_1_and_1_before_gain_and_bias() -> None:
    spec = changed(probe("gpt2"), normalization=LayerNorm(eps=1e-30, embedding=False, final=True))
    normed = oracle.normalization.norm(
        spec, scope(weight=[2, 3], bias=[10, 20]), np.array([1.0, 3.0])
    )
    assert normed.tolist() == [8, 23]


def test_rms_norm_adds_eps_under_the_root() -> None:
    # mean square (9 + 15) / 2 = 12, plus 4 is 16, root 4
    spec = changed(probe("llama-7b"), normalization=RMSNorm(eps=4.0, embedding=False, final=True))
    normed = oracle.normalization.norm(spec, scope(weight=[4, 8]), np.array([3.0, math.sqrt(15)]))
    assert normed.tolist() == pytest.approx([3, 2 * math.sqrt(15)], rel=1e-15)


def test_softmax_is_over_the_allowed_keys_and_zero_where_there_are_none() -> None:
    scores = np.array([[0.0, math.log(3), 99.0], [1.0, 2.0, 3.0]])
    allowed = np.array([[True, True, False], [False, False, False]])
    expected = np.array([[0.25, 0.75, 0], [0, 0, 0]])
    assert np.allclose(oracle.attention._softmax(scores, allowed), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    ("activation", "x", "expected"),
    [
        ("relu", -2.0, 0.0),
        ("relu", 3.0, 3.0),
        ("silu", 1.0, 1 / (1 + math.exp(-1))),
        ("silu", -800.0, 0.0),
        ("gelu", 1.0, 0.8413447460685429),  # the normal distribution at 1
        ("gelu", -2.0, -2 * 0.022750131948179195),
        ("gelu-tanh", 1.0, 0.8411919906082768),  # 0.5 (1 + tanh(0.7978845608 * 1.044715))
    ],
)
def test_activation_has_its_known_value(activation: Any, x: float, expected: float) -> None:
    assert oracle.feed_forward.activate(activation, np.array([x])).item() == pytest.approx(
        expected, rel=1e-13
    )


@pytest.mark.parametrize("pairing", ["half-split", "interleaved"])
def test_rotary_turns_the_first_pair_by_the_position_and_the_second_by_a_hundredth(
    pairing: Any,
) -> None:
    # Four dimensions, theta 10,000: angles m and m / 100. At m = pi/2 the first pair (a, b) becomes (-b, a).
    rotary = Rotary(theta=1e4, pairing=pairing, fraction=1.0, scaling=NoScaling())
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    stream = oracle.basics.Stream(
        x=x, positions=np.array([[math.pi / 2]]), real=np.ones((1, 1), dtype=bool)
    )
    rotated = oracle.positions.rotate(rotary, x, stream)
    sine, cosine = math.sin(math.pi / 200), math.cos(math.pi / 200)
    expected = {
        "half-split": [-3, 2 * cosine - 4 * sine, 1, 2 * sine + 4 * cosine],
        "interleaved": [-2, 1, 3 * cosine - 4 * sine, 3 * sine + 4 * cosine],
    }
    assert rotated[0, 0].tolist() == pytest.approx(expected[pairing], abs=1e-14)


@pytest.mark.parametrize(
    ("original", "kept"),
    # The pair of the angle 1 a position turns original / 2 pi times: 0.95, 1.5 and 2.07 times.
    [(6, 0.1), (3 * math.pi, 0.5 + 0.5 / 10), (13, 1.0)],
)
def test_scaling_slows_down_pairs_that_turn_too_seldom(original: float, kept: float) -> None:
    scaling = Llama3Scaling(
        factor=10.0,
        low_freq_factor=1.0,
        high_freq_factor=2.0,
        original_max_positions=original,  # type: ignore[arg-type]  # no whole number lies half-way
    )
    rotary = Rotary(theta=1e4, pairing="half-split", fraction=1.0, scaling=scaling)
    assert oracle.positions._frequencies(rotary, 2, 1) == pytest.approx([kept], rel=1e-12)


def test_window_of_two_sees_a_token_and_the_one_before() -> None:
    spec = probe("mistral-7b-v0.1")
    pattern = SlidingWindow(window=2)
    spec = changed(
        spec, attention=msgspec.structs.replace(spec.architecture.attention, pattern=pattern)
    )
    three = oracle.basics.Stream(
        x=np.zeros((1, 3, 1)), positions=np.arange(3)[None], real=np.ones((1, 3), dtype=bool)
    )
    assert oracle.attention._allowed(spec, "decoder", three).astype(int).tolist() == [
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    ]


def test_grouped_queries_share_neighbouring_key_heads() -> None:
    # Two query heads a key-value head, attention uniform (zero queries), values 1 and 2: heads give 1, 1, 2, 2.
    spec = msgspec.structs.replace(
        probe("llama2-70b"), heads=4, kv_heads=2, head_dim=2, hidden_size=1
    )
    weights = {
        "query.weight": np.zeros((8, 1)),
        "key.weight": np.ones((4, 1)),
        "value.weight": np.array([[1.0], [1.0], [2.0], [2.0]]),
        "output.weight": np.eye(8),
    }
    x = np.ones((1, 1, 1))
    allowed = np.ones((1, 1, 1), dtype=bool)
    heads = oracle.attention._attention(
        spec, oracle.basics.Scope(weights), x, x, allowed, None, None
    )
    assert heads[0, 0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


def test_gate_is_what_the_activation_acts_on() -> None:
    gated = GatedFeedForward(size="independent", activation="relu", bias=False)
    weights = {
        "gate.weight": [[1.0], [-1.0]],
        "up.weight": [[-5.0], [7.0]],
        "down.weight": [[1.0, 1.0]],
    }
    p = oracle.basics.Scope({name: np.array(value) for name, value in weights.items()})
    output = oracle.feed_forward.feed_forward(
        changed(probe("llama-7b"), feed_forward=gated), p, np.array([[2.0]])
    )
    assert output.item() == 2 * -10  # the second gate is closed


# Buckets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "bidirectional", "expected"),
    [
        (0, True, 0),
        (-7, True, 7),  # a side has 16 buckets, the first 8 of which hold one distance each
        (-8, True, 8),  # the others start at 8 · 16^(k/8): 8, 11.3, 16, 22.6, 32, 45.3, 64, 90.5
        (-11, True, 8),
        (-12, True, 9),
        (-90, True, 14),
        (-91, True, 15),
        (-10_000, True, 15),
        (1, True, 17),  # keys after the query have the other half
        (12, True, 25),
        (5, False, 0),  # a decoder does not see them
        (-15, False, 15),  # it has 32 buckets for the past, 16 of them with one distance each
        (-18, False, 16),  # the others start at 16 · 8^(k/16): 16, 18.2, 20.7, …
        (-19, False, 17),
        (-128, False, 31),
    ],
)
def test_bucket_of_the_published_tables(distance: int, bidirectional: bool, expected: int) -> None:
    assert oracle.bucket(distance, 32, 128, bidirectional) == expected


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 12)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_float32_and_float64_give_every_distance_the_same_bucket(
    buckets: int, max_distance: int, bidirectional: bool
) -> None:
    side = buckets // 2 if bidirectional else buckets
    exact = side // 2
    distances = np.arange(exact, 4 * max_distance, dtype=np.float32)
    logarithms = np.log(distances / np.float32(exact), dtype=np.float32)
    steps = logarithms / np.float32(math.log(max_distance / exact)) * np.float32(side - exact)
    single = np.minimum(exact + steps.astype(np.int64), side - 1)
    double = [oracle.bucket(-int(d), buckets, max_distance, bidirectional) for d in distances]
    assert single.tolist() == double


# What must not matter, and what must --------------------------------------------------------------


@pytest.mark.parametrize("name", FLOORS)
def test_content_at_padding_does_not_matter(name: str) -> None:
    spec = probe(name)
    weights = random_weights(spec, 0)
    inputs = padded_inputs(spec)
    ids, mask = (
        ("source_ids", "source_mask") if "source_ids" in inputs else ("token_ids", "attention_mask")
    )
    changed_ids = np.where(inputs[mask] == 0, 0, inputs[ids])
    assert (changed_ids != inputs[ids]).any()
    real = np.ones_like(inputs[mask], dtype=bool) if ids == "source_ids" else inputs[mask] == 1
    first = oracle.logits(spec, weights, **inputs).logits
    second = oracle.logits(spec, weights, **inputs | {ids: changed_ids}).logits
    assert np.array_equal(first[real], second[real])


@pytest.mark.parametrize("name", FLOORS)
def test_rows_without_any_real_token_are_finite(name: str) -> None:
    spec = probe(name)
    inputs = padded_inputs(spec)
    for mask in inputs.keys() & {"attention_mask", "source_mask"}:
        inputs[mask] = np.zeros_like(inputs[mask])
    assert np.isfinite(oracle.logits(spec, random_weights(spec, 0), **inputs).logits).all()


@pytest.mark.parametrize("name", ["gpt2", "llama-7b"])
def test_positions_are_counted_from_zero_whatever_the_mask(name: str) -> None:
    spec = probe(name)
    weights, inputs = random_weights(spec, 0), padded_inputs(spec)
    implied = oracle.logits(
        spec, weights, inputs["token_ids"], attention_mask=inputs["attention_mask"]
    )
    counted = np.broadcast_to(np.arange(19), (3, 19))
    stated = oracle.logits(spec, weights, **inputs | {"position_ids": counted})
    assert np.array_equal(implied.logits, stated.logits)


def test_pairing_is_a_matter_of_the_order_of_the_rows_of_query_and_key() -> None:
    # Row i of a half-split head of 8 is row 2 i of an interleaved one, row 4 + i is row 2 i + 1.
    spec = probe("llama2-70b")
    weights, ids = random_weights(spec, 0), padded_inputs(spec)["token_ids"]
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
    reordered = dict(weights)
    for name, tensor in weights.items():
        if ".query." in name or ".key." in name:
            reordered[name] = tensor.reshape(-1, 8, spec.hidden_size)[:, order].reshape(
                tensor.shape
            )
    rotary = spec.architecture.positions
    interleaved = changed(spec, positions=msgspec.structs.replace(rotary, pairing="interleaved"))
    half_split = oracle.logits(spec, weights, ids).logits
    assert relative(oracle.logits(interleaved, reordered, ids).logits, half_split) < 1e-13
    assert relative(oracle.logits(interleaved, weights, ids).logits, half_split) > 0.1


def test_a_window_longer_than_the_input_is_none() -> None:
    spec, weights = probe("mistral-7b-v0.1"), random_weights(probe("mistral-7b-v0.1"), 0)
    ids = padded_inputs(spec)["token_ids"]
    logits = {
        window: oracle.logits(
            changed(
                spec,
                attention=msgspec.structs.replace(spec.architecture.attention, pattern=pattern),
            ),
            weights,
            ids,
        ).logits
        for window, pattern in {
            "none": Causal(),
            "long": SlidingWindow(window=19),
            "short": SlidingWindow(window=18),
        }.items()
    }
    assert np.array_equal(logits["none"], logits["long"])
    assert not np.array_equal(logits["none"][:, 18], logits["short"][:, 18])


# What users get wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("gpt2", {"token_ids": [1, 2]}, r"\(2,\); expected \(batch, length\)"),
        ("gpt2", {"token_ids": [[97]]}, r"expected 0 … 96"),
        ("gpt2", {"token_ids": [[-1]]}, r"token id is -1 .* expected 0 … 96"),
        (
            "gpt2",
            {"token_ids": [[1]], "position_ids": [[41]]},
            r"row of a position .* expected 0 … 40",
        ),
        ("gpt2", {"token_ids": [[1]], "attention_mask": [[1, 1]]}, r"\(1, 2\); expected \(1, 1\)"),
        ("gpt2", {"token_ids": [[1]], "token_types": [[0]]}, "gpt2 has none"),
        ("gpt2", {"token_ids": [[1]], "source_ids": [[0]]}, "not"),
        ("gpt2", {"token_ids": [[1]], "source_mask": [[1]]}, "without source_ids"),
        ("t5-small", {"token_ids": [[1]]}, "always"),
    ],
)
def test_inputs_that_do_not_fit_the_model_are_refused(
    name: str, inputs: Kwargs, message: str
) -> None:
    spec = probe(name)
    with pytest.raises(ValueError, match=message):
        oracle.logits(spec, random_weights(spec, 0), **inputs)


def test_weights_of_another_model_are_refused_by_name() -> None:
    weights = random_weights(probe("gpt2"), 0)
    with pytest.raises(ValueError, match=r"decoder\.layers\.0\.feed_forward\.gate\.weight"):
        oracle.logits(probe("llama-7b"), weights, [[1]])
