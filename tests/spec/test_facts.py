"""The values of the specs against the published configurations, typed by hand from each config.json."""

import msgspec
import pytest

from holotype_spec import complete, load, originals
from holotype_spec.schema import (
    Alibi,
    Experts,
    LearnedPositions,
    Llama3Scaling,
    NoScaling,
    RelativeBuckets,
    Rotary,
    Scaling,
    SlidingWindow,
    TwoDimensionalPositions,
    TwoDimensionalRotary,
    YarnScaling,
)

# name: layers, hidden_size, heads, kv_heads, head_dim, ffn_size, vocab_size, max_positions, eps
PUBLISHED = {
    "gpt2": (12, 768, 12, 12, 64, 3072, 50257, 1024, 1e-5),
    "gpt2-medium": (24, 1024, 16, 16, 64, 4096, 50257, 1024, 1e-5),
    "gpt2-large": (36, 1280, 20, 20, 64, 5120, 50257, 1024, 1e-5),
    "gpt2-xl": (48, 1600, 25, 25, 64, 6400, 50257, 1024, 1e-5),
    "bert-base-uncased": (12, 768, 12, 12, 64, 3072, 30522, 512, 1e-12),
    "bert-large-uncased": (24, 1024, 16, 16, 64, 4096, 30522, 512, 1e-12),
    "bert-base-cased": (12, 768, 12, 12, 64, 3072, 28996, 512, 1e-12),
    "bert-large-cased": (24, 1024, 16, 16, 64, 4096, 28996, 512, 1e-12),
    "biobert-base-cased": (12, 768, 12, 12, 64, 3072, 28996, 512, 1e-12),
    "transformer-base": (6, 512, 8, 8, 64, 2048, 37000, 256, 1e-6),
    "transformer-big": (6, 1024, 16, 16, 64, 4096, 37000, 256, 1e-6),
    "bart-base": (6, 768, 12, 12, 64, 3072, 50265, 1024, 1e-5),
    "bart-large": (12, 1024, 16, 16, 64, 4096, 50265, 1024, 1e-5),
    "mbart-large-cc25": (12, 1024, 16, 16, 64, 4096, 250027, 1024, 1e-5),
    "mbart-large-50": (12, 1024, 16, 16, 64, 4096, 250054, 1024, 1e-5),
    "mass-base-uncased": (6, 768, 12, 12, 64, 3072, 30522, 512, 1e-5),
    "mass-middle-uncased": (6, 1024, 16, 16, 64, 4096, 30522, 512, 1e-5),
    "st-moe-32b": (24, 5120, 64, 64, 128, 20480, 32128, 512, 1e-6),
    "alexatm-20b": (32, 4096, 32, 32, 128, 16384, 150000, 1024, 1e-12),
    "albert-base-v1": (12, 768, 12, 12, 64, 3072, 30000, 512, 1e-12),
    "albert-large-v1": (24, 1024, 16, 16, 64, 4096, 30000, 512, 1e-12),
    "albert-xlarge-v1": (24, 2048, 16, 16, 128, 8192, 30000, 512, 1e-12),
    "albert-xxlarge-v1": (12, 4096, 64, 64, 64, 16384, 30000, 512, 1e-12),
    "albert-base-v2": (12, 768, 12, 12, 64, 3072, 30000, 512, 1e-12),
    "albert-large-v2": (24, 1024, 16, 16, 64, 4096, 30000, 512, 1e-12),
    "albert-xlarge-v2": (24, 2048, 16, 16, 128, 8192, 30000, 512, 1e-12),
    "albert-xxlarge-v2": (12, 4096, 64, 64, 64, 16384, 30000, 512, 1e-12),
    "electra-small-discriminator": (12, 256, 4, 4, 64, 1024, 30522, 512, 1e-12),
    "electra-base-discriminator": (12, 768, 12, 12, 64, 3072, 30522, 512, 1e-12),
    "electra-large-discriminator": (24, 1024, 16, 16, 64, 4096, 30522, 512, 1e-12),
    "electra-small-generator": (12, 256, 4, 4, 64, 1024, 30522, 512, 1e-12),
    "electra-base-generator": (12, 256, 4, 4, 64, 1024, 30522, 512, 1e-12),
    "electra-large-generator": (24, 256, 4, 4, 64, 1024, 30522, 512, 1e-12),
    "deberta-base": (12, 768, 12, 12, 64, 3072, 50265, 512, 1e-7),
    "deberta-large": (24, 1024, 16, 16, 64, 4096, 50265, 512, 1e-7),
    "xlm-mlm-en-2048": (12, 2048, 16, 16, 128, 8192, 30145, 512, 1e-12),
    "xlnet-base-cased": (12, 768, 12, 12, 64, 3072, 32000, 512, 1e-12),
    "xlnet-large-cased": (24, 1024, 16, 16, 64, 4096, 32000, 512, 1e-12),
    "unilm-v1-base-cased": (12, 768, 12, 12, 64, 3072, 28996, 512, 1e-5),
    "unilm-v1-large-cased": (24, 1024, 16, 16, 64, 4096, 28996, 512, 1e-5),
    "t5-v1_1-small": (8, 512, 6, 6, 64, 1024, 32128, 512, 1e-6),
    "t5-v1_1-base": (12, 768, 12, 12, 64, 2048, 32128, 512, 1e-6),
    "t5-v1_1-large": (24, 1024, 16, 16, 64, 2816, 32128, 512, 1e-6),
    "t5-v1_1-xl": (24, 2048, 32, 32, 64, 5120, 32128, 512, 1e-6),
    "t5-v1_1-xxl": (24, 4096, 64, 64, 64, 10240, 32128, 512, 1e-6),
    "flan-t5-small": (8, 512, 6, 6, 64, 1024, 32128, 512, 1e-6),
    "flan-t5-base": (12, 768, 12, 12, 64, 2048, 32128, 512, 1e-6),
    "flan-t5-large": (24, 1024, 16, 16, 64, 2816, 32128, 512, 1e-6),
    "flan-t5-xl": (24, 2048, 32, 32, 64, 5120, 32128, 512, 1e-6),
    "flan-t5-xxl": (24, 4096, 64, 64, 64, 10240, 32128, 512, 1e-6),
    "t0-3b": (24, 2048, 32, 32, 64, 5120, 32128, 512, 1e-6),
    "t0-11b": (24, 4096, 64, 64, 64, 10240, 32128, 512, 1e-6),
    "mt5-small": (8, 512, 6, 6, 64, 1024, 250112, 1024, 1e-6),
    "mt5-base": (12, 768, 12, 12, 64, 2048, 250112, 1024, 1e-6),
    "mt5-large": (24, 1024, 16, 16, 64, 2816, 250112, 1024, 1e-6),
    "mt5-xl": (24, 2048, 32, 32, 64, 5120, 250112, 1024, 1e-6),
    "mt5-xxl": (24, 4096, 64, 64, 64, 10240, 250112, 1024, 1e-6),
    "distilbert-base-uncased": (6, 768, 12, 12, 64, 3072, 30522, 512, 1e-12),
    "roberta-base": (12, 768, 12, 12, 64, 3072, 50265, 512, 1e-5),
    "roberta-large": (24, 1024, 16, 16, 64, 4096, 50265, 512, 1e-5),
    "gpt-1": (12, 768, 12, 12, 64, 3072, 40478, 512, 1e-5),
    "opt-350m": (24, 1024, 16, 16, 64, 4096, 50272, 2048, 1e-5),
    "baichuan-7b": (32, 4096, 32, 32, 128, 11008, 64000, 4096, 1e-6),
    "baichuan-13b": (40, 5120, 40, 40, 128, 13696, 64000, 4096, 1e-6),
    "qwen-1.8b": (24, 2048, 16, 16, 128, 5504, 151936, 8192, 1e-6),
    "qwen-7b": (32, 4096, 32, 32, 128, 11008, 151936, 8192, 1e-6),
    "qwen-14b": (40, 5120, 40, 40, 128, 13696, 152064, 2048, 1e-6),
    "qwen-72b": (80, 8192, 64, 64, 128, 24576, 152064, 32768, 1e-6),
    "chatglm2-6b": (28, 4096, 32, 2, 128, 13696, 65024, 32768, 1e-5),
    "chatglm3-6b": (28, 4096, 32, 2, 128, 13696, 65024, 8192, 1e-5),
    "glm-4-9b": (40, 4096, 32, 2, 128, 13696, 151552, 8192, 1.5625e-7),
    "chatglm-6b": (28, 4096, 32, 32, 128, 16384, 130528, 2048, 1e-5),
    "glm-base": (12, 768, 12, 12, 64, 3072, 30592, 512, 1e-5),
    "glm-large": (24, 1024, 16, 16, 64, 4096, 30592, 512, 1e-5),
    "glm-410m": (30, 1024, 16, 16, 64, 4096, 30592, 512, 1e-5),
    "glm-515m": (30, 1152, 18, 18, 64, 4608, 30592, 512, 1e-5),
    "glm-2b": (36, 2048, 32, 32, 64, 8192, 30592, 1024, 1e-5),
    "glm-10b": (48, 4096, 64, 64, 64, 16384, 50304, 1024, 1e-5),
    "glm-130b": (70, 12288, 96, 96, 128, 32768, 150528, 2048, 1e-5),
    "mt-nlg-530b": (105, 20480, 128, 128, 160, 81920, 50257, 2048, 1e-5),
    "yi-9b": (48, 4096, 32, 4, 128, 11008, 64000, 4096, 1e-6),
    "codellama-70b": (80, 8192, 64, 8, 128, 28672, 32016, 16384, 1e-5),
    "gpt-j-6b": (28, 4096, 16, 16, 256, 16384, 50400, 2048, 1e-5),
    "mixtral-8x7b": (32, 4096, 32, 8, 128, 14336, 32000, 32768, 1e-5),
    "mixtral-8x22b": (56, 6144, 48, 8, 128, 16384, 32000, 65536, 1e-5),
    "deepseek-v2": (60, 5120, 128, 128, 192, 12288, 102400, 163840, 1e-6),
    "deepseek-v2-lite": (27, 2048, 16, 16, 192, 10944, 102400, 163840, 1e-6),
    "deepseek-v3": (61, 7168, 128, 128, 192, 18432, 129280, 163840, 1e-6),
    "bloom-560m": (24, 1024, 16, 16, 64, 4096, 250880, 2048, 1e-5),
    "bloom-1b1": (24, 1536, 16, 16, 96, 6144, 250880, 2048, 1e-5),
    "bloom-1b7": (24, 2048, 16, 16, 128, 8192, 250880, 2048, 1e-5),
    "bloom-3b": (30, 2560, 32, 32, 80, 10240, 250880, 2048, 1e-5),
    "bloom-7b1": (30, 4096, 32, 32, 128, 16384, 250880, 2048, 1e-5),
    "bloom-176b": (70, 14336, 112, 112, 128, 57344, 250880, 2048, 1e-5),
    "opt-125m": (12, 768, 12, 12, 64, 3072, 50272, 2048, 1e-5),
    "opt-1.3b": (24, 2048, 32, 32, 64, 8192, 50272, 2048, 1e-5),
    "opt-2.7b": (32, 2560, 32, 32, 80, 10240, 50272, 2048, 1e-5),
    "opt-6.7b": (32, 4096, 32, 32, 128, 16384, 50272, 2048, 1e-5),
    "opt-13b": (40, 5120, 40, 40, 128, 20480, 50272, 2048, 1e-5),
    "opt-30b": (48, 7168, 56, 56, 128, 28672, 50272, 2048, 1e-5),
    "opt-66b": (64, 9216, 72, 72, 128, 36864, 50272, 2048, 1e-5),
    "opt-175b": (96, 12288, 96, 96, 128, 49152, 50272, 2048, 1e-5),
    "t5-small": (6, 512, 8, 8, 64, 2048, 32128, 512, 1e-6),
    "t5-base": (12, 768, 12, 12, 64, 3072, 32128, 512, 1e-6),
    "t5-large": (24, 1024, 16, 16, 64, 4096, 32128, 512, 1e-6),
    "t5-3b": (24, 1024, 32, 32, 128, 16384, 32128, 512, 1e-6),
    "t5-11b": (24, 1024, 128, 128, 128, 65536, 32128, 512, 1e-6),
    "llama-7b": (32, 4096, 32, 32, 128, 11008, 32000, 2048, 1e-6),
    "open-llama-3b": (26, 3200, 32, 32, 100, 8640, 32000, 2048, 1e-6),
    "llama-13b": (40, 5120, 40, 40, 128, 13824, 32000, 2048, 1e-6),
    "llama-30b": (60, 6656, 52, 52, 128, 17920, 32000, 2048, 1e-6),
    "llama-65b": (80, 8192, 64, 64, 128, 22016, 32000, 2048, 1e-5),
    "llama3.1-8b": (32, 4096, 32, 8, 128, 14336, 128256, 131072, 1e-5),
    "llama3.1-70b": (80, 8192, 64, 8, 128, 28672, 128256, 131072, 1e-5),
    "llama3.1-405b": (126, 16384, 128, 8, 128, 53248, 128256, 131072, 1e-5),
    "llama3.2-1b": (16, 2048, 32, 8, 64, 8192, 128256, 131072, 1e-5),
    "llama3.2-3b": (28, 3072, 24, 8, 128, 8192, 128256, 131072, 1e-5),
    "alpaca-7b": (32, 4096, 32, 32, 128, 11008, 32001, 2048, 1e-6),
    "vicuna-7b": (32, 4096, 32, 32, 128, 11008, 32000, 2048, 1e-6),
    "vicuna-13b": (40, 5120, 40, 40, 128, 13824, 32000, 2048, 1e-6),
    "llama2-7b": (32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e-5),
    "llama2-13b": (40, 5120, 40, 40, 128, 13824, 32000, 4096, 1e-5),
    "llama2-34b": (48, 8192, 64, 8, 128, 22016, 32000, 4096, 1e-5),
    "llama2-70b": (80, 8192, 64, 8, 128, 28672, 32000, 4096, 1e-5),
    "llama3-8b": (32, 4096, 32, 8, 128, 14336, 128256, 8192, 1e-5),
    "llama3-70b": (80, 8192, 64, 8, 128, 28672, 128256, 8192, 1e-5),
    "codellama-7b": (32, 4096, 32, 32, 128, 11008, 32016, 16384, 1e-5),
    "codellama-13b": (40, 5120, 40, 40, 128, 13824, 32016, 16384, 1e-5),
    "codellama-34b": (48, 8192, 64, 8, 128, 22016, 32000, 16384, 1e-5),
    "codellama-7b-python": (32, 4096, 32, 32, 128, 11008, 32000, 16384, 1e-5),
    "codellama-13b-python": (40, 5120, 40, 40, 128, 13824, 32000, 16384, 1e-5),
    "mistral-7b-v0.1": (32, 4096, 32, 8, 128, 14336, 32000, 32768, 1e-5),
    "mistral-7b-v0.3": (32, 4096, 32, 8, 128, 14336, 32768, 32768, 1e-5),
    "yi-6b": (32, 4096, 32, 4, 128, 11008, 64000, 4096, 1e-5),
    "yi-34b": (60, 7168, 56, 8, 128, 20480, 64000, 4096, 1e-5),
    "deepseek-llm-7b": (30, 4096, 32, 32, 128, 11008, 102400, 4096, 1e-6),
    "deepseek-llm-67b": (95, 8192, 64, 8, 128, 22016, 102400, 4096, 1e-6),
    "qwen1.5-0.5b": (24, 1024, 16, 16, 64, 2816, 151936, 32768, 1e-6),
    "qwen1.5-1.8b": (24, 2048, 16, 16, 128, 5504, 151936, 32768, 1e-6),
    "qwen1.5-4b": (40, 2560, 20, 20, 128, 6912, 151936, 32768, 1e-6),
    "qwen1.5-7b": (32, 4096, 32, 32, 128, 11008, 151936, 32768, 1e-6),
    "qwen1.5-14b": (40, 5120, 40, 40, 128, 13696, 152064, 32768, 1e-6),
    "qwen1.5-32b": (64, 5120, 40, 8, 128, 27392, 152064, 32768, 1e-6),
    "qwen1.5-72b": (80, 8192, 64, 64, 128, 24576, 152064, 32768, 1e-6),
    "qwen1.5-110b": (80, 8192, 64, 8, 128, 49152, 152064, 32768, 1e-6),
    "qwen2-0.5b": (24, 896, 14, 2, 64, 4864, 151936, 131072, 1e-6),
    "qwen2-1.5b": (28, 1536, 12, 2, 128, 8960, 151936, 131072, 1e-6),
    "qwen2-7b": (28, 3584, 28, 4, 128, 18944, 152064, 131072, 1e-6),
    "qwen2-72b": (80, 8192, 64, 8, 128, 29568, 152064, 131072, 1e-5),
    "qwen2.5-0.5b": (24, 896, 14, 2, 64, 4864, 151936, 32768, 1e-6),
    "qwen2.5-1.5b": (28, 1536, 12, 2, 128, 8960, 151936, 131072, 1e-6),
    "qwen2.5-3b": (36, 2048, 16, 2, 128, 11008, 151936, 32768, 1e-6),
    "qwen2.5-7b": (28, 3584, 28, 4, 128, 18944, 152064, 131072, 1e-6),
    "qwen2.5-14b": (48, 5120, 40, 8, 128, 13824, 152064, 131072, 1e-5),
    "qwen2.5-32b": (64, 5120, 40, 8, 128, 27648, 152064, 131072, 1e-5),
    "qwen2.5-72b": (80, 8192, 64, 8, 128, 29568, 152064, 131072, 1e-5),
}


