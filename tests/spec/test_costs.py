"""Costs, each worked by hand."""

from dataclasses import FrozenInstanceError

import msgspec
import pytest

from holotype_spec import costs, load, originals
from holotype_spec.counts import count_matrix_weights
from holotype_spec.schema import AlternatingBanded, TransformerXLPositions

GPT2_MATRICES = (
    12 * 12 * 768**2 + 768 * 50_257
)  # 4 d² attention and 8 d² feed-forward a layer, the head


def test_the_forward_pass_of_gpt2_is_two_operations_a_weight_and_four_a_key() -> None:
    # Per layer the scores and the weighted sum: 2 products, 2 operations, 768 numbers, 1024 keys.
    assert (
        costs.flops_per_token(load("gpt2"), 1024).forward == 2 * GPT2_MATRICES + 4 * 12 * 768 * 1024
    )
    assert costs.flops_per_token(load("gpt2"), 1024).forward == 284_812_800


def test_training_costs_three_forward_passes() -> None:
    assert costs.flops_per_token(load("gpt2"), 1).training == 3 * (2 * GPT2_MATRICES + 4 * 12 * 768)


def test_training_is_about_six_operations_a_parameter() -> None:
    # Kaplan et al. 2020, section 2.1: C ≈ 6 N with N without embeddings; the head is the difference.
    flops = costs.flops_per_token(load("llama2-70b"), 1).training
    assert flops / (6 * (68_976_648_192 - 32_000 * 8192)) == pytest.approx(1, abs=1e-4)


def test_no_more_keys_cost_than_the_window_shows() -> None:
    mistral = load("mistral-7b")
    assert costs.flops_per_token(mistral, 4096) == costs.flops_per_token(mistral, 20_000)
    one_more = (
        costs.flops_per_token(mistral, 4096).forward - costs.flops_per_token(mistral, 4095).forward
    )
    assert one_more == 4 * 32 * 4096


def test_an_encoder_decoder_runs_both_stacks_and_three_attentions() -> None:
    d = 512
    matrices = 6 * (4 * d * d + 2 * d * 2048) + 6 * (8 * d * d + 2 * d * 2048) + 32_128 * d
    assert (
        costs.flops_per_token(load("t5-small"), 100).forward == 2 * matrices + 3 * 6 * 4 * d * 100
    )


def test_the_pooler_runs_once_a_sequence_and_the_vocabulary_head_at_every_token() -> None:
    d = 768
    matrices = 12 * 12 * d * d + d * d + 30_522 * d
    assert costs.flops_per_token(load("bert-base"), 10).forward == 2 * matrices + 4 * 12 * d * 10


def test_no_context_is_an_error() -> None:
    with pytest.raises(ValueError, match="context is 0"):
        costs.flops_per_token(load("gpt2"), 0)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("llama-7b", 2 * 32 * 4096 * 2),  # 512 KiB
        ("llama2-70b", 2 * 80 * 8 * 128 * 2),  # 320 KiB: an eighth of the heads
        ("gpt2", 2 * 12 * 768 * 2),
        ("t5-11b", 2 * 24 * 128 * 128 * 2),
        ("bert-base", 0),
    ],
)
def test_the_cache_holds_a_key_and_a_value_a_head_and_layer(name: str, size: int) -> None:
    assert costs.kv_cache_bytes_per_token(load(name), "bfloat16") == size


def test_layers_of_a_band_see_and_keep_no_more_than_it() -> None:
    spec = load("gpt2")
    attention = msgspec.structs.replace(
        spec.architecture.attention, pattern=AlternatingBanded(first="dense", window=100)
    )
    architecture = msgspec.structs.replace(spec.architecture, attention=attention)
    banded = msgspec.structs.replace(spec, layers=5, architecture=architecture)
    # Layers 0, 2 and 4 are dense.
    assert costs.kv_cache_bytes(banded, 300, "float32") == 2 * 768 * 4 * (3 * 300 + 2 * 100)
    assert costs.kv_cache_bytes(banded, 100, "float32") == 2 * 768 * 4 * 5 * 100
    more = [costs.flops_per_token(banded, n).forward for n in (300, 301)]
    assert more[1] - more[0] == 3 * 4 * 768


