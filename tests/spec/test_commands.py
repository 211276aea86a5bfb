"""``holotype list`` and ``holotype show``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holotype_conformance.cli import main
from holotype_conformance.commands.catalogue import diff_specs, list_specs, show_spec
from holotype_spec import complete, entries, generics, load, names, overview, parameter_table

UNDISCLOSED = {entry.name for entry in entries() if overview.exact(entry) is None}


def run_list(*arguments: str) -> Result:
    return CliRunner().invoke(list_specs, arguments)


def run_show(*arguments: str) -> Result:
    return CliRunner().invoke(show_spec, arguments)


def test_list_names_every_model_with_its_exact_count() -> None:
    result = run_list()
    assert result.exit_code == 0
    for name in names():
        assert f"\n{name} " in result.output
    assert "124,439,808" in result.output


def test_list_of_a_family_names_no_other() -> None:
    lines = run_list("--family", "bert").output.splitlines()[1:]
    assert [line.split()[0] for line in lines] == names("bert")


def test_list_filters_by_structure_and_objective_and_both() -> None:
    assert listed("--structure", "encoder-decoder") == [
        *names("alexatm"),
        *names("bart"),
        *names("mass"),
        *names("mbart"),
        *names("mt5"),
        *names("st-moe"),
        *names("t5"),
        *names("t5-v1_1"),
        *names("transformer"),
        "encoder-decoder",
    ]
    sentences = listed("--objective", "next-sentence-prediction")
    assert sentences == [*names("bert"), *names("unilm-v1")]
    masked = listed("--objective", "masked-lm", "--structure", "encoder", "--family", "roberta")
    assert masked == ["roberta-base", "roberta-large"]
    assert listed("--objective", "causal-lm", "--structure", "encoder") == []
    assert listed("--family", "generic") == ["causal-decoder", "encoder", "encoder-decoder"]


def test_an_unknown_objective_exits_2_with_the_known_ones() -> None:
    result = run_list("--objective", "mlm")
    assert result.exit_code == 2
    assert "unknown objective 'mlm': expected one of causal-lm, masked-lm" in result.stderr


def test_list_as_json_has_an_object_a_model() -> None:
    rows = json.loads(run_list("--json").output)
    assert [row["name"] for row in rows] == [*names(), *generics()]
    assert {row["parameters"] for row in rows[-3:]} == {None}
    assert rows[names().index("gpt2")] == {
        "name": "gpt2",
        "family": "gpt2",
        "structure": "decoder",
        "objective": ["causal-lm"],
        "parameters": 124_439_808,
        "published": "117M",
        "disclosure": "published",
        "derives_from": None,
        "aliases": ["gpt2-small"],
    }


def listed(*arguments: str) -> list[str]:
    return [row["name"] for row in json.loads(run_list("--json", *arguments).output)]


def test_list_filters_by_size_both_ends_included() -> None:
    assert listed("--family", "llama3.2", "--max-parameters", "1_235_814_400") == ["llama3.2-1b"]
    assert listed("--family", "llama3.2", "--max-parameters", "1.2B") == []
    assert listed("--family", "llama3", "--min-parameters", "8030261248") == names("llama3")
    assert listed("--family", "llama3", "--min-parameters", "8030261249") == ["llama3-70b"]
    small = listed("--min-parameters", "13K", "--max-parameters", "14M")
    assert {"elmo-small", "digits-784-16-16-10"} <= set(small)
    assert not {"generic", "gpt2", "causal-decoder"} & set(small)


@pytest.mark.parametrize("size", ["big", "1.5X", "-3", ""])
def test_a_size_that_is_none_exits_2(size: str) -> None:
    result = run_list("--min-parameters", size)
    assert result.exit_code == 2
    assert f"{size!r} is no size: expected a number such as 350M" in result.stderr


def test_a_smallest_size_over_the_largest_exits_2() -> None:
    result = run_list("--min-parameters", "2B", "--max-parameters", "1B")
    assert result.exit_code == 2
    assert "2,000,000,000 is more than --max-parameters 1,000,000,000" in result.stderr


def test_a_list_of_nothing_says_so_beside_the_list() -> None:
    result = run_list("--min-parameters", "900T")
    assert result.exit_code == 0
    assert "no entry is like that" in result.stderr


def test_list_filters_by_what_was_disclosed() -> None:
    assert "gpt2" in listed("--disclosed")
    assert "gpt2" not in listed("--undisclosed")
    assert set(listed("--disclosed")) | set(listed("--undisclosed")) == set(listed())


def test_networks_are_listed_by_their_own_structure() -> None:
    assert listed("--structure", "state-space") == names("mamba")
    assert listed("--structure", "feed-forward") == ["digits-784-16-16-10"]
    assert listed("--structure", "recurrent") == [*names("elmo"), *names("rwkv4")]


def test_show_of_a_network_has_the_same_keys_and_its_own_sizes() -> None:
    facts = json.loads(run_show("digits-784-16-16-10", "--json", "--parameters").output)
    gpt2 = json.loads(run_show("gpt2", "--json").output)
    assert facts.keys() == gpt2.keys()
    assert facts["sizes"] == {"widths": [784, 16, 16, 10]}
    assert facts["architecture"]["structure"] == "feed-forward"
    assert facts["parameters"]["total"] == facts["parameters"]["backbone"] == 13_002
    assert [row["shape"] for row in facts["parameters"]["table"]] == [
        [16, 784], [16], [16, 16], [16], [10, 16], [10],
    ]  # fmt: skip
    assert facts["costs"]["flops_per_token"]["forward"] == 2 * (784 * 16 + 16 * 16 + 16 * 10)


def test_show_draws_layers_of_other_shapes_apart() -> None:
    words = " ".join(run_show("digits-784-16-16-10", "--parameters").output.split())
    assert "layers.0.weight (16, 784) layers.{0..1}.bias (16,) layers.1.weight (16, 16)" in words


# A model of one's own, of which something is undisclosed ----------------------------------------------------

SKETCH = """
[family]
name = "mine"
title = "Mine"
transformers = "none"
sources = [{ id = "me", title = "My notes", url = "https://example.org" }]