def test_every_original_spec_is_held_against_what_was_published() -> None:
    assert set(originals()) <= set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_and_epsilon_are_the_published_ones(name: str) -> None:
    spec = load(name)
    assert PUBLISHED[name] == (
        spec.layers,
        spec.hidden_size,
        spec.heads,
        spec.kv_heads,
        spec.head_dim,
        spec.ffn_size,
        spec.vocab_size,
        spec.max_positions,
        spec.architecture.normalization.eps,
    )


def test_a_variant_that_overrides_one_constant_inherits_the_others() -> None:
    small, large = load("llama-7b").architecture, load("llama-65b").architecture
    assert (small.normalization.eps, large.normalization.eps) == (1e-6, 1e-5)
    assert large.normalization.final is True
    assert large.attention == small.attention


def rotary(theta: float, scaling: Scaling | None = None) -> Rotary:
    return Rotary(theta=theta, pairing="half-split", fraction=1.0, scaling=scaling or NoScaling())


def by_factor(factor: float) -> Llama3Scaling:
    return Llama3Scaling(
        factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
    )


def yarn(mscale: float) -> Rotary:
    scaling = YarnScaling(
        factor=40.0,
        original_max_positions=4096,
        beta_fast=32.0,
        beta_slow=1.0,
        mscale=mscale,
        mscale_all_dim=mscale,
    )
    return Rotary(theta=10_000.0, pairing="interleaved", fraction=1.0, scaling=scaling)


