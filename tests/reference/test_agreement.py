"""The reference against the models of `transformers`, on the same weights: logits and gradients, with padding.

They compute GPT-2 and BERT in float64 throughout, but the norms of T5, LLaMA and Mistral, and rotary tables, in
float32 even in a float64 model; the bounds say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import holotype_spec
from holotype_reference.model import Model, Output, build
from holotype_reference.weights import Regime, random_weights
from holotype_reference.weights.checkpoints import canonical, published
from holotype_spec.schema import LayerNorm, RelativeBuckets, Rotary, Spec

pytestmark = pytest.mark.slow

NAMES = [
    "gpt2",
    "bert-base-uncased",
    "t5-small",
    "llama-7b",
    "llama2-70b",
    "llama3-8b",
    "llama3.2-1b",
    "giraffe-13b-16k",
    "mistral-7b-v0.1",
    "mistral-7b-v0.3",
    "qwen2-7b",
    "gpt-1",
    "opt-125m",
    "gpt-j-6b",
    "distilbert-base-uncased",
    "roberta-base",
    "t5-v1_1-small",
    "mt5-small",
    "albert-base-v1",
    "albert-base-v2",
    "electra-base-generator",
    "electra-small-discriminator",
    "bart-base",
    "mbart-large-50",
    "mixtral-8x7b",
    "deepseek-v2-lite",
    "deepseek-v2",
    "deepseek-v3",
]
BATCH, LENGTH, SOURCE = 3, 11, 7
PADDING = {
    "none": None,
    "ones": [(0, 0), (0, 0), (0, 0)],
    "left": [(4, 0), (0, 0), (9, 0)],
    "right": [(0, 4), (0, 0), (0, 9)],
}

Make = Callable[[Spec], torch.nn.Module]
Read = Callable[[Any, dict[str, Tensor]], None]
File = Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]


def encodes(name: str) -> bool:
    return holotype_spec.load(name).architecture.structure == "encoder"


def bound(spec: Spec) -> float:
    """Their RMSNorm and their rotary tables are float32 in a float64 model too."""
    exact = isinstance(spec.architecture.normalization, LayerNorm)
    return 1e-12 if exact and not isinstance(spec.architecture.positions, Rotary) else 1e-6


def ids(length: int, seed: int) -> Tensor:
    return torch.randint(3, 97, (BATCH, length), generator=torch.Generator().manual_seed(seed))


def padding(kind: str, length: int) -> Tensor | None:
    """(batch, length), the pads of each row on the sides that `kind` says, at least two tokens left."""
    pads = PADDING[kind]
    if pads is None:
        return None
    mask = torch.ones(BATCH, length, dtype=torch.int64)
    for row, (left, right) in zip(mask, pads, strict=True):
        row[: min(left, length - 2)] = 0
        row[length - min(right, length - 2) :] = 0
    return mask


def inputs(spec: Spec, kind: str) -> dict[str, Any]:
    """Arguments of the reference."""
    given: dict[str, Any] = {
        "token_ids": ids(LENGTH, 1),
        "attention_mask": padding(kind, LENGTH),
    }
    if spec.architecture.token_types:
        given["token_types"] = ids(LENGTH, 2) % spec.architecture.token_types
    if spec.architecture.structure == "encoder-decoder":
        given |= {"source_ids": ids(SOURCE, 3), "source_mask": padding(kind, SOURCE)}
    elif kind == "left" and not isinstance(spec.architecture.positions, RelativeBuckets):
        given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return given


# RoBERTa's position ids are rows of its table, whose first two hold no position.
OFFSETS = {"RobertaForMaskedLM": 2}
THEIR_NAMES = {"token_ids": "input_ids", "token_types": "token_type_ids"}
THEIR_SOURCE_NAMES = {
    "token_ids": "decoder_input_ids",
    "attention_mask": "decoder_attention_mask",
    "source_ids": "input_ids",
    "source_mask": "attention_mask",
}


def their_outputs(model: torch.nn.Module, given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    names = THEIR_SOURCE_NAMES if "source_ids" in given else THEIR_NAMES
    told = {names.get(name, name): value for name, value in given.items()}
    if "position_ids" in told:
        told["position_ids"] = told["position_ids"] + OFFSETS.get(type(model).__name__, 0)
    output = model(**told)
    if "prediction_logits" in output:
        return output.prediction_logits, output.get(
            "seq_relationship_logits", output.get("sop_logits")
        )
    logits = output.logits
    return (logits if logits.dim() == 3 else logits[..., None]), None


def loss(logits: Tensor, next_sentence: Tensor | None, mask: Tensor | None) -> Tensor:
    """A number that every real logit moves, each by its own amount."""
    weights = torch.cos(torch.arange(logits.numel(), dtype=logits.dtype)).view_as(logits)
    total = (weights * (logits if mask is None else logits * mask[..., None])).sum()
    return (
        total if next_sentence is None else total + (next_sentence * torch.tensor([1.0, 2.0])).sum()
    )


def pair(
    spec: Spec, their_model: Make, read_by: Read, regime: Regime = "bold", path: Any = "fused"
) -> tuple[Model, Any]:
    """Our model and theirs, in float64, with the same random weights."""
    weights = random_weights(spec, seed=5, regime=regime)
    ours, theirs = build(spec, path=path).double().eval(), their_model(spec)
    # Their eager path is NaN for a query that sees no key: it casts float64's lowest number to float32.
    theirs.set_attn_implementation("sdpa")
    ours.load_state_dict(weights)
    read_by(theirs, published(spec, weights))
    return ours, theirs


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("regime", ["bold", "faint"])
@pytest.mark.parametrize("kind", list(PADDING))
@pytest.mark.parametrize("name", NAMES)
def test_real_logits_equal_those_of_transformers(
    name: str, kind: str, regime: Regime, path: str, their_model: Make, read_by: Read
) -> None:
    spec = holotype_spec.load(name).probe()
    ours, theirs = pair(spec, their_model, read_by, regime, path)
    given = inputs(spec, kind)
    with torch.no_grad():
        output: Output = ours(**given)
        logits, next_sentence = their_outputs(theirs, given)
    mask = given["attention_mask"]
    real = torch.ones(BATCH, LENGTH, dtype=torch.bool) if mask is None else mask == 1
    assert relative(output.logits[real], logits[real]) < bound(spec)
    if next_sentence is not None:
        assert output.next_sentence is not None
        seen = real[:, 0]  # the pooler reads the first position, whatever stands there
        assert relative(output.next_sentence[seen], next_sentence[seen]) < bound(spec)


@pytest.mark.parametrize("kind", ["none", "right"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_those_of_transformers(
    name: str, kind: str, their_model: Make, read_by: Read, filed: File
) -> None:
    spec = holotype_spec.load(name).probe()
    ours, theirs = pair(spec, their_model, read_by)
    given = inputs(spec, kind)
    output: Output = ours(**given)
    loss(output.logits, output.next_sentence, given["attention_mask"]).backward()
    loss(*their_outputs(theirs, given), given["attention_mask"]).backward()
    gradients = {
        name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        for name, tensor in theirs.state_dict(keep_vars=True).items()
    }
    expected = canonical(spec, filed(theirs, gradients))
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        # Without rotary positions a bias of the keys moves nothing: both gradients are rounding.
        scale = expected[name.replace("key.bias", "query.bias")].norm()
        # The gradients pass those norms in single precision once more than the logits do.
        assert (parameter.grad - expected[name]).norm() < 3 * bound(spec) * scale, name


@pytest.mark.parametrize("name", [name for name in NAMES if not encodes(name)])
def test_decoding_with_a_cache_equals_their_full_pass(
    name: str, their_model: Make, read_by: Read
) -> None:
    spec = holotype_spec.load(name).probe()
    ours, theirs = pair(spec, their_model, read_by)
    given = inputs(spec, "none")
    tokens = given.pop("token_ids")
    cache = ours.new_cache()
    with torch.no_grad():
        logits, _ = their_outputs(theirs, given | {"token_ids": tokens})
        chunks = [
            ours(chunk, cache=cache, **given).logits for chunk in tokens.split([4, 1, 6], dim=1)
        ]
    assert relative(torch.cat(chunks, dim=1), logits) < bound(spec)
