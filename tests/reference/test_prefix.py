"""The GLM family and UniLM: visible prefixes, two positions a token, a scaled residual, a mixture of masks."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

import holotype_spec
from holotype_reference import oracle
from holotype_reference.generation import greedy
from holotype_reference.model import Model, build
from holotype_reference.positions.two_dimensional import TwoDimensionalRotary, spans
from holotype_reference.weights import Weights, random_weights

NAMES = ["glm-10b", "glm-130b", "chatglm-6b", "unilm-v1-base-cased"]
TWO = ["glm-10b", "chatglm-6b"]


def model(name: str, path: str = "fused") -> tuple[Model, Weights]:
    spec = holotype_spec.load(name).probe()
    weights = random_weights(spec, seed=1)
    built = build(spec, path=path).double().eval()  # type: ignore[arg-type]
    built.load_state_dict(weights)
    return built, weights


def tokens(rows: int = 2, length: int = 11) -> Tensor:
    return torch.randint(1, 97, (rows, length), generator=torch.Generator().manual_seed(2))


def two_positions(rows: int = 2, length: int = 11) -> Tensor:
    return torch.randint(0, 40, (rows, 2, length), generator=torch.Generator().manual_seed(3))


# Against code that nobody here wrote -----------------------------------------------------------------------------


def additive(visible: Tensor) -> Tensor:
    """(batch, length, length) boolean -> (batch, 1, length, length), 0 where a key is seen."""
    return torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, -1e300)[:, None]


def seen(prefix: list[int], length: int) -> Tensor:
    """The rule of Du et al. 2021, section 2.1, one pair at a time."""
    rows = [[[j <= i or j < p for j in range(length)] for i in range(length)] for p in prefix]
    return torch.tensor(rows)


@pytest.mark.slow
def test_glm_is_gpt2_of_transformers_with_a_prefix_in_its_mask_and_a_second_row_of_positions() -> (
    None
):
    transformers = pytest.importorskip("transformers")
    ours, weights = model("glm-10b")
    spec = ours.spec
    config = transformers.GPT2Config(
        n_layer=spec.layers,
        n_embd=spec.hidden_size,
        n_head=spec.heads,
        n_inner=spec.ffn_size,
        vocab_size=spec.vocab_size,
        n_positions=spec.position_rows,
        layer_norm_epsilon=spec.architecture.normalization.eps,
        activation_function="gelu_new",
        attn_implementation="eager",
        bos_token_id=0,
        eos_token_id=0,
    )
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    theirs.load_state_dict(as_gpt2(weights))
    ids, positions = tokens(), two_positions()
    with torch.no_grad():
        embedded = weights["embeddings.token.weight"].double()[ids]
        embedded = embedded + weights["embeddings.block_position.weight"].double()[positions[:, 1]]
        expected = theirs(
            inputs_embeds=embedded,
            position_ids=positions[:, 0],
            attention_mask=additive(seen([4, 7], 11)),
        ).logits
        found = ours(ids, prefix=(4, 7), position_ids=positions).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def as_gpt2(weights: Weights) -> dict[str, Tensor]:
    """GLM's weights under the names and in the layouts of GPT-2, which has one matrix for three and turns all round."""
    found = {
        "transformer.wte.weight": weights["embeddings.token.weight"],
        "lm_head.weight": weights["embeddings.token.weight"],
        "transformer.wpe.weight": weights["embeddings.position.weight"],
    }
    for part in ("weight", "bias"):
        found[f"transformer.ln_f.{part}"] = weights[f"decoder.final_norm.{part}"]
    for layer in range(weights.spec.layers):
        own, their = f"decoder.layers.{layer}", f"transformer.h.{layer}"
        for part in ("weight", "bias"):
            joined = [weights[f"{own}.self_attention.{each}.{part}"] for each in QKV]
            found[f"{their}.attn.c_attn.{part}"] = turned(torch.cat(joined))
            for ours, name in LINEARS.items():
                found[f"{their}.{name}.{part}"] = turned(weights[f"{own}.{ours}.{part}"])
            for ours, name in NORMS.items():
                found[f"{their}.{name}.{part}"] = weights[f"{own}.{ours}.{part}"]
    return {name: value.double() for name, value in found.items()}


def turned(x: Tensor) -> Tensor:
    """A matrix with its axes exchanged; a bias as it is."""
    return x.mT if x.dim() == 2 else x