# experts, of which a token uses, shared ones, their size, the first layer that has them
EXPERTS = {
    "mixtral-8x7b": (8, 2, 0, 14_336, 0),
    "mixtral-8x22b": (8, 2, 0, 16_384, 0),
    "deepseek-v2": (160, 6, 2, 1536, 1),
    "deepseek-v2-lite": (64, 6, 2, 1408, 1),
    "deepseek-v3": (256, 8, 1, 2048, 3),
}


@pytest.mark.parametrize("name", list(EXPERTS))
def test_the_experts_are_those_of_the_published_configuration(name: str) -> None:
    blocks = load(name).architecture.feed_forward
    assert isinstance(blocks, Experts)
    assert EXPERTS[name] == (
        blocks.experts,
        blocks.active_experts,
        blocks.shared_experts,
        blocks.expert_size,
        blocks.first_layer,
    )


def test_the_positions_are_those_of_the_papers() -> None:
    found = {spec.name: spec.architecture.positions for spec in complete()}
    assert found["gpt2-xl"] == found["bert-base-uncased"] == LearnedPositions(offset=0)
    assert found["gpt-1"] == found["distilbert-base-uncased"] == LearnedPositions(offset=0)
    assert found["roberta-large"] == found["opt-175b"] == LearnedPositions(offset=2)
    assert found["t5-11b"] == RelativeBuckets(buckets=32, max_distance=128)
    assert found["llama-65b"] == found["llama2-70b"] == rotary(10_000.0)
    assert found["llama3-70b"] == rotary(500_000.0)
    assert found["llama3.1-8b"] == found["llama3.1-405b"] == rotary(500_000.0, by_factor(8.0))
    assert found["llama3.2-1b"] == found["llama3.2-3b"] == rotary(500_000.0, by_factor(32.0))
    million = rotary(1_000_000.0)
    assert found["codellama-34b"] == found["mistral-7b-v0.3"] == found["qwen2-7b"] == million
    assert found["qwen1.5-7b"] == found["qwen2.5-72b"] == million
    assert found["yi-6b"] == found["qwen1.5-4b"] == rotary(5_000_000.0)
    assert found["bloom-560m"] == found["bloom-176b"] == Alibi()
    half = Rotary(theta=10_000.0, pairing="interleaved", fraction=0.5, scaling=NoScaling())
    assert found["chatglm2-6b"] == found["chatglm3-6b"] == found["glm-4-9b"] == half
    assert found["chatglm-6b"] == TwoDimensionalRotary(theta=10_000.0)
    assert found["glm-large"] == TwoDimensionalPositions()
    assert found["glm-130b"] == found["baichuan-7b"] == found["yi-9b"] == found["llama-7b"]
    assert found["baichuan-13b"] == Alibi()
    assert found["gpt-j-6b"] == Rotary(
        theta=10_000.0, pairing="interleaved", fraction=0.25, scaling=NoScaling()
    )
    assert found["deepseek-v2"] == found["deepseek-v3"] == yarn(1.0)
    assert found["deepseek-v2-lite"] == yarn(0.707)
    assert found["mixtral-8x22b"] == million
    assert found["deepseek-llm-67b"] == found["vicuna-13b"] == found["llama-65b"]


