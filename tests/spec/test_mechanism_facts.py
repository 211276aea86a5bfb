"""What each mechanism says of itself, by hand: facts that choose inputs and properties, and the sizes of its probe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from holotype_spec import load, parameter_table
from holotype_spec.schema.attention import AttentionMechanism
from holotype_spec.schema.feed_forward import FeedForwardMechanism, RoutingMechanism
from holotype_spec.schema.heads import HeadMechanism
from holotype_spec.schema.mechanism import Mechanism, Probing
from holotype_spec.schema.patterns import AlternatingBanded, AttentionPattern, SlidingWindow
from holotype_spec.schema.positions import (
    Disentangled,
    GatedRelativeBuckets,
    LayerwiseRelativeBuckets,
    PositionMechanism,
    RelativeBuckets,
    Rotary,
)
from holotype_spec.schema.probing import LONG
from holotype_spec.schema.rows import Parameter
from holotype_spec.schema.scaling import DynamicScaling, LinearScaling, NoScaling, RotaryScaling

PROBING = Probing(layers=2, rows=41, window=5)

# Mechanism -> those of the facts that are true of it. Of every other class of its kind they are false.
POSITIONS = {
    "LearnedPositions": {"added", "trained"},
    "Sinusoidal": {"added"},
    "Rotary": {"rotates"},
    "RelativeBuckets": {"between_tokens", "biases_scores"},
    "Alibi": {"between_tokens", "biases_scores"},
    "LayerwiseRelativeBuckets": {"biases_scores"},
    "TwoDimensionalPositions": {"added", "trained"},
    "TwoDimensionalRotary": {"rotates"},
    "GatedRelativeBuckets": {"biases_scores"},
    "Disentangled": {"between_tokens"},
    "TransformerXLPositions": {"between_tokens"},
}
PATTERNS = {
    "Permutation": {"permuted"},
    "MixtureOfMasks": {"has_prefix", "mixed"},
    "PrefixCausal": {"has_prefix"},
}
HEADS = {
    "MaskedLanguageModelHead": {"masked"},
    "EnhancedMaskDecoder": {"adds_positions", "masked"},
    "ReplacedTokenHead": {"detects"},
}
FACTS: tuple[tuple[type[Mechanism], tuple[str, ...], dict[str, set[str]]], ...] = (
    (
        PositionMechanism,
        ("added", "trained", "between_tokens", "rotates", "biases_scores"),
        POSITIONS,
    ),
    (AttentionPattern, ("has_prefix", "mixed", "permuted"), PATTERNS),
    (HeadMechanism, ("adds_positions", "masked", "detects"), HEADS),
    (AttentionMechanism, ("wide_probe",), {"LatentAttention": {"wide_probe"}}),
    (RoutingMechanism, ("corrected",), {"SigmoidRouting": {"corrected"}}),
    (
        RotaryScaling,
        ("wide_probe", "grows"),
        {
            "Llama3Scaling": {"wide_probe"},
            "YarnScaling": {"wide_probe"},
            "DynamicScaling": {"wide_probe", "grows"},
        },
    ),
)


def kinds() -> Iterator[Any]:
    for base, names, known in FACTS:
        ours = [each for each in base.__subclasses__() if each.__module__ == base.__module__]
        for kind in (base, *ours):
            yield pytest.param(kind, names, known.get(kind.__name__, set()), id=kind.__name__)


@pytest.mark.parametrize(("kind", "names", "expected"), list(kinds()))
def test_a_mechanism_has_these_facts_and_no_others(
    kind: Any, names: tuple[str, ...], expected: set[str]
) -> None:
    assert {name for name in names if getattr(kind, name) is True} == expected
    assert all(isinstance(getattr(kind, name), bool) for name in names)


def test_every_mechanism_of_the_tables_is_one() -> None:
    for base, _, known in FACTS:
        assert known.keys() <= {each.__name__ for each in base.__subclasses__()}


@pytest.mark.parametrize("kind", PositionMechanism.__subclasses__(), ids=lambda each: each.__name__)
def test_a_token_has_two_places_in_two_dimensions_alone(kind: type[PositionMechanism]) -> None:
    assert kind.places == (2 if kind.__name__.startswith("TwoDimensional") else 1)


class NoPositions(PositionMechanism, tag="made-up", tag_field="kind"):
    """Positions that say nothing of themselves."""


class NoHead(HeadMechanism, tag="made-up", tag_field="kind"):
    """The same of a head."""


def test_positions_that_say_nothing_are_nothing_special() -> None:
    plain = NoPositions()
    assert plain.compares_segments is False
    assert plain.rotary_dim(8) == 0
    assert plain.wide_probe is False
    assert plain.read_alike(1, 1000) is True
    assert PositionMechanism.places == 1


def test_only_positions_that_tell_segments_apart_compare_them() -> None:
    positions: Any = load("xlnet-base-cased").architecture.positions
    assert positions.compares_segments is True
    assert msgspec.structs.replace(positions, relative_segments=False).compares_segments is False


def test_a_head_that_says_nothing_gives_a_logit_for_each_token_and_judges_no_pairs() -> None:
    assert NoHead().pairs_sentences is False
    assert NoHead().logit_size(97) == 97


def test_a_block_that_says_nothing_is_one_of_one_kind_without_experts() -> None:
    plain = load("gpt2").architecture.feed_forward
    assert (plain.gated, plain.corrects_choice) == (False, False)
    assert [plain.has_experts(layer) for layer in range(3)] == [False] * 3
    assert plain.layers_alike(12) == {0: 12}
    assert load("llama-7b").architecture.feed_forward.gated is True
    assert isinstance(plain, FeedForwardMechanism)


@pytest.mark.parametrize(
    ("name", "gated", "corrected"),
    [("mixtral-8x7b", True, False), ("deepseek-v2", True, False), ("deepseek-v3", True, True)],
)
def test_experts_are_gated_and_their_choice_is_corrected_as_published(
    name: str, gated: bool, corrected: bool
) -> None:
    experts = load(name).architecture.feed_forward
    assert (experts.gated, experts.corrects_choice) == (gated, corrected)


def test_only_layers_of_experts_whose_choice_is_corrected_have_the_correction() -> None:
    def buffers(name: str, layer: int) -> list[Parameter]:
        spec = load(name)
        return list(spec.architecture.feed_forward.buffers(spec, "block", layer))

    assert [each.shape for each in buffers("deepseek-v3", 3)] == [(256,)]
    assert buffers("deepseek-v3", 2) == []  # the first three layers are dense (DeepSeek-AI 2024)
    assert buffers("deepseek-v2", 3) == []


def test_a_wide_probe_is_for_rotary_positions_of_which_only_a_part_or_not_all_pairs_turn_alike() -> (
    None
):
    whole = Rotary(theta=1e4, pairing="half-split", fraction=1.0, scaling=NoScaling())
    assert whole.wide_probe is False
    assert msgspec.structs.replace(whole, fraction=0.25).wide_probe is True
    scaled = DynamicScaling(original_max_positions=8192)
    assert msgspec.structs.replace(whole, scaling=scaled).wide_probe is True
    assert msgspec.structs.replace(whole, scaling=LinearScaling(factor=2.0)).wide_probe is False


def test_rotary_positions_read_inputs_alike_as_their_scaling_does() -> None:
    scaling = DynamicScaling(original_max_positions=8192)
    rotary = Rotary(theta=1e4, pairing="half-split", fraction=1.0, scaling=scaling)
    assert rotary.read_alike(100, 8192) is True
    assert rotary.read_alike(100, 8193) is False


# What a query sees ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [0, 3, 6])
def test_the_first_key_is_number_0_wherever_no_window_ends(query: int) -> None:
    seen: dict[str, Any] = {"prefix": None, "right_to_left": False}
    patterns = [load(name).architecture.attention.pattern for name in ("gpt2", "bert-base-uncased")]
    patterns += [load("unilm-v1-base-cased").architecture.attention.pattern]
    patterns += [load("glm-base").architecture.attention.pattern]
    patterns += [AlternatingBanded(first="dense", window=2)]  # some layer sees them all
    assert [each.keys_seen(query, 7, **seen)[0] for each in patterns] == [0] * 5
    assert patterns[-1].keys_seen(query, 7, **seen)[1] == query + 1
    window = SlidingWindow(window=3)
    assert window.keys_seen(query, 7, **seen) == {0: (0, 1), 3: (1, 4), 6: (4, 7)}[query]


class NoWords(AttentionPattern, tag="made-up", tag_field="kind"):
    """A pattern that says nothing of itself."""


def test_a_pattern_must_have_words_for_what_it_shows() -> None:
    with pytest.raises(NotImplementedError):
        _ = NoWords().in_words


def test_a_window_is_told_in_words_by_the_keys_before_the_query() -> None:
    assert "the 4,095 before it" in SlidingWindow(window=4096).in_words
    assert "the 255 before it" in AlternatingBanded(first="dense", window=256).in_words


# Tables of parameters -------------------------------------------------------------------------------------------


def test_electra_judges_each_token_by_a_dense_layer_and_one_number() -> None:
    rows = parameter_table(load("electra-base-discriminator"))
    head = {row.name: row.shape for row in rows if row.name.startswith("head")}
    # discriminator_predictions: dense 768 × 768 and dense_prediction 768 × 1, both with a bias
    assert head == {
        "head.transform.weight": (768, 768),
        "head.transform.bias": (768,),
        "head.output.weight": (1, 768),
        "head.output.bias": (1,),
    }
    assert load("electra-base-discriminator").logit_size == 1


@pytest.mark.parametrize("post", [False, True])
def test_a_norm_behind_a_dense_block_closes_the_residual_branch_under_post_norm(post: bool) -> None:
    spec = load("st-moe-32b")  # a dense block follows the experts (Zoph et al. 2022, section 5.2)
    experts: Any = spec.architecture.feed_forward
    norm = spec.architecture.normalization
    rows = experts.later_parameters(spec, "block", experts.first_layer, norm, post=post)
    assert [row.residual for row in rows if "norm" in row.name] == [post]


def test_xlnet_has_one_vector_in_the_place_of_what_a_query_stream_may_not_see() -> None:
    rows = {row.name: row.shape for row in parameter_table(load("xlnet-base-cased"))}
    assert rows["embeddings.query_stream.weight"] == (1, 768)


def test_a_row_of_the_table_cannot_be_changed() -> None:
    (row, *_) = parameter_table(load("gpt2"))
    with pytest.raises(AttributeError):
        row.name = "another"  # type: ignore[misc]


def test_two_groups_of_experts_are_groups_too() -> None:
    grouped: Any = load("deepseek-v2").architecture.feed_forward
    pair = msgspec.structs.replace(grouped.routing, groups=2, active_groups=1)
    small = msgspec.structs.replace(grouped, routing=pair).probed(PROBING)
    assert (small.experts, small.routing.groups, small.routing.active_groups) == (8, 4, 2)


# Sizes of probes ------------------------------------------------------------------------------------------------

# They are part of what a case means: its rerun line draws the same numbers in the next release.
PROBED: dict[str, dict[str, Any]] = {
    "gpt2": {
        "layers": 2,
        "heads": 5,
        "head_dim": 8,
        "hidden_size": 40,
        "ffn_size": 160,
        "vocab_size": 97,
        "max_positions": 41,
    },
    "llama-7b": {"heads": 5, "kv_heads": 5, "ffn_size": 52, "max_positions": 2003},
    "gpt-j-6b": {"heads": 3, "head_dim": 16, "hidden_size": 48},
    "llama2-70b": {"heads": 6, "kv_heads": 2, "head_dim": 8, "hidden_size": 48, "ffn_size": 52},
    "mistral-7b-v0.1": {"architecture.attention.pattern.window": 5},
    "t5-small": {
        "hidden_size": 36,
        "architecture.positions.buckets": 8,
        "architecture.positions.max_distance": 12,
    },
    "bloom-560m": {"heads": 11, "head_dim": 6, "hidden_size": 66},
    "albert-base-v1": {"architecture.embeddings.width.size": 22},
    "deberta-base": {"architecture.positions.max_distance": 6},
    "mixtral-8x7b": {
        "architecture.feed_forward.experts": 7,
        "architecture.feed_forward.active_experts": 2,
        "architecture.feed_forward.expert_size": 52,
        "architecture.feed_forward.routing.groups": 1,
    },
    "deepseek-v2-lite": {
        "hidden_size": 40,
        "head_dim": 16,
        "architecture.attention.query_rank": "none",
        "architecture.attention.kv_rank": 12,
        "architecture.attention.rope_head_dim": 10,
        "architecture.attention.value_head_dim": 9,
        "architecture.feed_forward.experts": 7,
        "architecture.feed_forward.active_experts": 3,
        "architecture.feed_forward.expert_size": 28,
        "architecture.feed_forward.first_layer": 1,
    },
    "deepseek-v2": {
        "architecture.attention.query_rank": 21,
        "architecture.feed_forward.experts": 8,
        "architecture.feed_forward.active_experts": 3,
        "architecture.feed_forward.routing.groups": 4,
        "architecture.feed_forward.routing.active_groups": 2,
    },
    "llama3.1-8b": {"architecture.positions.scaling.original_max_positions": 40},
    "qwen-7b": {
        "heads": 3,
        "max_positions": 11,
        "architecture.positions.scaling.original_max_positions": 9,
    },
}


@pytest.mark.parametrize("name", PROBED)
def test_a_probe_has_these_sizes(name: str) -> None:
    small: Any = load(name).probe()
    found = {}
    for path in PROBED[name]:
        value = small
        for part in path.split("."):
            value = getattr(value, part)
        found[path] = value
    assert found == PROBED[name]


def test_a_long_input_of_a_probe_has_a_prime_number_of_tokens_beyond_several_blocks() -> None:
    assert LONG == 523
    assert all(LONG % divisor for divisor in range(2, 23))
    assert load("gpt2").probe(rows=LONG).max_positions == LONG


@pytest.mark.parametrize(
    ("positions", "sizes"),
    [
        (RelativeBuckets(buckets=32, max_distance=128), (8, 12)),
        (LayerwiseRelativeBuckets(buckets=32, max_distance=128), (8, 12)),
        (GatedRelativeBuckets(buckets=320, max_distance=800), (8, 12)),
    ],
)
def test_buckets_of_a_probe_fit_a_short_input(positions: Any, sizes: tuple[int, int]) -> None:
    small = positions.probed(PROBING)
    assert (small.buckets, small.max_distance) == sizes


def test_distances_and_windows_of_a_probe_fit_a_short_input() -> None:
    terms = ("content-to-position", "position-to-content")
    assert Disentangled(max_distance=512, terms=terms).probed(PROBING).max_distance == 6
    assert AlternatingBanded(first="dense", window=256).probed(PROBING).window == 5


@pytest.mark.parametrize("kind", [SlidingWindow, AlternatingBanded])
def test_latent_attention_of_a_probe_has_the_window_of_one(kind: type[AttentionPattern]) -> None:
    arguments = {"first": "dense"} if kind is AlternatingBanded else {}
    attention: Any = load("deepseek-v2").architecture.attention
    wide = msgspec.structs.replace(attention, pattern=kind(window=4096, **arguments))
    assert wide.probed(PROBING).pattern.window == 5
