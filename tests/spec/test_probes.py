"""Probes: small enough to run at once, and shaped so that a mistake shows."""

import math

import msgspec
import pytest

from holotype_spec import count_parameters, load, originals, probe
from holotype_spec.broken_rules import broken_rules
from holotype_spec.schema import (
    Disentangled,
    Dropout,
    Experts,
    GatedRelativeBuckets,
    Llama3Scaling,
    NoScaling,
    Positions,
    RelativeBuckets,
    Rotary,
    SlidingWindow,
    YarnScaling,
)


@pytest.mark.parametrize("name", originals())
def test_no_two_sizes_of_a_probe_are_equal_but_where_the_family_says_so(name: str) -> None:
    small = load(name).probe()
    sizes = [small.layers, small.heads, small.head_dim, small.hidden_size, small.ffn_size]
    sizes += [small.vocab_size, small.max_positions]
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize("name", originals())
def test_a_probe_keeps_every_rule_of_a_spec_file_but_that_of_dropout(name: str) -> None:
    tree = msgspec.to_builtins(load(name).probe())
    tree = {**tree, "architecture": msgspec.json.decode(msgspec.json.encode(tree["architecture"]))}
    document = {"family": tree["family"], "architecture": tree["architecture"], "variants": [{}]}
    broken = [problem.key for problem in broken_rules(document, {0: tree}, "probe")]
    drops = bool(load(name).architecture.dropout.sites)
    assert broken == ([] if drops else ["architecture.dropout.sites"])


@pytest.mark.parametrize("name", originals())
def test_a_probe_changes_sizes_distances_and_dropout_alone(name: str) -> None:
    full, small = load(name).architecture, load(name).probe().architecture
    assert small.dropout == Dropout(rate=0.5, sites=full.dropout.sites)
    assert small.decoder_start_id == full.decoder_start_id
    assert small.normalization == full.normalization
    if not isinstance(full.feed_forward, Experts):
        assert small.feed_forward == full.feed_forward
    assert small.head == full.head
    assert small.attention.scale == full.attention.scale
    assert type(small.attention.pattern) is type(full.attention.pattern)
    distances = RelativeBuckets | GatedRelativeBuckets | Disentangled
    if not isinstance(full.positions, distances) and not scaled(full.positions):
        assert small.positions == full.positions


def scaled(positions: Positions) -> bool:
    return isinstance(positions, Rotary) and not isinstance(positions.scaling, NoScaling)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v2", "deepseek-v2-lite", "deepseek-v3"])
def test_a_probe_of_experts_has_some_that_a_token_leaves_idle_and_both_kinds_of_layers(
    name: str,
) -> None:
    full, small = load(name), load(name).probe()
    before, after = full.architecture.feed_forward, small.architecture.feed_forward
    assert isinstance(before, Experts)
    assert isinstance(after, Experts)
    assert 1 < after.active_experts < after.experts
    assert {small.has_experts(layer) for layer in range(small.layers)} == {
        full.has_experts(layer) for layer in range(full.layers)
    }
    grouped = before.routing.groups > 1
    assert (1 < after.routing.active_groups < after.routing.groups) == grouped
    for constant in ("activation", "dense", "expert", "every", "shared_experts"):
        assert getattr(after, constant) == getattr(before, constant)


def test_several_pairs_turn_in_a_head_of_which_only_a_part_does() -> None:
    small = load("gpt-j-6b").probe()
    assert small.rotary_dim == 4
    assert small.head_dim == 16


@pytest.mark.parametrize(
    "name", [name for name in originals() if name.startswith(("llama3.1", "llama3.2"))]
)
def test_a_scaling_starts_inside_a_probe_and_all_its_cases_occur(name: str) -> None:
    full, small = load(name).architecture.positions, load(name).probe()
    positions = small.architecture.positions
    assert isinstance(full, Rotary)
    assert isinstance(positions, Rotary)
    scaling = positions.scaling
    assert isinstance(scaling, Llama3Scaling)
    assert scaling.original_max_positions < small.max_positions
    restored = msgspec.structs.replace(scaling, original_max_positions=8192)
    assert msgspec.structs.replace(positions, scaling=restored) == full
    turns = [
        scaling.original_max_positions
        / (2 * math.pi)
        * positions.theta ** (-2 * i / small.head_dim)
        for i in range(small.head_dim // 2)
    ]
    fast = [n for n in turns if n > scaling.high_freq_factor]
    slow = [n for n in turns if n < scaling.low_freq_factor]
    assert (len(fast), len(slow)) == (1, 6)  # of eight: one lies between


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "deepseek-v2", "deepseek-v3"])
def test_of_the_pairs_that_yarn_scales_some_are_fast_some_slow_and_some_between(name: str) -> None:
    small = load(name).probe()
    positions = small.architecture.positions
    assert isinstance(positions, Rotary)
    assert isinstance(positions.scaling, YarnScaling)
    # Pair i turns n times within the original length where i = d ln(length / 2 pi n) / (2 ln theta).
    fast, slow = (
        small.rotary_dim
        * math.log(positions.scaling.original_max_positions / (2 * math.pi * n))
        / (2 * math.log(positions.theta))
        for n in (positions.scaling.beta_fast, positions.scaling.beta_slow)
    )
    # Rounded inwards the bounds are other pairs, and both ways a pair lies between.
    assert (math.floor(fast), math.ceil(slow), small.rotary_dim // 2) == (1, 4, 5)


@pytest.mark.parametrize("name", originals())
def test_a_probe_is_tiny(name: str) -> None:
    assert count_parameters(load(name).probe()).total < 150_000


def test_grouped_queries_stay_grouped_and_separate_ones_separate() -> None:
    grouped, separate = load("llama2-70b").probe(), load("llama2-7b").probe()
    assert 1 < grouped.kv_heads < grouped.heads
    assert separate.kv_heads == separate.heads
    assert probe(load("llama2-70b"), groups=1).kv_heads == 1
    # A swap of two axes shows where they differ in length: an odd number of heads, and of another size than a head's.
    wide = probe(load("gpt-j-6b"))
    assert (wide.heads, wide.head_dim, wide.hidden_size) == (3, 16, 48)


def test_the_distances_of_a_probe_fit_into_a_short_input() -> None:
    pattern = load("mistral-7b").probe().architecture.attention.pattern
    positions = load("t5-small").probe().architecture.positions
    assert isinstance(pattern, SlidingWindow)
    assert isinstance(positions, RelativeBuckets)
    assert max(pattern.window, positions.max_distance) < 20


def test_a_probe_of_a_family_with_its_own_head_width_has_heads_of_another_total_width() -> None:
    small = load("t5-small").probe()
    assert small.heads * small.head_dim != small.hidden_size


@pytest.mark.parametrize("name", ["bloom-560m", "baichuan-13b"])
def test_some_slopes_of_a_probe_are_not_exact_in_bfloat16_as_some_of_the_model_are_not(
    name: str,
) -> None:
    # Press et al. 2022, section 3: n = 2^k heads have the slopes 2^(-8/n), 2^(-16/n), …; eight of them, powers of two.
    heads = probe(load(name)).heads
    assert heads > 8
    assert heads & (heads - 1)