def test_the_cache_of_latent_attention_holds_one_short_vector_a_token_and_layer() -> None:
    # DeepSeek-AI 2024, table 1: (d_c + d_h^R) l elements a token; section 3.1.2: d_c 512, d_h^R 64.
    assert costs.kv_cache_bytes_per_token(load("deepseek-v2"), "bfloat16") == 2 * 60 * (512 + 64)
    assert costs.kv_cache_bytes_per_token(load("deepseek-v3"), "bfloat16") == 2 * 61 * (512 + 64)


def test_a_token_of_mixtral_pays_for_two_experts_and_the_router() -> None:
    d, f = 4096, 14_336
    layer = 2 * d * d + 2 * d * 1024 + 8 * d + 2 * 3 * d * f
    assert costs.flops_per_token(load("mixtral-8x7b"), 100).forward == (
        2 * (32 * layer + 32_000 * d) + 32 * 4 * d * 100
    )


def test_keys_and_values_of_latent_heads_differ_in_width_and_so_do_their_products() -> None:
    more = [costs.flops_per_token(load("deepseek-v2"), n).forward for n in (100, 101)]
    assert more[1] - more[0] == 60 * 2 * 128 * (192 + 128)


def test_disentangled_attention_has_products_with_as_many_positions_as_there_are() -> None:
    # He et al. 2021, equation 4: beside content with content, content with position and the other way round, each with
    # 2k embeddings of a distance, k 512.
    spec = load("deberta-base")
    matrices = 2 * count_matrix_weights(spec)
    for keys, positions in ((1, 2), (10, 20), (512, 1024), (600, 1024)):
        products = keys * (64 + 64) + 2 * 64 * positions
        assert costs.flops_per_token(spec, keys).forward == matrices + 2 * 12 * 12 * products


def test_attention_by_distance_has_a_product_with_each_distance_and_with_two_segments() -> None:
    # Dai et al. 2019, section 3.3: terms (b) and (d), of as many distances as keys; Yang et al. 2019, section 2.5: a
    # segment is the same or another. What sees both ways has distances of both signs.
    xlnet, gpt2 = load("xlnet-base-cased"), load("gpt2")
    positions = TransformerXLPositions(theta=10_000.0, relative_segments=False)
    architecture = msgspec.structs.replace(gpt2.architecture, positions=positions)
    decoder = msgspec.structs.replace(gpt2, architecture=architecture)
    for keys in (1, 10):
        both = keys * (64 + 64) + 64 * (2 * keys + 2)
        expected = 2 * count_matrix_weights(xlnet) + 2 * 12 * 12 * both
        assert costs.flops_per_token(xlnet, keys).forward == expected
        past = keys * (64 + 64) + 64 * keys
        expected = 2 * count_matrix_weights(decoder) + 2 * 12 * 12 * past
        assert costs.flops_per_token(decoder, keys).forward == expected


def test_cross_attention_has_no_products_with_positions() -> None:
    t5 = load("t5-small")
    positions = load("xlnet-base-cased").architecture.positions
    architecture = msgspec.structs.replace(t5.architecture, positions=positions)
    changed = msgspec.structs.replace(t5, architecture=architecture)
    moved = [costs._cross_attention(spec, 9) for spec in (t5, changed)]
    assert moved == [2 * 8 * 6 * 9 * (64 + 64)] * 2


def test_the_cache_stops_growing_at_the_window() -> None:
    mistral = load("mistral-7b")
    assert costs.kv_cache_bytes(mistral, 100, "float16") == 100 * 131_072
    assert costs.kv_cache_bytes(mistral, 8192, "float16") == 512 * 2**20
    assert costs.kv_cache_bytes(load("llama-7b"), 8192, "float16") == 4 * 2**30


def test_the_source_of_an_encoder_decoder_is_cached_too() -> None:
    small = load("t5-small")
    assert costs.kv_cache_bytes(small, 10, "float32", source_length=7) == 17 * 2 * 6 * 512 * 4
    with pytest.raises(ValueError, match="gpt2 reads no source"):
        costs.kv_cache_bytes(load("gpt2"), 10, "float32", source_length=7)


def test_the_memory_is_the_parameters_times_the_width() -> None:
    assert costs.memory_bytes(load("gpt2"), "float32") == 497_759_232
    assert costs.memory_bytes(load("gpt2"), "int4") == 62_219_904
    with pytest.raises(ValueError, match="unknown dtype 'fp16': expected one of float64"):
        costs.memory_bytes(load("gpt2"), "fp16")


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        ("float64", 64),
        ("float32", 32),
        ("bfloat16", 16),
        ("float16", 16),
        ("float8", 8),
        ("int8", 8),
        ("int4", 4),
    ],
)
def test_a_number_takes_the_bits_of_its_dtype(dtype: str, bits: int) -> None:
    assert costs.memory_bytes(load("gpt2"), dtype) * 8 == 124_439_808 * bits