[[variants]]
name = "mine"
derives_from = "gpt2"
ffn_size = "undisclosed"
parameters = { published = "1.8T", source = "me" }
rumour = "Somebody wrote so"
stated = [
    { component = "expert", parameters = 111_000_000_000, number = 16, active = 2, source = "me" },
    { component = "attention", parameters = 55_000_000_000, number = 1, active = 1, source = "me" },
]
[variants.architecture.feed_forward]
size = "independent"
"""


@pytest.fixture
def sketch(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(SKETCH, encoding="utf-8")
    return str(path)


def test_show_of_a_sketch_says_what_is_known_and_why_the_rest_is_not(sketch: str) -> None:
    facts = json.loads(run_show(sketch, "--json").output)
    why = "the parameter count of mine depends on ffn_size, which is undisclosed"
    assert facts["undisclosed"] == ["ffn_size"]
    assert (facts["sizes"]["layers"], facts["sizes"]["ffn_size"]) == (12, "undisclosed")
    assert (facts["disclosure"], facts["rumour"]) == ("rumour", "Somebody wrote so")
    assert facts["line_of_descent"] == ["gpt2"]
    assert facts["parameters"]["total"] is None
    assert facts["parameters"]["unknown"] == why
    assert facts["costs"]["kv_cache_bytes_per_token"]["bfloat16"] == 12 * 2 * 768 * 2
    assert facts["costs"]["memory_bytes"] == {"float32": None, "bfloat16": None, "int8": None}
    page = run_show(sketch).output
    assert "ffn_size       undisclosed" in page
    assert why in " ".join(page.split())
    assert "A rumour: its makers have confirmed nothing" in page
    assert "Somebody wrote so." in page
    assert "Undisclosed: ffn_size." in page
    assert "derives from gpt2" in page


def test_the_stated_parts_of_a_rumour_are_summed(sketch: str) -> None:
    words = " ".join(run_show(sketch).output.split())
    assert "stated in all 1,831,000,000,000" in words
    assert "stated to be active for a token 277,000,000,000" in words


def test_the_table_of_a_sketch_is_refused_by_the_field(sketch: str) -> None:
    result = run_show(sketch, "--parameters")
    assert result.exit_code == 2
    assert "the table of parameters of mine depends on ffn_size" in result.stderr


# Differences ------------------------------------------------------------------------------------------------


def run_diff(*arguments: str) -> Result:
    return CliRunner().invoke(diff_specs, arguments)


def test_diff_names_the_fields_that_differ_and_no_others() -> None:
    told = json.loads(run_diff("llama-7b", "alpaca-7b", "--json").output)
    assert {row["field"]: (row["first"], row["second"]) for row in told["fields"]}[
        "vocab_size"
    ] == (32_000, 32_001)
    assert {row["field"] for row in told["fields"]} <= {"vocab_size", "objective"}


def test_diff_says_what_the_fields_do_to_parameters_and_cost() -> None:
    told = json.loads(run_diff("llama-7b", "alpaca-7b", "--json").output)
    row = {"first": 32_000 * 4096, "second": 32_001 * 4096, "difference": 4096}
    assert told["parameters"]["components"]["token embeddings"] == row
    assert told["parameters"]["components"]["head"] == row
    assert told["parameters"]["components"]["self-attention"]["difference"] == 0
    assert told["parameters"]["total"]["difference"] == 2 * 4096
    assert told["costs"]["flops_per_token"]["difference"] == 2 * 4096
    assert told["costs"]["cache_bytes_per_token"]["difference"] == 0
    assert told["costs"]["weight_bytes"]["difference"] == 2 * 2 * 4096


def test_diff_of_a_model_with_itself_says_that_they_agree() -> None:
    assert "gpt2 and gpt2 agree in every field" in run_diff("gpt2", "gpt2-small").output


def test_diff_goes_across_kinds_and_sketches(sketch: str) -> None:
    output = run_diff("gpt2", "mamba-130m").output
    assert "structure                decoder → state-space" in output
    assert "124,439,808 → 129,135,360 (+4,695,552)" in output
    output = run_diff("gpt2", sketch).output
    assert "ffn_size           3,072 → undisclosed" in output
    assert "124,439,808 → undisclosed" in output
    assert max(map(len, output.splitlines())) <= 80


def test_diff_of_an_unknown_name_exits_2() -> None:
    result = run_diff("gpt2", "gpt2-xxl")
    assert result.exit_code == 2
    assert "did you mean gpt2-xl" in result.stderr


def test_show_as_json_has_facts_sources_counts_and_costs() -> None:
    facts = json.loads(run_show("llama2-70b", "--json").output)
    assert facts["name"] == "llama2-70b"
    assert facts["family"] == "llama2"
    assert facts["aliases"] == ["llama-2-70b"]
    assert facts["sources"][0]["id"] == "touvron2023b"
    assert facts["architecture"]["positions"] == {
        "kind": "rotary",
        "theta": 10_000.0,
        "pairing": "half-split",
        "fraction": 1.0,
        "scaling": {"kind": "none"},
    }
    assert facts["sizes"]["kv_heads"] == 8
    assert facts["parameters"]["total"] == 68_976_648_192
    assert facts["parameters"]["components"]["head"] == 32_000 * 8192
    assert facts["parameters"]["published"] == {
        "published": "70B",
        "source": "touvron2023b",
        "note": None,
    }
    assert facts["costs"]["kv_cache_bytes_per_token"]["bfloat16"] == 327_680
    assert "table" not in facts["parameters"]


def test_show_with_parameters_has_the_canonical_table() -> None:
    table = json.loads(run_show("gpt2", "--json", "--parameters").output)["parameters"]["table"]
    assert [(row["name"], tuple(row["shape"])) for row in table] == [
        (parameter.name, parameter.shape) for parameter in parameter_table(load("gpt2"))
    ]


def test_show_draws_the_layers_of_the_table_once() -> None:
    output = run_show("gpt2", "--parameters").output
    assert "decoder.layers.{0..11}.self_attention.query.weight" in output
    assert output.count("self_attention.query.weight") == 1


@pytest.mark.parametrize("name", names())
def test_a_page_fits_eighty_columns_but_for_addresses(name: str) -> None:
    whole = [] if name in UNDISCLOSED else ["--parameters"]
    result = run_show(name, *whole)
    assert result.exit_code == 0
    lines = [line for line in result.output.splitlines() if "https://" not in line]
    assert max(map(len, lines)) <= 80


def test_the_list_fits_eighty_columns() -> None:
    assert max(map(len, run_list().output.splitlines())) <= 80


def test_a_generic_spec_shows_what_it_promises_apart_from_its_hints() -> None:
    page = run_show("causal-decoder").output
    promised, hints = page.partition("\nHints\n")[::2]
    assert "attention.pattern  causal" in promised
    assert "ffn_size" in hints
    assert "holotype check TARGET --spec causal-decoder" in hints
    assert max(len(line) for line in page.splitlines() if "https://" not in line) <= 80
    facts = json.loads(run_show("causal-decoder", "--json").output)
    assert "architecture.attention.pattern" in facts["binding"]
    assert facts["parameters"]["total"] is facts["costs"] is None


@pytest.mark.parametrize("arguments", [("gpt2-xxl",), ("gpt2-xxl", "--json")])
def test_an_unknown_spec_exits_2_with_the_nearest_names(arguments: tuple[str, ...]) -> None:
    result = run_show(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: unknown spec 'gpt2-xxl': did you mean gpt2-xl")
    assert result.stdout == ""


def test_an_unknown_family_exits_2_with_the_nearest_names() -> None:
    result = run_list("--family", "mistrall")
    assert result.exit_code == 2
    assert "did you mean mistral" in result.stderr


def test_a_malformed_file_exits_2_with_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[family]\nname = 'X'\n")
    result = run_show(str(path))
    assert result.exit_code == 2
    assert "mine.toml: family.name = 'X': expected a lower-case name" in result.stderr
    assert "mine.toml: architecture: expected a value" in result.stderr


@pytest.mark.parametrize("command", ["list_specs(['--json'])", "show_spec(['gpt2'])"])
@pytest.mark.slow
def test_the_catalogue_commands_import_nothing_heavy(command: str) -> None:
    heavy = ("torch", "numpy", "jsonschema", "rich", "hypothesis", "pytest", "transformers")
    code = f"""
