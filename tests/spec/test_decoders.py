"""Decoders of which the papers say all that their counts need, and not all that building them would take."""

import pytest

from holotype_spec import Sketch, UndisclosedValue, costs, count_parameters, find

# layers, hidden_size, heads, kv_heads, head_dim, ffn_size, vocab_size, typed by hand from each paper's table, and the
# parameters that it prints, in billions. GPT-3 1.3B and 13B: without the table's slips (24 heads; 5140).
PRINTED = {
    "gpt3-125m": ((12, 768, 12, 12, 64, 3072, 50257), "0.125"),
    "gpt3-760m": ((24, 1536, 16, 16, 96, 6144, 50257), "0.760"),
    "gpt3-1.3b": ((24, 2048, 16, 16, 128, 8192, 50257), "1.3"),
    "gpt3-6.7b": ((32, 4096, 32, 32, 128, 16384, 50257), "6.7"),
    "gpt3-175b": ((96, 12288, 96, 96, 128, 49152, 50257), "175"),
    "gopher-44m": ((8, 512, 16, 16, 32, 2048, 32000), "0.044"),
    "gopher-117m": ((12, 768, 12, 12, 64, 3072, 32000), "0.117"),
    "gopher-417m": ((12, 1536, 12, 12, 128, 6144, 32000), "0.417"),
    "gopher-1.4b": ((24, 2048, 16, 16, 128, 8192, 32000), "1.4"),
    "gopher-7.1b": ((32, 4096, 32, 32, 128, 16384, 32000), "7.1"),
    "gopher-280b": ((80, 16384, 128, 128, 128, 65536, 32000), "280"),
    "chinchilla-70b": ((80, 8192, 64, 64, 128, 32768, 32000), "70"),
    "bloomberggpt-50b": ((70, 7680, 40, 40, 192, 30720, 131072), "50.6"),
    "palm-8b": ((32, 4096, 16, 1, 256, 16384, 256000), "8.63"),
    "palm-62b": ((64, 8192, 32, 1, 256, 32768, 256000), "62.50"),
    "palm-540b": ((118, 18432, 48, 1, 256, 73728, 256000), "540.4"),
    "glam-64b-64e": ((64, 8192, 128, 128, 128, 32768, 256000), "1162"),
}


@pytest.mark.parametrize("name", list(PRINTED))
def test_the_sizes_of_the_table_give_the_parameters_that_it_prints(name: str) -> None:
    sizes, printed = PRINTED[name]
    entry = find(name)
    assert isinstance(entry, Sketch)
    known = entry.known
    assert sizes == (
        known.layers,
        known.hidden_size,
        known.heads,
        known.kv_heads,
        known.head_dim,
        known.ffn_size,
        known.vocab_size,
    )
    digits = len(printed.partition(".")[2])
    assert f"{count_parameters(entry).total / 1e9:.{digits}f}" == printed


def test_lamda_has_the_parameters_printed_in_its_layers_alone() -> None:
    # Thoppilan et al. 2022, section 3: 137B without embeddings.
    counts = count_parameters(find("lamda-137b"))
    d, inner = 8192, 128 * 128
    layers = counts.total - counts.components["token embeddings"]
    assert layers == 64 * (4 * d * inner + 3 * d * 65_536 + 2 * d) + d + 32 * 128
    assert f"{layers / 1e9:.0f}" == "137"


def test_a_token_of_glam_uses_as_many_parameters_as_the_paper_prints() -> None:
    # Du et al. 2021, table 4: 96.6B of 1.2T.
    counts = count_parameters(find("glam-64b-64e"))
    assert f"{counts.active / 1e9:.1f}" == "96.6"
    assert counts.components["experts"] == 32 * 64 * 2 * 8192 * 32_768


def test_the_components_of_palm_8b_are_those_worked_by_hand() -> None:
    d = 4096
    assert count_parameters(find("palm-8b")).components == {
        "token embeddings": 256_000 * d,
        "norms": 33 * d,  # one a layer, and the last
        "self-attention": 32 * (2 * d * 16 * 256 + 2 * d * 256),
        "feed-forward": 32 * 3 * d * 4 * d,
    }


def test_one_key_and_value_head_is_all_that_palm_caches() -> None:
    assert costs.kv_cache_bytes_per_token(find("palm-540b"), "bfloat16") == 2 * 2 * 118 * 256


def test_what_gpt3_costs_depends_on_the_width_of_its_band_which_nobody_knows() -> None:
    with pytest.raises(UndisclosedValue, match=r"the FLOPs .*attention\.pattern"):
        costs.flops_per_token(find("gpt3-175b"), 2048)
    assert costs.memory_bytes(find("gpt3-175b"), "bfloat16") == 2 * 174_604_259_328