def test_a_cost_that_was_told_stays_what_it_is() -> None:
    flops = costs.flops_per_token(load("gpt2"), 1)
    cost = costs.pass_cost(load("gpt2"), batch=1, length=1, dtype="float32")
    for found, name in ((flops, "forward"), (cost, "bytes")):
        with pytest.raises(FrozenInstanceError):
            setattr(found, name, 0)


def test_part_of_a_byte_is_a_byte() -> None:
    sizes = {"batch": 1, "heads": 1, "kv_heads": 1, "queries": 1, "keys": 1, "head_dim": 1}
    assert costs.attention_cost(1, dtype="int4", **sizes).bytes == 2  # 4 numbers
    assert costs.attention_cost(1, dtype="int4", training=True, **sizes).bytes == 7  # 13


@pytest.mark.parametrize("name", originals())
def test_every_spec_has_costs(name: str) -> None:
    assert costs.flops_per_token(load(name), load(name).max_positions).training > 0


# Whole passes ---------------------------------------------------------------------------------------------


def test_a_pass_of_a_decoder_is_the_sum_over_its_tokens() -> None:
    gpt2 = load("gpt2")
    each = [costs.flops_per_token(gpt2, context).forward for context in range(1, 101)]
    found = costs.pass_cost(gpt2, batch=3, length=100, dtype="float32")
    assert found.flops == 3 * sum(each)
    assert costs.pass_cost(gpt2, batch=1, length=3, cached=97, dtype="float32").flops == sum(
        each[97:]
    )


def test_a_pass_across_the_edge_of_the_window_is_summed_exactly() -> None:
    mistral = load("mistral-7b")
    each = (costs.flops_per_token(mistral, context).forward for context in range(4081, 4113))
    found = costs.pass_cost(mistral, batch=1, length=32, cached=4080, dtype="float32")
    assert found.flops == sum(each)


def test_an_encoder_sees_everything_at_every_token() -> None:
    bert = load("bert-base")
    assert costs.pass_cost(bert, batch=1, length=10, dtype="float32").flops == (
        10 * costs.flops_per_token(bert, 10).forward
    )


def test_only_the_decoder_of_an_encoder_decoder_spares_a_triangle() -> None:
    d, length = 512, 10
    matrices = 6 * (4 * d * d + 2 * d * 2048) + 6 * (8 * d * d + 2 * d * 2048) + 32_128 * d
    pairs = 2 * length * length + length * (length + 1) // 2
    found = costs.pass_cost(load("t5-small"), batch=1, length=length, dtype="float32")
    assert found.flops == 2 * matrices * length + 4 * 6 * d * pairs


# T5 small: 6 layers a stack, d 512, as wide in all heads together, ffn 2048. With a cache a target token passes all of
# the decoder but the keys and values of cross-attention, which were made of the source once.
T5_TARGET = 6 * (4 * 512**2 + 2 * 512**2 + 2 * 512 * 2048) + 32_128 * 512
T5_SOURCE = 6 * (4 * 512**2 + 2 * 512 * 2048) + 6 * 2 * 512**2


def test_decoding_after_a_source_runs_the_decoder_alone_and_reads_both_caches() -> None:
    found = costs.pass_cost(
        load("t5-small"), batch=3, length=1, cached=20, source_length=7, dtype="float32"
    )
    assert found.flops == 3 * (2 * T5_TARGET + 4 * 6 * 512 * (21 + 7))
    assert found.bytes == 4 * (T5_TARGET + 3 * (2 * 6 * 512 * (20 + 7) + 32_128))


def test_the_first_pass_reads_the_source_whatever_its_length() -> None:
    found = costs.pass_cost(load("t5-small"), batch=1, length=3, source_length=7, dtype="float32")
    encoded = 7 * 2 * T5_SOURCE + 4 * 6 * 512 * 7 * 7
    assert found.flops == encoded + 3 * 2 * T5_TARGET + 4 * 6 * 512 * (1 + 2 + 3 + 3 * 7)
    assert found.bytes == 4 * (T5_SOURCE + T5_TARGET + 3 * 32_128)