def test_only_mistral_has_a_window() -> None:
    windows = {
        name: pattern.window
        for name in originals()
        if isinstance(pattern := load(name).architecture.attention.pattern, SlidingWindow)
    }
    assert windows == {"mistral-7b-v0.1": 4096}


# Those whose head is no language model's.
ENCODERS = (
    "albert-v1",
    "albert-v2",
    "bert",
    "distilbert",
    "electra",
    "electra-generator",
    "roberta",
    "unilm-v1",
)


def test_qwen_alone_reckons_with_inputs_longer_than_trained_by_their_logarithm() -> None:
    scale = "inverse-sqrt-head-dim-log-length"
    assert {n for n in originals() if load(n).architecture.attention.scale == scale} == {
        "qwen-1.8b",
        "qwen-7b",
        "qwen-14b",
    }


def test_only_t5_leaves_its_scores_unscaled_and_where_tied_scales_the_input_of_its_head() -> None:
    scales = {
        spec.family.name: (
            spec.architecture.attention.scale,
            getattr(spec.architecture.head, "input_scale", None),
        )
        for spec in map(load, originals())
    }
    assert scales.pop("t5-v1_1") == scales.pop("mt5") == scales.pop("st-moe") == ("none", "none")
    assert scales.pop("t5") == ("none", "inverse-sqrt-hidden-size")
    assert scales.pop("deberta") == ("inverse-sqrt-three-head-dims", None)
    for encoder in ENCODERS:
        assert scales.pop(encoder) == ("inverse-sqrt-head-dim", None)
    assert set(scales.values()) == {("inverse-sqrt-head-dim", "none")}