import sys
from holotype_conformance.commands.catalogue import list_specs, show_spec
try:
    {command}
except SystemExit as done:
    assert not done.code
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_show_aliases_has_the_facts_under_the_names_of_three_projects() -> None:
    told = json.loads(run_show("llama2-70b", "--aliases", "--json").output)
    assert told["transformers_class"] == "LlamaConfig"
    # As in the published config.json, in a GGUF header and in litgpt/config.py.
    for project, key, value in [
        ("transformers", "num_key_value_heads", 8),
        ("transformers", "rope_parameters.rope_theta", 10_000.0),
        ("gguf", "attention.head_count_kv", 8),
        ("gguf", "attention.layer_norm_rms_epsilon", 1e-5),
        ("litgpt", "n_query_groups", 8),
        ("litgpt", "n_embd", 8192),
    ]:
        assert told[project][key] == value
    assert not any("latent" in key for key in told["litgpt"])
    # The rows of RoBERTa's table, two more than its positions.
    roberta = json.loads(run_show("roberta-base", "--aliases", "--json").output)
    assert roberta["transformers"]["max_position_embeddings"] == 514
    assert roberta["gguf"]["attention.layer_norm_epsilon"] == 1e-5


def test_show_aliases_fits_eighty_columns_and_says_where_there_is_no_class() -> None:
    for spec in complete():
        page = run_show(spec.name, "--aliases").output
        assert max(map(len, page.splitlines())) <= 80
        lacks = "transformers, which has no such class" in page
        assert lacks == (spec.family.transformers == "none")


def test_what_is_no_complete_spec_has_no_aliases() -> None:
    result = run_show("causal-decoder", "--aliases")
    assert result.exit_code == 2
    assert "causal-decoder has no complete spec" in result.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpt-4", "gpt-4 has no complete spec: layers is undisclosed, and 20 more of its fields"),
        ("mamba-130m", "mamba-130m has no complete spec: it is no Transformer but a state-space"),
    ],
)
def test_check_against_what_is_not_complete_exits_2_and_says_why(name: str, why: str) -> None:
    result = CliRunner().invoke(main, ["check", "reference", "--spec", name])
    assert result.exit_code == 2
    assert why in result.stderr
