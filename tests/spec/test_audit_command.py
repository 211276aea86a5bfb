"""``holotype audit``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args
from unicodedata import east_asian_width

import pytest
from click.testing import CliRunner, Result

from holotype_conformance.commands.audit import audit
from holotype_spec import names
from holotype_spec.claims.schema import Relation, Verdict
from holotype_spec.claims.values import QUANTITIES
from holotype_spec.figures import UNITS

ONE = """
[document]
id = "mine"
title = "Mine"
number = 9
[[passages]]
line = 3
section = "sizes"
models = ["gpt2"]
claims = [
    { field = "layers", value = 12, quote = "12 layers" },
    { field = "heads", value = %s, quote = "heads" },
]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(audit, arguments)


def claims(*arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("--json", *arguments).output)["claims"]
    return found


def mine(folder: Path, heads: object) -> str:
    path = folder / "mine.toml"
    path.write_text(ONE % heads, encoding="utf-8")
    return str(path)


def columns(line: str) -> int:
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in line)


def test_every_claim_is_a_row_and_the_counts_stand_at_the_end() -> None:
    result = run()
    assert result.exit_code == 0
    *_, last = result.output.splitlines()
    found = json.loads(run("--json").output)
    total = len(found["claims"])
    assert last.startswith(f"{total} claims: {found['counts']['exact']} exact, ")
    rows = [line for line in result.output.splitlines() if line[:1].isdigit()]
    assert len(rows) == total + 1


@pytest.mark.parametrize("group", ["document", "model"])
def test_the_table_fits_80_columns(group: str) -> None:
    lines = run("--group", group).output.splitlines()
    assert max(map(columns, lines)) <= 80


def test_a_contradiction_is_explained_below_its_row() -> None:
    output = run("--document", "course-notes", "--verdict", "contradicted").output
    assert "55   gpt-1" in output
    assert "3,072 is the width of the feed-forward block, four times the hidden" in output


def test_the_readme_shows_what_is_printed() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    _, _, shown = readme.partition("$ holotype audit ")
    arguments, _, output = shown.partition("```")[0].partition("\n")
    assert run(*arguments.split()).output == output


def test_the_guide_shows_what_its_example_prints(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    example, output = re.findall(r"^```(?:toml|text)\n(.*?)^```$", guide, re.M | re.S)
    path = tmp_path / "mine.toml"
    path.write_text(example, encoding="utf-8")
    assert run("--document", str(path)).output == output


def test_the_guide_names_every_quantity_unit_relation_and_verdict() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
    named = {*QUANTITIES, *UNITS, *get_args(Relation), *get_args(Verdict)}
    assert not {word for word in named if word not in guide}


def test_json_has_the_place_the_values_and_the_verdict() -> None:
    (row,) = (
        row
        for row in claims("--document", "course-notes", "--model", "gpt-1")
        if row["line"] == 55 and row["field"] == "hidden_size"
    )
    assert row | {"sentence": "", "models": ["gpt-1"]} == {
        "id": "course-notes:55:gpt-1:hidden_size",
        "document": "course-notes",
        "line": 55,
        "section": "3.3.1 GPT, the table",
        "quote": "3072",
        "models": ["gpt-1"],
        "model": "gpt-1",
        "field": "hidden_size",
        "stated": "3072",
        "computed": "768",
        "verdict": "contradicted",
        "sentence": "",
    }


def test_json_names_the_documents_and_counts_what_is_shown() -> None:
    found = json.loads(run("--json", "--verdict", "near").output)
    assert [document["number"] for document in found["documents"]] == [0, 1, 2, 3, 4]
    assert found["counts"] == {
        "exact": 0,
        "rounds": 0,
        "near": len(found["claims"]),
        "undecidable": 0,
        "contradicted": 0,
    }


def test_a_model_is_found_by_its_alias_and_grouped_by_model_alone() -> None:
    assert claims("--model", "GPT2-Small") == claims("--model", "gpt2")
    output = run("--model", "gpt2-small", "--group", "model").output
    assert output.startswith("gpt2\nLINE DOCUMENT")
    assert "\n\n" in output
    titles = [line for line in output.splitlines() if line in names()]
    assert titles == ["gpt2"]


def test_a_claim_about_several_models_counts_once_in_either_grouping() -> None:
    by_document, by_model = run().output, run("--group", "model").output
    assert by_document.splitlines()[-1] == by_model.splitlines()[-1]


@pytest.mark.parametrize(
    ("heads", "strict", "code"), [(12, 0, 0), (12, 1, 0), (13, 0, 0), (13, 1, 1)]
)
def test_only_strict_exits_1_and_only_on_a_contradiction(
    tmp_path: Path, heads: int, strict: int, code: int
) -> None:
    result = run("--document", mine(tmp_path, heads), *["--strict"] * strict)
    assert result.exit_code == code
    assert result.output.endswith(f"{int(heads == 13)} contradicted\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--document", "zju"), "unknown document 'zju': expected one of zju-notes, family-map"),
        (("--model", "gpt2-xxl"), "unknown spec 'gpt2-xxl': did you mean gpt2-xl"),
        (("--document", "none.toml"), "none.toml: expected a TOML file"),
    ],
)
def test_bad_input_exits_2_and_says_what_was_expected(
    arguments: tuple[str, ...], told: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_bad_file_of_claims_exits_2_with_its_mistake(tmp_path: Path) -> None:
    result = run("--document", mine(tmp_path, '"many"'))
    assert result.exit_code == 2
    assert "mine.toml: passages[0].claims[1].value = 'many': expected a number" in result.stderr


@pytest.mark.slow
def test_the_audit_imports_no_torch_and_nothing_else_that_is_slow() -> None:
    heavy = ("torch", "numpy", "jsonschema", "rich", "hypothesis", "pytest", "transformers")
    code = (
        "import sys; from holotype_conformance.cli import main; sys.argv = ['holotype', 'audit'];"
        "main(standalone_mode=False);"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")
