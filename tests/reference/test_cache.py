"""Incremental decoding: whatever the chunks, it is the full pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import holotype_spec
from holotype_reference.cache import Cache
from holotype_reference.model import Model, build
from holotype_reference.weights import random_weights
from holotype_spec.schema import RelativeBuckets, Spec

DECODERS = ["gpt2", "t5-small", "llama-7b", "llama2-70b", "mistral-7b-v0.1", "gpt-j-6b"]
CHUNKS = [[1] * 13, [13], [4, 1, 8], [1, 12], [12, 1], [6, 7]]


def model(spec: Spec, path: Any = "fused") -> Model:
    built = build(spec, path=path).double().eval()
    built.load_state_dict(random_weights(spec, seed=1))
    return built


def ids(*shape: int, seed: int = 3) -> Tensor:
    return torch.randint(97, shape, generator=torch.Generator().manual_seed(seed))


def source(spec: Spec) -> dict[str, Tensor]:
    """Three sources of 6 tokens, the first of them padded on the right, for a model that reads one."""
    if spec.architecture.structure != "encoder-decoder":
        return {}
    mask = torch.ones(3, 6, dtype=torch.int64)
    mask[0, 4:] = 0
    return {"source_ids": ids(3, 6, seed=4), "source_mask": mask}


def left_padding(spec: Spec) -> dict[str, Tensor]:
    mask = torch.ones(3, 13, dtype=torch.int64)
    mask[0, :5] = mask[2, :11] = 0
    if isinstance(spec.architecture.positions, RelativeBuckets):
        return {"attention_mask": mask}
    return {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


def decode(
    built: Model, tokens: Tensor, chunks: list[int], cache: Cache, padding: dict[str, Tensor]
) -> Tensor:
    """Logits of all tokens, a chunk at a time."""
    pieces, start = [], 0
    for chunk in chunks:
        end = start + chunk
        given = {name: tensor[:, :end] for name, tensor in padding.items()}
        if "position_ids" in given:
            given["position_ids"] = given["position_ids"][:, start:]
        output = built(tokens[:, start:end], cache=cache, **source(built.spec), **given)
        assert output.cache is cache
        assert cache.length == end
        pieces.append(output.logits)
        start = end
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("path", ["fused", "eager"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
@pytest.mark.parametrize("name", DECODERS)
def test_decoding_in_chunks_equals_the_full_pass(
    name: str, chunks: list[int], padded: bool, path: str
) -> None:
    spec = holotype_spec.load(name).probe()
    built, tokens = model(spec, path), ids(3, 13)
    padding = left_padding(spec) if padded else {}
    with torch.no_grad():
        full = built(tokens, **source(spec), **padding).logits
        pieces = decode(built, tokens, chunks, built.new_cache(), padding)
    real = padding["attention_mask"] == 1 if padded else torch.ones(3, 13, dtype=torch.bool)
    assert (pieces - full)[real].norm() < 1e-13 * full[real].norm()


@pytest.mark.parametrize("name", DECODERS)
def test_gradients_flow_through_the_cache(name: str) -> None:
    spec = holotype_spec.load(name).probe()
    full, chunked, tokens = model(spec), model(spec), ids(3, 13)
    full(tokens, **source(spec)).logits.sin().sum().backward()
    decode(chunked, tokens, [4, 1, 8], chunked.new_cache(), {}).sin().sum().backward()
    largest = max(p.grad.abs().max().item() for p in full.parameters() if p.grad is not None)
    for ours, other in zip(chunked.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, other.grad, rtol=1e-10, atol=1e-12 * largest)


def test_source_is_encoded_once_and_may_be_left_out_afterwards() -> None:
    spec = holotype_spec.load("t5-small").probe()
    built, tokens, cache = model(spec), ids(3, 13), model(spec).new_cache()
    full = built(tokens, **source(spec)).logits
    first = built(tokens[:, :5], cache=cache, **source(spec)).logits
    built.encoder.register_forward_hook(lambda *_: pytest.fail("the source was encoded again"))
    second = built(tokens[:, 5:], cache=cache).logits
    torch.testing.assert_close(torch.cat([first, second], dim=1), full, rtol=1e-12, atol=1e-12)


def test_another_source_than_the_one_in_the_cache_is_an_error() -> None:
    spec = holotype_spec.load("t5-small").probe()
    built, tokens = model(spec), ids(3, 2)
    cache = built.new_cache()
    built(tokens, cache=cache, **source(spec))
    with pytest.raises(ValueError, match="another source"):
        built(tokens, cache=cache, source_ids=ids(3, 6, seed=5))


def test_caller_may_change_its_source_after_the_call() -> None:
    spec = holotype_spec.load("t5-small").probe()
    built, tokens, given = model(spec), ids(3, 13), source(spec)
    full = built(tokens, **source(spec)).logits
    cache = built.new_cache()
    first = built(tokens[:, :5], cache=cache, **given).logits
    for tensor in given.values():
        tensor.zero_()
    second = built(tokens[:, 5:], cache=cache, **source(spec)).logits
    torch.testing.assert_close(torch.cat([first, second], dim=1), full, rtol=1e-12, atol=1e-12)


def test_extending_a_cache_writes_into_no_old_tensor() -> None:
    spec = holotype_spec.load("gpt2").probe()
    built, tokens, cache = model(spec), ids(3, 5), model(spec).new_cache()
    built(tokens, cache=cache)
    kept = cache.layers[0].self_attention.keys
    assert kept is not None
    before = kept.detach().clone()
    built(tokens, cache=cache)
    assert kept.equal(before)


def test_failed_call_leaves_the_cache_as_it_was() -> None:
    spec = holotype_spec.load("gpt2").probe()
    built, cache = model(spec), model(spec).new_cache()
    built(ids(3, 30), cache=cache)
    with pytest.raises(ValueError, match="41 learned positions, but 42 tokens"):
        built(ids(3, 12), cache=cache)
    assert cache.length == 30


@pytest.mark.parametrize("wrong", ["token_ids", "source_ids"])
def test_cache_is_usable_after_an_unknown_token(wrong: str) -> None:
    spec = holotype_spec.load("t5-small").probe()
    built, tokens, cache = model(spec), ids(3, 13), model(spec).new_cache()
    given = {"token_ids": tokens} | source(spec)
    with pytest.raises(IndexError):
        built(**given | {wrong: given[wrong] + spec.vocab_size}, cache=cache)
    assert built(**given, cache=cache).logits.equal(built(**given).logits)


def test_cache_of_another_batch_is_an_error() -> None:
    spec = holotype_spec.load("gpt2").probe()
    built, cache = model(spec), model(spec).new_cache()
    built(ids(3, 2), cache=cache)
    with pytest.raises(ValueError, match="batch of 3, token_ids one of 2"):
        built(ids(2, 2), cache=cache)


def test_mask_must_cover_what_the_cache_holds() -> None:
    spec = holotype_spec.load("gpt2").probe()
    built, cache = model(spec), model(spec).new_cache()
    built(ids(3, 4), cache=cache)
    with pytest.raises(ValueError, match=r"cached \+ length\) = \(3, 6\), not \(3, 2\)"):
        built(ids(3, 2), cache=cache, attention_mask=torch.ones(3, 2))


def test_encoder_has_no_cache() -> None:
    spec = holotype_spec.load("bert-base-uncased").probe()
    built = model(spec)
    with pytest.raises(ValueError, match="is an encoder"):
        built.new_cache()
    with pytest.raises(ValueError, match="is an encoder"):
        built(ids(3, 4), cache=Cache.empty(2))