QKV = ("query", "key", "value")
LINEARS = {
    "self_attention.output": "attn.c_proj",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
NORMS = {"self_attention_norm": "ln_1", "feed_forward_norm": "ln_2"}


@pytest.mark.parametrize(
    ("options", "visible"),
    [
        ({}, torch.ones(2, 11, 11, dtype=torch.bool)),
        ({"prefix": 0}, torch.ones(2, 11, 11).tril().bool()),
        ({"right_to_left": True}, torch.ones(2, 11, 11).triu().bool()),
        ({"prefix": (4, 7)}, seen([4, 7], 11)),
    ],
    ids=["bidirectional", "left-to-right", "right-to-left", "sequence-to-sequence"],
)
def test_each_mask_of_unilm_is_bert_of_transformers_with_that_mask(
    their_model: Any, options: dict[str, Any], visible: Tensor
) -> None:
    ours, weights = model("unilm-v1-base-cased")
    theirs = their_model(ours.spec)
    published = {name: value.double() for name, value in weights.published().items()}
    theirs.load_state_dict(published)
    types = tokens() % 6
    with torch.no_grad():
        expected = theirs(
            input_ids=tokens(), token_type_ids=types, attention_mask=additive(visible)
        )
        found = ours(tokens(), token_types=types, **options)
    torch.testing.assert_close(found.logits, expected.prediction_logits, rtol=0, atol=1e-11)
    assert found.next_sentence is not None
    torch.testing.assert_close(
        found.next_sentence, expected.seq_relationship_logits, rtol=0, atol=1e-11
    )


# Against the oracle -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["fused", "blocks", "eager"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", [None, (0, 11), (3, 6)])
def test_reference_and_oracle_agree_on_any_prefix(
    name: str, prefix: tuple[int, ...] | None, path: str
) -> None:
    built, weights = model(name, path)
    mask = torch.ones(2, 11, dtype=torch.long)
    mask[1, 9:] = 0
    arrays = {name: value.double().numpy() for name, value in weights.items()}
    expected = oracle.logits(
        built.spec, arrays, tokens().numpy(), attention_mask=mask.numpy(), prefix=prefix
    )
    with torch.no_grad():
        found = built(tokens(), attention_mask=mask, prefix=prefix).logits
    real = mask.bool()
    torch.testing.assert_close(
        found[real], torch.from_numpy(expected.logits)[real], rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("name", TWO)
def test_reference_and_oracle_agree_on_positions_that_are_given(name: str) -> None:
    built, weights = model(name)
    arrays = {name: value.double().numpy() for name, value in weights.items()}
    positions = two_positions()
    expected = oracle.logits(
        built.spec, arrays, tokens().numpy(), position_ids=positions.numpy(), prefix=(3, 6)
    )
    with torch.no_grad():
        found = built(tokens(), position_ids=positions, prefix=(3, 6)).logits
    torch.testing.assert_close(found, torch.from_numpy(expected.logits), rtol=0, atol=1e-11)


# Worked by hand ---------------------------------------------------------------------------------------------------


def test_the_span_behind_a_prefix_has_the_place_of_its_mask_and_counts_itself_from_one() -> None:
    # Du et al. 2021, figure 2 (c) for one span: x1 x2 M | S x3 x4, of which M stands third.
    found = spans(0, 6, 3, torch.device("cpu"))
    assert found.tolist() == [[[0, 1, 2, 2, 2, 2], [0, 0, 0, 1, 2, 3]]]
    assert spans(0, 3, (0, 2), torch.device("cpu")).tolist() == [
        [[0, 1, 2], [0, 0, 0]],
        [[0, 1, 1], [0, 0, 1]],
    ]
    assert spans(4, 2, 3, torch.device("cpu")).tolist() == [[[2, 2], [2, 3]]]


def test_the_halves_of_a_head_turn_by_one_position_each() -> None:
    # Of a head of 8, theta 16: pairs (0, 2), (1, 3) turn by 1 and 1/4 a first position, (4, 6), (5, 7) by the second.
    rotary = TwoDimensionalRotary(8, theta=16.0)
    positions = torch.tensor([[[3], [2]]])
    head = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    found = rotary.rotate(head[None, None, None], rotary.turns(positions, torch.float64)).flatten()
    expected = [
        math.cos(3),
        math.cos(3 / 4),
        math.sin(3),
        math.sin(3 / 4),
        -math.sin(2),
        math.cos(2 / 4),
        math.cos(2),
        math.sin(2 / 4),
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_deep_norm_multiplies_the_stream_by_the_root_of_twice_the_layers() -> None:
    # Zeng et al. 2022, section 2.1. With silent blocks two norms of the scaled stream remain, and of the largest
    # epsilon they show by how much: of x with the variance v norm(a x) = a x / sqrt(a² v + eps).
    spec = holotype_spec.load("chatglm-6b").probe(layers=8)
    normalization = msgspec.structs.replace(spec.architecture.normalization, eps=1.0)
    architecture = msgspec.structs.replace(spec.architecture, normalization=normalization)
    built = build(msgspec.structs.replace(spec, architecture=architecture)).double().eval()
    layer: Any = built.decoder.layers[0]
    x = torch.tensor([1.0, -1.0] * (spec.hidden_size // 2), dtype=torch.float64)[None, None]
    found = layer.add(x, torch.zeros_like, layer.self_attention_norm)
    torch.testing.assert_close(found, x * 4 / math.sqrt(16 + 1))


# Caches and bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["glm-10b", "glm-130b", "chatglm-6b"])
def test_a_cache_remembers_the_prefix_with_which_it_began(name: str) -> None:
    built, _ = model(name)
    ids = tokens()
    with torch.no_grad():
        whole = built(ids, prefix=(3, 5)).logits
        cache = built.new_cache()
        parts = [built(ids[:, :6], prefix=(3, 5), cache=cache).logits]
        parts += [built(ids[:, i : i + 1], cache=cache).logits for i in range(6, 11)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-11)


def test_a_prefix_that_is_not_read_at_once_is_refused() -> None:
    built, _ = model("chatglm-6b")
    cache = built.new_cache()
    with pytest.raises(ValueError, match="between 0 and 4, which are read at once"):
        built(tokens()[:, :4], prefix=6, cache=cache)
    built(tokens()[:, :6], prefix=6, cache=cache)
    with pytest.raises(ValueError, match="the cache began with the prefix 6, and now it is 5"):
        built(tokens()[:, 6:], prefix=5, cache=cache)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gpt2", {"prefix": 3}, "gpt2 has no visible prefix"),
        ("glm-10b", {"prefix": (3, 5, 7)}, "one for each of the 2 rows"),
        ("glm-10b", {"prefix": 3, "documents": ((4, 7),)}, "leave prefix or documents out"),
        ("glm-10b", {"right_to_left": True}, "not trained with a mixture of masks"),
        ("unilm-v1-base-cased", {"right_to_left": True, "prefix": 3}, "a batch has one mask"),
        ("glm-10b", {"position_ids": torch.zeros(2, 11, dtype=torch.long)}, r"2, length\)"),
        ("glm-10b", {"position_ids": torch.zeros(3, 2, 11, dtype=torch.long)}, r"\(2, 2, 11\)"),
    ],
)
def test_what_a_model_cannot_be_told_is_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    built, _ = model(name)
    with pytest.raises(ValueError, match=message):
        built(tokens(), **options)


@pytest.mark.parametrize("name", ["glm-10b", "glm-130b", "chatglm-6b"])
def test_prompts_of_two_lengths_are_continued_as_each_is_alone(name: str) -> None:
    # A prompt is a text that ends in a mask, and behind it the start token of the span.
    built, _ = model(name)
    long, short = tokens(1, 8), tokens(1, 5)
    batch = torch.cat([long, torch.nn.functional.pad(short, (3, 0))])
    mask = torch.tensor([[1] * 8, [0] * 3 + [1] * 5])
    found = greedy(built, batch, steps=6, attention_mask=mask, prefix=(7, 7))
    assert torch.equal(found[:1], greedy(built, long, steps=6, prefix=7))
    assert torch.equal(found[1:, 3:], greedy(built, short, steps=6, prefix=4))
    whole = built(found[:1], prefix=7).logits.argmax(dim=-1)
    assert torch.equal(whole[:, 7:-1], found[:1, 8:])


def test_packed_documents_of_glm_give_what_they_give_alone() -> None:
    built, _ = model("glm-10b")
    with torch.no_grad():
        packed = built(tokens(1), documents=((4, 7),)).logits
        alone = [built(part).logits for part in tokens(1).split([4, 7], dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=0, atol=1e-11)
