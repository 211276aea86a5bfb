"""The pages of ``docs/models``: as committed, they are what the specs say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from holotype_spec import count_parameters, families, find, names
from holotype_spec.catalogue import generics
from holotype_spec.pages import COMMAND, pages, stale, write
from holotype_spec.pages.markdown import bars, leaves, table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "models"


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return pages()


@pytest.mark.slow
def test_no_committed_page_is_stale() -> None:
    names_ = stale(DOCS)
    assert not names_, f"stale in docs/models: {', '.join(names_)}; run: {COMMAND}"


def test_every_family_of_models_has_a_page_and_a_place_in_the_tree(found: dict[str, str]) -> None:
    shown = {place for place in families() if not set(names(place)) & set(generics())}
    assert set(found) == {"README.md", *(f"{family}.md" for family in shown)}
    for family in shown:
        assert f"]({family}.md)" in found["README.md"]


def test_every_model_stands_on_the_page_of_its_family_with_its_exact_count(
    found: dict[str, str],
) -> None:
    for name in names():
        row = next(
            line
            for line in found[f"{find(name).family.name}.md"].splitlines()
            if line.startswith(f"| `{name}`")
        )
        assert re.search(r"\| (undisclosed|[\d,]+) \|", row), row
    assert f"| {count_parameters(find('gpt2')).total:,} |" in found["gpt2.md"]


def test_every_source_of_a_family_is_linked_on_its_page(found: dict[str, str]) -> None:
    for name in names():
        family = find(name).family
        for source in family.sources:
            assert source.url in found[f"{family.name}.md"]


def test_no_link_of_a_page_leads_nowhere(found: dict[str, str]) -> None:
    targets = {target for text in found.values() for target in re.findall(r"\]\(([^)]+)\)", text)}
    assert targets
    for target in targets:
        assert target.startswith(("https://", "http://")) or target in found


def test_a_descendant_and_its_parent_name_each_other(found: dict[str, str]) -> None:
    for name in names():
        parent = find(name).derives_from
        if parent is not None:
            own, theirs = find(name).family.name, find(parent).family.name
            assert f"- `{name}` derives from [`{parent}`]({theirs}.md)." in found[f"{own}.md"]
            assert f"[`{name}`]({own}.md) derives from `{parent}`." in found[f"{theirs}.md"]


def test_a_family_and_the_one_that_it_follows_name_each_other(found: dict[str, str]) -> None:
    # RoBERTa trains BERT's architecture differently (Liu et al. 2019, section 3.1).
    assert "starts from that of [BERT](bert.md) (liu2019, section 3.1)" in found["roberta.md"]
    assert "[RoBERTa](roberta.md)" in found["bert.md"].partition("From this one start those of")[2]
    assert "    bert --> roberta\n" in found["README.md"]


def test_a_contradiction_stands_on_the_page_of_the_model(found: dict[str, str]) -> None:
    assert "3,072 is the width of the feed-forward block" in found["gpt.md"]
    assert "| course-notes, line 55 | `hidden_size` | 3072 | 768 |" in found["gpt.md"]


@pytest.mark.slow
def test_a_changed_missing_or_foreign_page_is_stale_until_it_is_written_again(
    tmp_path: Path,
) -> None:
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "gpt2.md").write_text("# GPT-3\n", encoding="utf-8")
    (tmp_path / "bert.md").unlink()
    (tmp_path / "eliza.md").write_text("# ELIZA\n", encoding="utf-8")
    assert stale(tmp_path) == ["bert.md", "eliza.md", "gpt2.md"]
    write(tmp_path)
    assert stale(tmp_path) == []


@pytest.mark.slow
def test_the_command_writes_the_pages(tmp_path: Path) -> None:
    module = COMMAND.split()[1:3]
    subprocess.run([sys.executable, *module, str(tmp_path / "new")], check=True)
    assert stale(tmp_path / "new") == []
    failed = subprocess.run([sys.executable, *module], capture_output=True, text=True)
    assert failed.returncode != 0
    assert COMMAND in failed.stderr


def test_bars_are_as_long_as_the_shares() -> None:
    long, short, tiny = bars({"half": 500, "three eighths": 375, "rest": 125})
    assert long == "half           500   50.0%  " + "█" * 16
    assert short == "three eighths  375   37.5%  " + "█" * 12
    assert tiny == "rest           125   12.5%  " + "█" * 4
    assert bars({"all": 10_000, "next to nothing": 1})[1].endswith("▏")


def test_a_table_escapes_what_would_end_a_cell() -> None:
    assert table(["a", "b"], [("1|2", "3")], right=(1,)) == [
        "| a | b |",
        "| --- | --: |",
        "| 1\\|2 | 3 |",
    ]


def test_the_leaves_of_a_tree_have_their_paths_and_a_kind_stands_for_its_mechanism() -> None:
    tree = {"a": {"kind": "x", "b": True, "c": []}, "d": 12345, "e": ["p", [1, 2]]}
    assert dict(leaves(tree)) == {
        "a": "x",
        "a.b": "yes",
        "a.c": "none",
        "d": "12,345",
        "e": "p, (1, 2)",
    }
