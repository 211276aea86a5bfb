"""Every deviation is the change that its title says, and nothing else."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from einops import rearrange
from torch import Tensor

from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.importing import TargetError
from holotype_conformance.models.adapters.reference import run_reference
from holotype_conformance.models.candidate import Inputs
from holotype_conformance.models.cases import BatchCase, batch_inputs
from holotype_conformance.models.deviations import (
    DeviatedCandidate,
    Deviation,
    UnknownDeviation,
    all_deviations,
    applicable,
    find,
    names,
)
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.targets import resolve
from holotype_reference.model import Model, build
from holotype_reference.support import supported
from holotype_reference.weights import Weights, random_weights
from holotype_spec import load, parameter_table, schema
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

GPT2, BERT, T5 = load("gpt2"), load("bert-base-uncased"), load("t5-small")
LLAMA, MISTRAL = load("llama2-70b"), load("mistral-7b-v0.1")
MIXTRAL, ST_MOE = load("mixtral-8x7b"), load("st-moe-32b")
CATALOGUE = [load(name) for name in supported() if load(name).derives_from is None]
SPECS = (GPT2, BERT, T5, LLAMA, MISTRAL, load("llama3-8b"))
every_deviation = pytest.mark.parametrize(
    "deviation", all_deviations(), ids=lambda deviation: deviation.slug
)


# The catalogue --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [*get_args(schema.Positions), *get_args(schema.Pattern)], ids=lambda kind: kind.__name__
)
def test_each_kind_of_positions_and_each_pattern_has_deviations_of_its_own(kind: type) -> None:
    specs = [spec for spec in CATALOGUE if spec.has(kind)]
    if not specs:
        pytest.skip("the reference builds no model that has it")
    # Two places of a token are one mistake to make, whether they are added or turn.
    alike = [spec for spec in CATALOGUE if spec.two_positions] if specs[0].two_positions else specs
    others = [spec for spec in CATALOGUE if spec not in alike]
    assert any(
        any(map(each.applies, specs)) and not any(map(each.applies, others))
        for each in all_deviations()
        if not each.equivalent
    )


@every_deviation
def test_a_deviation_is_described(deviation: Deviation) -> None:
    assert re.fullmatch(r"[a-z-]+\.[a-z0-9-]+", deviation.slug)
    assert len(deviation.meaning) > 40
    for report in deviation.reports:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", report), report


@every_deviation
def test_a_deviation_applies_somewhere_and_its_title_completes_a_sentence(
    deviation: Deviation,
) -> None:
    specs = [spec for spec in CATALOGUE if deviation.applies(spec)]
    assert specs
    for spec in specs:
        assert re.fullmatch(r"[^A-Z.\n].*[^.\s]", deviation.title(spec))


def test_titles_have_the_numbers_of_the_full_spec() -> None:
    window = find("window.one-narrower").title(MISTRAL)
    assert window == "the sliding window is 4095 instead of 4096"
    assert find("norm.eps-1e-5").title(BERT) == "the norms' eps is 1e-5 instead of 1e-12"
    assert find("activation.relu").title(LLAMA) == "the activation is relu instead of silu"
    assert find("scale.dropped").title(GPT2) == "scores are not scaled (instead of by 1/√64)"


def test_a_deviation_that_changes_nothing_does_not_apply() -> None:
    bert = {deviation.slug for deviation in applicable(BERT)}
    assert "norm.eps-1e-12" not in bert
    assert "activation.gelu" not in bert
    assert not {"mask.dropped", "kv.tiled", "rotary.reversed", "window.dropped"} & bert


def test_an_unknown_slug_is_told_the_nearest_names() -> None:
    with pytest.raises(UnknownDeviation, match=r"did you mean rotary\.pairing"):
        find("rotary.pairng")
    assert "rotary.pairing" in names()


@every_deviation
def test_a_changed_field_leaves_the_parameters_as_they_are(deviation: Deviation) -> None:
    for spec in CATALOGUE:
        if deviation.applies(spec):
            assert shapes(deviation.spec(spec)) == shapes(spec)


def shapes(spec: Spec) -> list[tuple[str, tuple[int, ...]]]:
    return [(parameter.name, parameter.shape) for parameter in parameter_table(spec)]


# Models ---------------------------------------------------------------------------------------------------------


def inputs_of(spec: Spec, *, padded: bool = True, length: int = 13) -> Inputs:
    """Three rows, of which padding takes 0, 2 and 4 tokens on the right."""
    generator = torch.Generator().manual_seed(0)
    tokens, source = (torch.randint(1, 97, (3, n), generator=generator) for n in (length, 7))
    mask = (torch.arange(length) < length - 2 * torch.arange(3)[:, None]).long()
    encoder_decoder = spec.architecture.structure == "encoder-decoder"
    return Inputs(
        token_ids=tokens,
        attention_mask=mask if padded else None,
        token_types=tokens % 2 if spec.architecture.token_types else None,
        source_ids=source if encoder_decoder else None,
        source_mask=mask[:, -7:] if encoder_decoder and padded else None,
    )


def model_of(spec: Spec, weights: Weights, *deviations: Deviation) -> Model:
    """A float64 probe in eval mode."""
    model = DeviatedCandidate(*deviations).build(spec.probe(), "eager").double()
    model.load_state_dict(weights)
    assert isinstance(model.eval(), Model)
    return model  # type: ignore[return-value]


@torch.no_grad()
def logits_of(model: Model, inputs: Inputs) -> Tensor:
    """Those at real positions, and the next-sentence ones."""
    output = run_reference(model, inputs)
    real = (
        torch.ones_like(inputs.token_ids)
        if inputs.attention_mask is None
        else inputs.attention_mask
    )
    logits = output.logits[real.bool()].flatten()
    return (
        logits
        if output.next_sentence is None
        else torch.cat([logits, output.next_sentence.flatten()])
    )


@every_deviation
def test_a_patch_leaves_all_other_models_alone(deviation: Deviation) -> None:
    spec = next(spec for spec in (*SPECS, *CATALOGUE) if deviation.applies(spec))
    weights, inputs = random_weights(spec.probe(), seed=0), inputs_of(spec)
    plain = build(spec.probe()).double().eval()
    plain.load_state_dict(weights)
    before = logits_of(plain, inputs)
    model_of(spec, weights, deviation)
    fresh = build(spec.probe()).double().eval()
    fresh.load_state_dict(weights)
    assert torch.equal(logits_of(plain, inputs), before)
    assert torch.equal(logits_of(fresh, inputs), before)


RAISES = {"interface.view-of-strided"}  # by its title


@pytest.mark.parametrize(
    "deviation",
    [each for each in all_deviations() if each.slug not in RAISES],
    ids=lambda deviation: deviation.slug,
)
def test_a_deviated_model_answers_whatever_the_reference_answers(deviation: Deviation) -> None:
    """A deviation that raises would be caught by everything, for what it is not."""
    specs = [spec for spec in CATALOGUE if deviation.applies(spec)]
    for spec in {type(spec.architecture.positions): spec for spec in specs}.values():
        subject = Subject(DeviatedCandidate(deviation), spec)
        model = subject.fresh_model(Setup(path="fused"))
        for padding in ("none", "right"):
            case = BatchCase(length=7, batch=2, padding=padding)
            inputs = batch_inputs(subject, case)
            subject.call(model, inputs)
        if subject.has("cache"):
            inputs = subject.inputs(tokens=(2, 7), seed=0)
            first, then = (
                replace(inputs, token_ids=part) for part in inputs.token_ids.split([5, 2], dim=1)
            )
            subject.call_cached(model, then, subject.call_cached(model, first, None).cache)


# The same model by other weights --------------------------------------------------------------------------------

# A change that can also be made in the weights must give what the unchanged model gives with those weights.
Change = Callable[[str, Tensor], Tensor]


def zero(*parts: str) -> Change:
    return lambda name, value: value * 0 if name.endswith(parts) else value


def is_gain(name: str) -> bool:
    return name.endswith("norm.weight")


ATTENTION = [f"attention.{part}.weight" for part in ("query", "key", "value", "output")]


def transposed(*endings: str) -> Callable[..., object]:
    return lambda name, value: value.T if name.endswith(endings) else value


def tied_to_the_table(weights: Weights) -> dict[str, object]:
    return {**weights, "head.output.weight": weights["embeddings.token.weight"]}


def dealt(axis: str) -> Change:
    """Neighbouring features belong to different heads."""
    to_heads = {"rows": "(w h) d -> (h w) d", "bias": "(w h) -> (h w)"}

    def change(name: str, value: Tensor) -> Tensor:
        if name.split(".")[-2] not in ("query", "key", "value"):
            return value
        pattern = to_heads["bias" if value.ndim == 1 else axis]
        return rearrange(value, pattern, w=8)

    return change


def interleaved_as_half_split(name: str, value: Tensor) -> Tensor:
    """Rows (2i, 2i + 1) of each head are moved to (i, i + 4)."""
    if not name.endswith(("query.weight", "key.weight")):
        return value
    return rearrange(value, "(heads pair two) d -> (heads two pair) d", two=2, pair=4)


def tiled_as_repeated(name: str, value: Tensor) -> Tensor:
    """Query head h of 6 reads key-value head h % 2: put those that read the same one next to each other."""
    if name.endswith("query.weight"):
        return rearrange(value, "(group kv width) d -> (kv group width) d", kv=2, width=8)
    if name.endswith("attention.output.weight"):
        return rearrange(value, "d (group kv width) -> d (kv group width)", kv=2, width=8)
    return value


def rolled_positions(name: str, value: Tensor) -> Tensor:
    return value.roll(-1, 0) if name == "embeddings.position.weight" else value


def scaled(factor: float, *parts: str) -> Change:
    return lambda name, value: value * factor if name.endswith(parts) else value


def swapped(one: str, other: str) -> Callable[[Weights], dict[str, Tensor]]:
    def change(weights: Weights) -> dict[str, Tensor]:
        def partner(name: str) -> str:
            parts = name.split(".")
            parts[-2] = {one: other, other: one}.get(parts[-2], parts[-2])
            return ".".join(parts)

        return {name: weights[partner(name)] for name in weights}

    return change


BY_WEIGHTS: list[tuple[str, Spec, Change | Callable[[Weights], dict[str, Tensor]]]] = [
    ("attention.dropped", GPT2, zero("attention.output.weight", "attention.output.bias")),
    ("bias.query-dropped", GPT2, zero("query.bias")),
    ("bias.value-dropped", BERT, zero("value.bias")),
    ("bias.output-dropped", GPT2, zero("attention.output.bias")),
    ("bias.feed-forward-up-dropped", GPT2, zero("up.bias")),
    ("bias.feed-forward-down-dropped", BERT, zero("down.bias")),
    ("head.bias-dropped", BERT, zero("head.output.bias")),
    ("head.bias-twice", BERT, scaled(2, "head.output.bias")),
    ("norm.shift-dropped", GPT2, zero("norm.bias")),
    ("norm.gain-dropped", LLAMA, lambda name, value: value * 0 + 1 if is_gain(name) else value),
    ("norm.gain-plus-one", LLAMA, lambda name, value: value + 1 if is_gain(name) else value),
    ("norm.gain-plus-one", GPT2, lambda name, value: value + 1 if is_gain(name) else value),
    ("learned.dropped", GPT2, zero("position.weight")),
    ("learned.offset-by-one", GPT2, rolled_positions),
    ("relative.dropped", T5, zero("relative_bias.weight")),
    ("embeddings.token-types-dropped", BERT, zero("token_type.weight")),
    ("embeddings.scaled", LLAMA, scaled(48**0.5, "token.weight")),  # the probe's size
    ("head.scale-added", LLAMA, scaled(48**-0.5, "head.output.weight")),
    ("scale.twice", MISTRAL, scaled(8**-0.5, "query.weight")),
    ("scale.inverted", MISTRAL, scaled(8.0, "query.weight")),
    ("scale.dropped", MISTRAL, scaled(8**0.5, "query.weight")),
    ("scale.hidden-size", LLAMA, scaled((8 / 48) ** 0.5, "query.weight")),
    ("scale.added", T5, scaled(8**-0.5, "query.weight")),
    ("heads.query-key-swapped", GPT2, swapped("query", "key")),
    ("heads.interleaved", T5, dealt("rows")),
    ("heads.interleaved", GPT2, dealt("rows")),
    ("loading.key-value-exchanged", LLAMA, swapped("key", "value")),
    ("loading.key-value-exchanged", T5, swapped("key", "value")),
    ("loading.output-transposed", GPT2, transposed("attention.output.weight")),
    ("loading.attention-transposed", BERT, transposed(*ATTENTION)),
    ("loading.norms-exchanged", BERT, swapped("self_attention_norm", "feed_forward_norm")),
    ("loading.norms-exchanged", MISTRAL, swapped("self_attention_norm", "feed_forward_norm")),
    ("loading.head-tied", LLAMA, tied_to_the_table),
    ("gate.swapped", LLAMA, swapped("gate", "up")),
    ("gate.swapped", MIXTRAL, swapped("gate", "up")),
    ("experts.dense-after-dropped", ST_MOE, zero("dense_after.down.weight")),
    ("kv.tiled", LLAMA, tiled_as_repeated),
    ("rotary.pairing", LLAMA, interleaved_as_half_split),
    ("pooler.classes-swapped", BERT, lambda n, v: v.flip(0) if n.startswith("next_s") else v),
]


@pytest.mark.parametrize(("slug", "spec", "change"), BY_WEIGHTS)
def test_the_deviated_model_is_the_model_with_other_weights(
    slug: str, spec: Spec, change: Callable[..., object]
) -> None:
    weights, inputs = random_weights(spec.probe(), seed=0), inputs_of(spec)
    try:
        changed = change(weights)
    except TypeError:
        changed = {name: change(name, value) for name, value in weights.items()}
    expected = logits_of(model_of(spec, Weights(weights.spec, changed)), inputs)  # type: ignore[arg-type]
    actual = logits_of(model_of(spec, weights, find(slug)), inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(actual, logits_of(model_of(spec, weights), inputs), rtol=1e-3)


def log_softmax(x: Tensor) -> Tensor:
    return x - x.exp().sum(dim=-1, keepdim=True).log()


def eight_bits(x: Tensor) -> Tensor:
    """The first of them is 1 and not written."""
    last = 2 ** (x.abs().log2().floor() - 7)
    return (x / last).round() * last


HANDED_OUT: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("output.log-probabilities", log_softmax),
    ("output.probabilities", lambda x: log_softmax(x).exp()),
    ("output.capped", lambda x: 30 - 60 / ((x / 15).exp() + 1)),
    ("output.float16", lambda x: torch.from_numpy(x.float().numpy().astype("float16")).double()),
    ("output.bfloat16", lambda x: eight_bits(x.float()).double()),
    ("output.one-late", lambda x: torch.stack([x[:, -1], *x[:, :-1].unbind(1)], 1)),
]


@pytest.mark.parametrize(("slug", "change"), HANDED_OUT)
def test_what_is_handed_out_follows_from_the_logits(
    slug: str, change: Callable[[Tensor], Tensor]
) -> None:
    weights, token_ids = random_weights(GPT2.probe(), seed=0), torch.arange(12).view(2, 6)
    with torch.no_grad():
        right, wrong = (
            model_of(GPT2, weights, *deviations)(token_ids).logits
            for deviations in ((), (find(slug),))
        )
    torch.testing.assert_close(wrong, change(right), rtol=1e-12, atol=1e-12)


# The same model on other inputs ---------------------------------------------------------------------------------


def test_reversed_rotation_is_the_rotation_at_reversed_positions() -> None:
    weights, inputs = random_weights(LLAMA.probe(), seed=0), inputs_of(LLAMA)
    backwards = torch.arange(12, -1, -1).expand(3, -1)
    told = Inputs(
        token_ids=inputs.token_ids, attention_mask=inputs.attention_mask, position_ids=backwards
    )
    expected = logits_of(model_of(LLAMA, weights), told)
    actual = logits_of(model_of(LLAMA, weights, find("rotary.reversed")), inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("slug", "spec"),
    [
        ("mask.padding-ignored", GPT2),
        ("mask.padding-ignored", BERT),
        ("mask.padding-replaces-causal", GPT2),
        ("mask.padding-of-first-row", MISTRAL),
        ("scale.only-without-mask", LLAMA),
        ("mask.nan-rows", BERT),
    ],
)
def test_a_deviation_in_the_padding_does_not_show_without_padding(slug: str, spec: Spec) -> None:
    weights, inputs = random_weights(spec.probe(), seed=0), inputs_of(spec, padded=False)
    actual = logits_of(model_of(spec, weights, find(slug)), inputs)
    torch.testing.assert_close(actual, logits_of(model_of(spec, weights), inputs))


def reach(slug: str, spec: Spec, position: int) -> list[int]:
    """Which outputs of a model of one layer move when the token at `position` changes."""
    small = spec.probe(layers=1)
    model = DeviatedCandidate(find(slug)).build(small, "eager").double().eval()
    model.load_state_dict(random_weights(small, seed=0))
    inputs = inputs_of(spec, padded=False)
    tokens = inputs.token_ids.clone()
    tokens[:, position] = tokens[:, position] % 96 + 1
    changed = Inputs(token_ids=tokens, token_types=inputs.token_types, source_ids=inputs.source_ids)
    with torch.no_grad():
        before, after = (run_reference(model, each).logits for each in (inputs, changed))
    return (before != after).any(-1).any(0).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("slug", "spec", "moved"),
    [
        ("mask.one-ahead", GPT2, [5, 6, 7, 8, 9, 10, 11, 12]),
        ("mask.dropped", GPT2, list(range(13))),
        ("mask.encoder-causal", BERT, [6, 7, 8, 9, 10, 11, 12]),
        # The probe's window is 5: token 6 is seen from 6 … 10.
        ("window.one-wider", MISTRAL, [6, 7, 8, 9, 10, 11]),
        ("window.one-narrower", MISTRAL, [6, 7, 8, 9]),
        ("window.dropped", MISTRAL, [6, 7, 8, 9, 10, 11, 12]),
        ("attention.dropped", GPT2, [6]),
        ("softmax.over-queries", GPT2, list(range(13))),
        ("length.mean-gate", GPT2, list(range(13))),
        ("length.capacity", GPT2, [6, 7, 8, 9, 10, 11, 12]),
    ],
)
def test_a_deviated_mask_reaches_as_far_as_its_title_says(
    slug: str, spec: Spec, moved: list[int]
) -> None:
    assert reach(slug, spec, 6) == moved


def test_without_upcast_shows_in_half_precision_only() -> None:
    for slug in ("norm.without-upcast", "softmax.without-upcast", "rotary.without-upcast"):
        weights, inputs = random_weights(LLAMA.probe(), seed=0), inputs_of(LLAMA)
        plain, deviated = model_of(LLAMA, weights), model_of(LLAMA, weights, find(slug))
        torch.testing.assert_close(logits_of(deviated, inputs), logits_of(plain, inputs))
        narrow = logits_of(deviated.bfloat16(), inputs) - logits_of(plain.bfloat16(), inputs)
        assert narrow.abs().max() > 0.01, slug


def test_two_deviations_act_together() -> None:
    weights, inputs = random_weights(LLAMA.probe(), seed=0), inputs_of(LLAMA)
    together = logits_of(
        model_of(LLAMA, weights, find("kv.tiled"), find("activation.relu")), inputs
    )
    relu = find("activation.relu")
    tiled = {name: tiled_as_repeated(name, value) for name, value in weights.items()}
    expected = logits_of(model_of(LLAMA, Weights(weights.spec, tiled), relu), inputs)
    torch.testing.assert_close(together, expected, rtol=1e-9, atol=1e-9)


# As a target ----------------------------------------------------------------------------------------------------


def test_a_deviation_is_a_target() -> None:
    candidate = resolve("deviation:window.dropped")
    assert isinstance(candidate, DeviatedCandidate)
    assert candidate.title == "reference with window.dropped"
    Subject(candidate, MISTRAL).smoke()


def test_an_unknown_deviation_is_no_target() -> None:
    with pytest.raises(TargetError, match=r"did you mean window\.dropped"):
        resolve("deviation:window.droped")


def test_a_deviation_cannot_be_run_under_a_spec_to_which_it_does_not_apply() -> None:
    with pytest.raises(CandidateUnusable, match="does not apply to gpt2"):
        Subject(resolve("deviation:window.dropped"), GPT2).smoke()


def test_an_untied_head_takes_the_weights_of_the_tied_model() -> None:
    subject = Subject(DeviatedCandidate(find("head.untied")), GPT2)
    model = subject.model(Setup(path="fused"))
    table = subject.weights(2, 0)["embeddings.token.weight"]
    assert torch.equal(model.get_parameter("head.output.weight"), table)
