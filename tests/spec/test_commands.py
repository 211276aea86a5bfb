"""``holotype list`` and ``holotype show``."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holotype_conformance.commands.catalogue import list_specs, show_spec
from holotype_spec import generics, load, names, parameter_table


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
    def listed(*arguments: str) -> list[str]:
        return [row["name"] for row in json.loads(run_list("--json", *arguments).output)]

    assert listed("--structure", "encoder-decoder") == [
        *names("mt5"),
        *names("t5"),
        *names("t5-v1_1"),
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
        "parameters": 124_439_808,
        "aliases": ["gpt2-small"],
    }


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
    result = run_show(name, "--parameters")
    assert result.exit_code == 0
    lines = [line for line in result.output.splitlines() if "https://" not in line]
    assert max(map(len, [*lines, *run_list().output.splitlines()])) <= 80


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