OLDER = (
    *ENCODERS,
    "bart",
    "mbart",
    "mass",
    "transformer",
    "deberta",
    "xlm",
    "xlnet",
    "bert",
    "bloom",
    "distilbert",
    "gpt",
    "gpt2",
    "opt",
    "roberta",
    "t5",
    "opt-350m",
    "chatglm",
    "glm",
    "glm-130b",
    "mt-nlg",
)


def test_the_embeddings_are_tied_but_in_the_llama_line_and_in_large_qwens() -> None:
    tied = {name for name in originals() if load(name).architecture.tied_embeddings}
    older = {name for name in originals() if load(name).family.name in OLDER}
    small = {
        "qwen1.5-0.5b",
        "qwen2-0.5b",
        "qwen2-1.5b",
        "qwen2.5-0.5b",
        "qwen2.5-1.5b",
        "qwen2.5-3b",
    }
    assert tied == older | small | {"llama3.2-1b", "llama3.2-3b"}


@pytest.mark.parametrize("name", originals())
def test_every_source_has_an_address_and_the_published_count_one_of_them(name: str) -> None:
    spec = load(name)
    assert all(source.url.startswith("https://") for source in spec.family.sources)
    assert spec.parameters.source in {source.id for source in spec.family.sources}


# family: residual, norm kind, embedding norm, final norm, feed-forward kind, activation, its bias,
# biased attention projections, dropout rate, token types; read off each model's published code.
MECHANISMS = {
    "bert": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 2),
    "distilbert": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 0),
    "roberta": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 1),
    "transformer": ("post-norm", "layer", False, False, "plain", "relu", True, 0, 0.1, 0),
    "transformer-big": ("post-norm", "layer", False, False, "plain", "relu", True, 0, 0.3, 0),
    "bart": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 0),
    "mbart": ("pre-norm", "layer", True, True, "plain", "gelu", True, 4, 0.1, 0),
    "mass": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 0),
    "st-moe": ("pre-norm", "rms", False, True, "experts", "gelu-tanh", False, 0, 0.0, 0),
    "alexatm": ("pre-norm", "layer", False, True, "plain", "gelu", True, 4, 0.1, 2),
    "albert-v1": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 2),
    "albert-xxlarge-v1": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.0, 2),
    "albert-v2": ("post-norm", "layer", True, False, "plain", "gelu-tanh", True, 4, 0.0, 2),
    "electra": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 2),
    "electra-generator": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 2),
    "deberta": ("post-norm", "layer", True, False, "plain", "gelu", True, 3, 0.1, 0),
    "xlm": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 0),
    "xlnet": ("post-norm", "layer", False, False, "plain", "gelu", True, 0, 0.1, 0),
    "unilm-v1": ("post-norm", "layer", True, False, "plain", "gelu", True, 4, 0.1, 6),
    "gpt": ("post-norm", "layer", False, False, "plain", "gelu-tanh", True, 4, 0.1, 0),
    "bloom": ("pre-norm", "layer", True, True, "plain", "gelu-tanh-rounded", True, 4, 0.0, 0),
    "opt-350m": ("post-norm", "layer", False, False, "plain", "relu", True, 4, 0.1, 0),
    "baichuan-7b": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "baichuan-13b": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "qwen": ("pre-norm", "rms", False, True, "gated", "silu", False, 3, 0.0, 0),
    "chatglm2": ("pre-norm", "rms", False, True, "gated", "silu", False, 3, 0.0, 0),
    "chatglm3": ("pre-norm", "rms", False, True, "gated", "silu", False, 3, 0.0, 0),
    "glm-4": ("pre-norm", "rms", False, True, "gated", "silu", False, 3, 0.0, 0),
    "chatglm": ("deep-norm", "layer", True, False, "plain", "gelu-tanh", True, 4, 0.0, 0),
    "glm": ("pre-norm", "layer", False, True, "plain", "gelu-tanh", True, 4, 0.1, 0),
    "glm-130b": ("deep-norm", "layer", True, False, "gated", "gelu", True, 4, 0.0, 0),
    "mt-nlg": ("pre-norm", "layer", False, True, "plain", "gelu-tanh-rounded", True, 4, 0.1, 0),
    "gpt-j": ("parallel", "layer", False, True, "plain", "gelu-tanh", True, 0, 0.0, 0),
    "mixtral": ("pre-norm", "rms", False, True, "experts", "silu", False, 0, 0.0, 0),
    "deepseek-v2": ("pre-norm", "rms", False, True, "experts", "silu", False, 0, 0.0, 0),
    "deepseek-v2-lite": ("pre-norm", "rms", False, True, "experts", "silu", False, 0, 0.0, 0),
    "deepseek-v3": ("pre-norm", "rms", False, True, "experts", "silu", False, 0, 0.0, 0),
    "opt": ("pre-norm", "layer", False, True, "plain", "relu", True, 4, 0.1, 0),
    "gpt2": ("pre-norm", "layer", False, True, "plain", "gelu-tanh", True, 4, 0.1, 0),
    "llama": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "open-llama": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "llama2": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "llama3": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "mistral": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "codellama": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "deepseek-llm": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "mistral-v0.3": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "yi": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "qwen1.5": ("pre-norm", "rms", False, True, "gated", "silu", False, 3, 0.0, 0),
    "qwen2": ("pre-norm", "rms", False, True, "gated", "silu", False, 3, 0.0, 0),
    "qwen2.5": ("pre-norm", "rms", False, True, "gated", "silu", False, 3, 0.0, 0),
    "llama3.1": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "llama3.2": ("pre-norm", "rms", False, True, "gated", "silu", False, 0, 0.0, 0),
    "t5-v1_1": ("pre-norm", "rms", False, True, "gated", "gelu-tanh", False, 0, 0.1, 0),
    "mt5": ("pre-norm", "rms", False, True, "gated", "gelu-tanh", False, 0, 0.1, 0),
    "t5": ("pre-norm", "rms", False, True, "plain", "relu", False, 0, 0.1, 0),
}


