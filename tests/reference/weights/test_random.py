"""Random weights: reproducible, every tensor random, and each regime shows what it is for."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

import holotype_spec
from holotype_reference import oracle
from holotype_reference.weights import Weights, random_weights
from holotype_spec.parameters import parameter_table
from holotype_spec.schema import Spec
from holotype_spec.tensors import tensor_table

FAMILIES = ["gpt2", "bert-base-uncased", "t5-small", "llama-7b", "llama2-70b", "mistral-7b-v0.1"]


def probe(name: str) -> Spec:
    return holotype_spec.probe(holotype_spec.load(name))


def some_logits(spec: Spec, weights: Weights) -> np.ndarray:
    generator = np.random.default_rng(0)
    inputs = {"token_ids": generator.integers(0, spec.vocab_size, (2, 19))}
    if spec.architecture.structure == "encoder-decoder":
        inputs["source_ids"] = generator.integers(0, spec.vocab_size, (2, 23))
    return oracle.logits(spec, weights, **inputs).logits


def relative(error: np.ndarray, value: np.ndarray) -> float:
    return float(np.sqrt((error**2).mean() / (value**2).mean()))


@pytest.mark.parametrize("name", holotype_spec.originals())
def test_the_weights_are_those_of_the_table_of_tensors(name: str) -> None:
    spec = probe(name)
    weights = random_weights(spec, 0)
    assert [(n, tuple(w.shape)) for n, w in weights.items()] == [
        (row.name, row.shape) for row in tensor_table(spec)
    ]
    assert weights.spec is spec


def test_a_seed_gives_the_same_weights_twice_and_another_gives_others() -> None:
    spec = probe("gpt2")
    first, again, other = (random_weights(spec, seed) for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_weights_are_the_ones_that_failures_on_other_machines_were_reported_with() -> None:
    # Recorded once: a seed in a report must mean the same weights everywhere and later.
    weights = random_weights(probe("gpt2"), 1)
    expected = [0.6772079833933432, 0.18864791610462922, -0.6577513754447097]
    assert weights["embeddings.token.weight"][0, :3].tolist() == pytest.approx(expected, rel=1e-14)


def test_more_layers_do_not_shift_the_weights_of_the_others() -> None:
    spec = holotype_spec.load("gpt2")
    two, three = (random_weights(holotype_spec.probe(spec, layers=n), 5) for n in (2, 3))
    assert set(two) < set(three)
    assert all(torch.equal(two[name], three[name]) for name in two)


def test_no_two_tensors_of_a_model_share_their_numbers() -> None:
    weights = random_weights(probe("gpt2"), 0)
    assert len({tensor.flatten()[0].item() for tensor in weights.values()}) == len(weights)


def test_drawing_weights_leaves_the_global_generators_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    random_weights(probe("gpt2"), 0)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_bold_weights_have_no_tensor_that_is_constant_and_no_gain_near_zero(name: str) -> None:
    spec = probe(name)
    weights = random_weights(spec, 0)
    for row in parameter_table(spec):
        values = weights[row.name]
        assert values.std() > 0.05, row.name
        if row.role == "gain":
            assert 0.2 < values.std() < 1, row.name
            assert values.min() > 0.1, row.name


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("regime", ["bold", "faint"])
def test_attention_is_neither_uniform_nor_saturated(
    name: str, regime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks: list[float] = []
    softmax = oracle.attention._softmax

    def watched(scores: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        attention = softmax(scores, allowed)
        choices = allowed.sum(axis=-1)
        peaks.append(float((attention.max(axis=-1) * choices)[choices > 4].mean()))
        assert attention.max(axis=-1)[choices > 4].mean() < 0.9
        return attention

    monkeypatch.setattr(oracle.attention, "_softmax", watched)
    spec = probe(name)
    some_logits(spec, random_weights(spec, 0, regime))
    assert min(peaks) > 1.5  # a uniform attention has a peak of 1 / choices


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_faint_weights_show_a_wrong_eps_of_any_single_norm(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = probe(name)
    weights = random_weights(spec, seed, "faint")
    expected = some_logits(spec, weights)
    normalization = spec.architecture.normalization
    mistaken = msgspec.structs.replace(
        spec,
        architecture=msgspec.structs.replace(
            spec.architecture,
            normalization=msgspec.structs.replace(normalization, eps=normalization.eps / 10),
        ),
    )
    norm = oracle.normalization.norm
    gains = [row.name.removesuffix("weight") for row in parameter_table(spec) if row.role == "gain"]
    for wrong in gains:
        monkeypatch.setattr(
            oracle.normalization,
            "norm",
            lambda s, p, x, w=wrong: norm(mistaken if p.prefix == w else s, p, x),
        )
        assert relative(some_logits(spec, weights) - expected, expected) > 1e-3, wrong
    monkeypatch.setattr(oracle.normalization, "norm", lambda s, p, x: norm(mistaken, p, x))
    assert relative(some_logits(spec, weights) - expected, expected) > 0.1


@pytest.mark.parametrize("name", FAMILIES)
def test_faint_activations_reach_every_norm_with_a_variance_near_its_eps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios: dict[str, float] = {}
    norm = oracle.normalization.norm

    def watched(spec: Spec, p: oracle.basics.Scope, x: np.ndarray) -> np.ndarray:
        ratios[p.prefix] = float(
            np.median((x * x).mean(axis=-1)) / spec.architecture.normalization.eps
        )
        return norm(spec, p, x)

    monkeypatch.setattr(oracle.normalization, "norm", watched)
    spec = probe(name)
    some_logits(spec, random_weights(spec, 0, "faint"))
    assert len(ratios) == sum(row.role == "gain" for row in parameter_table(spec))
    assert all(0.1 < ratio < 40 for ratio in ratios.values()), ratios


def test_weights_are_float64_unless_another_dtype_is_asked_for() -> None:
    spec = probe("gpt2")
    exact, rounded = random_weights(spec, 0), random_weights(spec, 0, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in exact.values()} == {torch.float64}
    assert all(torch.equal(rounded[name], exact[name].bfloat16()) for name in exact)


def test_published_weights_have_the_published_names() -> None:
    assert "transformer.h.1.attn.c_attn.weight" in random_weights(probe("gpt2"), 0).published()


@pytest.mark.parametrize(("seed", "regime"), [(-1, "bold"), (0, "timid")])
def test_an_impossible_seed_or_regime_is_refused(seed: int, regime: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*(at least 0|'bold', 'faint' or 'steady')"):
        random_weights(probe("gpt2"), seed, regime)


def test_without_experts_steady_weights_are_the_bold_ones() -> None:
    spec = probe("llama2-70b")
    bold, steady = random_weights(spec, 0), random_weights(spec, 0, "steady")
    assert all(torch.equal(steady[name], bold[name]) for name in bold)