def test_the_stacks_of_an_encoder_decoder_may_differ_in_depth() -> None:
    same = load("t5-small")
    architecture = msgspec.structs.replace(same.architecture, encoder_layers=10)
    deep = msgspec.structs.replace(same, architecture=architecture)
    sizes = {"batch": 1, "dtype": "float32", "source_length": 3}
    first, later = (
        [costs.pass_cost(spec, length=1, cached=cached, **sizes) for spec in (same, deep)]
        for cached in (0, 3)
    )
    layer = 4 * 512**2 + 2 * 512 * 2048
    assert first[1].flops - first[0].flops == 4 * (3 * 2 * layer + 4 * 512 * 3 * 3)
    assert later[0] == later[1]


def test_decoding_in_steps_computes_what_one_pass_does() -> None:
    t5, sizes = load("t5-small"), {"batch": 1, "dtype": "float32", "source_length": 9}
    whole = costs.pass_cost(t5, length=6, **sizes)
    parts = [costs.pass_cost(t5, length=2, **sizes)]
    parts += [costs.pass_cost(t5, length=1, cached=cached, **sizes) for cached in range(2, 6)]
    assert sum(part.flops for part in parts) == whole.flops


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("gpt2", 5, "gpt2 reads no source"),
        ("t5-small", 0, "source_length is 0; expected 1 or more"),
    ],
)
def test_a_source_that_cannot_be_read_is_an_error(name: str, source: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        costs.pass_cost(load(name), batch=1, length=1, source_length=source, dtype="float32")


def test_decoding_moves_the_matrices_the_cache_and_the_logits() -> None:
    found = costs.pass_cost(load("gpt2"), batch=2, length=1, cached=100, dtype="float32")
    assert found.bytes == 4 * (GPT2_MATRICES + 2 * (2 * 12 * 768 * 100 + 50_257))


def test_attention_costs_two_products_a_pair_and_three_times_that_with_its_gradients() -> None:
    sizes = {"batch": 2, "heads": 6, "kv_heads": 3, "queries": 5, "keys": 7, "head_dim": 8}
    forward = costs.attention_cost(20, dtype="float32", **sizes)
    assert forward.flops == 2 * 2 * 2 * 6 * 20 * 8
    assert forward.bytes == 4 * 2 * 8 * (2 * 6 * 5 + 2 * 3 * 7)
    training = costs.attention_cost(20, dtype="float32", training=True, **sizes)
    assert training.flops == 3 * forward.flops
    assert training.bytes == 3 * forward.bytes + 4 * 2 * 8 * 6 * 5


def test_training_computes_three_times_as_much_and_moves_matrices_thrice_and_logits_twice() -> None:
    # The matrices are read in both passes, and their gradients written; the gradient of the logits is read.
    sizes = {"batch": 2, "length": 3, "dtype": "float32"}
    forward = costs.pass_cost(load("gpt2"), **sizes)
    training = costs.pass_cost(load("gpt2"), training=True, **sizes)
    assert forward.bytes == 4 * (GPT2_MATRICES + 2 * 3 * 50_257)
    assert training.flops == 3 * forward.flops
    assert training.bytes == 4 * (3 * GPT2_MATRICES + 2 * 2 * 3 * 50_257)


def test_a_source_is_by_default_as_long_as_all_that_was_written() -> None:
    t5, sizes = load("t5-small"), {"batch": 1, "dtype": "float32"}
    for length, cached in ((3, 0), (2, 5)):
        told = costs.pass_cost(
            t5, length=length, cached=cached, source_length=length + cached, **sizes
        )
        assert costs.pass_cost(t5, length=length, cached=cached, **sizes) == told


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"length": 0}, "length 0"),
        ({"batch": 0}, "batch 0"),
        ({"cached": -1}, "cached -1"),
    ],
)
def test_a_pass_over_nothing_is_an_error(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        costs.pass_cost(load("gpt2"), dtype="float32", **{"batch": 1, "length": 1} | sizes)


def test_a_source_of_one_token_can_be_read() -> None:
    found = costs.pass_cost(load("t5-small"), batch=1, length=1, source_length=1, dtype="float32")
    assert found.flops == 2 * T5_SOURCE + 4 * 6 * 512 + 2 * T5_TARGET + 4 * 6 * 512 * 2