@pytest.mark.parametrize("name", originals())
def test_the_mechanisms_are_those_of_the_published_code(name: str) -> None:
    told = msgspec.to_builtins(load(name).architecture)
    norm, feed_forward = told["normalization"], told["feed_forward"]
    assert MECHANISMS.get(name, MECHANISMS[load(name).family.name]) == (
        told["residual"],
        norm["kind"],
        norm["embedding"],
        norm["final"],
        feed_forward["kind"],
        feed_forward["activation"],
        feed_forward["bias"],
        len(told["attention"]["biases"]),
        told["dropout"]["rate"],
        told["token_types"],
    )


def test_qwen_biases_queries_keys_and_values_and_no_output() -> None:
    for name in ("qwen1.5-7b", "qwen2-72b", "qwen2.5-0.5b"):
        assert load(name).architecture.attention.biases == ("query", "key", "value")


# Radford et al. 2018, section 4.1; google-research/bert, modeling.py; Raffel et al. 2019, section 2.1: within the
# feed-forward network, on the skip connection, on the attention weights, at the input and output of the stack.
# Liu et al. 2019, table 9; the code of DistilBERT, whose attention output has none; Zhang et al. 2022, section 2.2.
SITES = {
    "bert": {"embeddings", "attention", "residual"},
    "distilbert": {"embeddings", "attention", "feed-forward-output"},
    "roberta": {"embeddings", "attention", "residual"},
    "transformer": {"embeddings", "residual"},
    "bart": {"embeddings", "attention", "residual", "feed-forward"},
    "mbart": {"embeddings", "residual"},
    "mass": {"embeddings", "attention", "residual", "feed-forward"},
    "alexatm": {"embeddings", "residual"},
    "albert-v1": {"embeddings", "attention", "residual"},
    "albert-xxlarge-v1": set(),
    "electra": {"embeddings", "attention", "residual"},
    "electra-generator": {"embeddings", "attention", "residual"},
    "deberta": {"embeddings", "attention", "residual"},
    "xlm": {"embeddings", "attention", "residual"},
    "xlnet": {"embeddings", "attention", "residual", "feed-forward", "final"},
    "unilm-v1": {"embeddings", "attention", "residual"},
    "gpt": {"embeddings", "attention", "residual"},
    "opt": {"residual"},
    "opt-350m": {"residual"},
    "glm": {"embeddings", "attention", "residual"},
    "mt-nlg": {"embeddings", "attention", "residual"},
    "gpt2": {"embeddings", "attention", "residual"},
    "t5": {"embeddings", "attention", "residual", "feed-forward", "final"},
    "t5-v1_1": {"embeddings", "attention", "residual", "feed-forward", "final"},
    "mt5": {"embeddings", "attention", "residual", "feed-forward", "final"},
}


