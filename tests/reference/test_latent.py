"""Attention over latent vectors: what it caches, what its heads share, and that it may be computed in another order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import einsum
from torch import Tensor

import holotype_spec
from holotype_reference.attention import LayerInputs, Positioning
from holotype_reference.latent import LatentAttention
from holotype_reference.masks import Mask
from holotype_reference.model import Model, build
from holotype_reference.weights import random_weights
from holotype_spec import schema
from holotype_spec.costs import kv_cache_bytes

NAMES = ["deepseek-v2-lite", "deepseek-v2", "deepseek-v3"]


def model(name: str, path: Any = "fused") -> Model:
    spec = holotype_spec.load(name).probe()
    built = build(spec, path=path).double().eval()
    built.load_state_dict(random_weights(spec, seed=1))
    return built


def ids(rows: int = 3, length: int = 19) -> Tensor:
    return torch.randint(1, 97, (rows, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NAMES)
def test_the_cache_holds_as_much_a_token_as_the_costs_say(name: str) -> None:
    built = model(name)
    cache = built.new_cache()
    with torch.no_grad():
        built(ids(1), cache=cache)
    held = [layer.self_attention for layer in cache.layers]
    numbers = sum(x.numel() for each in held for x in (each.keys, each.values) if x is not None)
    assert numbers * 4 == kv_cache_bytes(built.spec, 19, "float32")
    kind = built.spec.architecture.attention
    assert isinstance(kind, schema.LatentAttention)
    assert numbers == 19 * built.spec.layers * (kind.kv_rank + kind.rope_head_dim)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chunks", [[1] * 19, [7, 1, 11], [18, 1]], ids=str)
def test_decoding_in_chunks_equals_the_full_pass(name: str, chunks: list[int]) -> None:
    built, tokens = model(name), ids()
    cache = built.new_cache()
    with torch.no_grad():
        full = built(tokens).logits
        read = [built(chunk, cache=cache).logits for chunk in tokens.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(read, dim=1), full, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_all_paths_and_their_gradients_agree_though_values_have_another_width(name: str) -> None:
    expected = model(name, "eager")
    expected(ids()).logits.sin().sum().backward()
    for path in ("fused", "blocks"):
        found = model(name, path)
        found(ids()).logits.sin().sum().backward()
        for ours, other in zip(found.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-9, atol=1e-9)


def attention(name: str) -> LatentAttention:
    block = model(name).decoder.layers[0].self_attention
    assert isinstance(block, LatentAttention)
    return block


def test_all_heads_share_the_rotary_key_and_it_stands_at_the_end() -> None:
    block = attention("deepseek-v2")
    latent, rotary_key = torch.randn(2, 1, 5, 12).double(), torch.randn(2, 1, 5, 10).double()
    key, value = block.expand(latent, rotary_key)
    assert key.shape == (2, 5, 5, 16)
    assert value.shape == (2, 5, 5, 9)
    for head in range(5):
        assert torch.equal(key[:, head, :, 6:], rotary_key[:, 0])
    own = torch.nn.functional.linear(latent[:, 0], block.key.weight)
    assert torch.equal(key[:, 3, :, :6], own[..., 18:24])


def test_the_matrices_of_keys_and_values_may_be_taken_up_by_those_of_queries_and_output() -> None:
    """As the paper computes it in decoding (section 2.1.2): latent vectors stand for keys and for values."""
    block, x = attention("deepseek-v2"), torch.randn(2, 5, 40).double()
    causal = Mask(
        pattern=schema.Causal(), queries=5, keys=5, cached=0, padding=None, device=x.device
    )
    with torch.no_grad():
        given = LayerInputs(mask=causal, positions=Positioning(), source=None)
        found = block(x, given, cache=None)
        still, turning = block.parts(block.queries(x))
        latent, shared = block.latent_norm(block.latent(x)), block.rotary_key(x)
        into_keys = block.key.weight.view(5, 6, 12)
        query = einsum(still, into_keys, "b h i n, h n r -> b h i r")
        scores = einsum(query, latent, "b h i r, b j r -> b h i j")
        scores = scores + einsum(turning, shared, "b h i r, b j r -> b h i j")
        hidden = torch.ones(5, 5).triu(1).bool()
        weights = (scores * block.scale).masked_fill(hidden, -torch.inf).softmax(dim=-1)
        mixed = einsum(weights, latent, "b h i j, b j r -> b h i r")
        into_output = einsum(
            block.output.weight.view(40, 5, 9),
            block.value.weight.view(5, 9, 12),
            "d h v, h v r -> d h r",
        )
        expected = einsum(mixed, into_output, "b h i r, d h r -> b i d")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
