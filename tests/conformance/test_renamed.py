"""A property that was renamed answers to its old name wherever a user may have written that."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from holotype_conformance.cli import main
from holotype_conformance.judge.expected_failures import expectation, mark_stale, stale
from holotype_conformance.judge.records import Result
from holotype_conformance.judge.renamed import RENAMED, current, names_of
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.models.properties import all_properties
from holotype_conformance.run.session import RequestError, check_expected, select

OLD, NEW = "gradients.twice", "gradients.second-derivatives"
SLUGS = {property_.slug for property_ in (*all_properties(), *kernel_properties())}


def test_old_names_lead_to_properties_that_there_are_and_are_no_names_of_others() -> None:
    assert RENAMED[OLD] == NEW
    assert set(RENAMED.values()) <= SLUGS
    assert not RENAMED.keys() & SLUGS
    assert current(OLD) == current(NEW) == NEW
    assert names_of(NEW) == (NEW, OLD)
    assert names_of("masks.causal") == ("masks.causal",)


@pytest.mark.parametrize("glob", [OLD, NEW, "gradients.tw*", "gradients.second*"])
def test_a_property_is_selected_by_either_name(glob: str) -> None:
    assert [property_.slug for property_ in select([glob], kernel_properties())] == [NEW]
    with pytest.raises(RequestError, match="no property matches"):
        select([glob], all_properties())


@pytest.mark.parametrize("key", [OLD, NEW, f"attention.{OLD}", f"attention.{NEW}"])
def test_an_expected_failure_may_have_either_name(key: str) -> None:
    listed = {key: "issue 12"}
    check_expected(listed, ["attention"], SLUGS)
    assert expectation(listed, "attention", NEW) == "issue 12"
    assert expectation(listed, "attention", "gradients.some") is None
    assert stale(listed, [("attention", NEW)]) == set()
    assert stale(listed, [("attention", "gradients.some")]) == {key}
    skipped = Result(property=NEW, level="must", outcome="skipped", seconds=0.0, reason="no")
    assert mark_stale("attention", skipped, {key}).outcome == "error"
    assert mark_stale("attention", skipped, {"gradients.some"}).outcome == "skipped"


@pytest.mark.parametrize("name", [OLD, NEW])
def test_an_entry_for_one_spec_comes_before_one_for_all(name: str) -> None:
    listed = {NEW: "any", OLD: "any", f"attention.{name}": "this one"}
    assert expectation(listed, "attention", NEW) == "this one"
    assert expectation(listed, "another", NEW) == "any"


def test_a_property_is_explained_under_either_name() -> None:
    by_old, by_new = (CliRunner().invoke(main, ["explain", name]) for name in (OLD, NEW))
    assert by_old.exit_code == by_new.exit_code == 0
    assert by_old.output == by_new.output
    assert by_new.output.startswith(f"{NEW} (must)\nformerly {OLD}\n\n")


@pytest.mark.slow
def test_a_run_takes_an_old_name_and_reports_the_new_one(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    expected = tmp_path / "expected.toml"
    expected.write_text(f'"{OLD}" = "issue 12"\n')
    command = ["check-attention", "reference:eager", "--property", OLD, "--json", str(report)]
    found = CliRunner().invoke(main, [*command, "--expected-failures", str(expected)])
    assert found.exit_code == 1  # it passed, but is listed
    assert "1 unexpected pass" in found.output
    assert f'"{NEW}"' in report.read_text()