@pytest.mark.parametrize("name", originals())
def test_dropout_stands_where_the_paper_has_it(name: str) -> None:
    spec = load(name)
    expected = SITES.get(name, SITES.get(spec.family.name, set()))
    assert set(spec.architecture.dropout.sites) == expected


def test_a_decoder_with_a_source_starts_as_its_paper_or_code_says_and_no_other_has_a_start() -> (
    None
):
    starts = {
        load(name).family.name: load(name).architecture.decoder_start_id for name in originals()
    }
    assert [starts.pop(family) for family in ("t5", "t5-v1_1", "mt5", "st-moe")] == [0] * 4
    assert [starts.pop(family) for family in ("transformer", "bart", "alexatm")] == [0, 2, 2]
    assert [starts.pop(family) for family in ("mbart", "mass")] == ["last-label", "last-label"]
    assert set(starts.values()) == {"none"}


def test_the_embeddings_of_albert_and_electra_are_128_wide_or_those_of_the_discriminator() -> None:
    widths = {name: load(name).embedding_size for name in originals() if name.startswith("electra")}
    assert widths == {
        "electra-small-discriminator": 128,
        "electra-small-generator": 128,
        "electra-base-discriminator": 768,
        "electra-base-generator": 768,
        "electra-large-discriminator": 1024,
        "electra-large-generator": 1024,
    }
    assert {load(name).embedding_size for name in originals() if name.startswith("albert")} == {128}


def test_only_albert_shares_its_layers() -> None:
    shared = {name for name in originals() if load(name).architecture.layer_sharing != "none"}
    assert shared == {name for name in originals() if name.startswith("albert")}


def test_only_the_first_transformer_and_the_fairseq_line_scale_their_embeddings() -> None:
    scaled = {
        load(name).family.name
        for name in originals()
        if load(name).architecture.embeddings.scale != "none"
    }
    assert scaled == {"transformer", "mbart", "mass"}


def test_only_the_encoder_of_alexatm_is_deeper_than_its_decoder() -> None:
    uneven = {
        name: load(name).encoder_depth
        for name in originals()
        if load(name).architecture.structure == "encoder-decoder"
        and load(name).encoder_depth != load(name).layers
    }
    assert uneven == {"alexatm-20b": 46}
