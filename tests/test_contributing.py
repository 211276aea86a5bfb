"""CONTRIBUTING.md: its examples run, and the files that people who work on the project rely on agree."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MECHANISM, MODULE, PROPERTY, DEVIATION, OF_A_KERNEL = re.findall(
    r"^```python\n(.*?)^```$", GUIDE, re.M | re.S
)


def defined(block: str, *modules: str) -> dict[str, Any]:
    """What a block of the guide defines, with all names of these modules at hand."""
    names: dict[str, Any] = {}
    for module in modules:
        names |= vars(__import__(module, fromlist=["*"]))
    exec(compile(block, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    return names


def test_the_mechanism_is_the_one_that_the_tests_add() -> None:
    tests = (ROOT / "tests" / "test_made_up_mechanism.py").read_text(encoding="utf-8")
    assert MECHANISM in tests
    assert MODULE in tests


@pytest.mark.parametrize(
    ("deviation", "outcome"), [(None, "passed"), ("dropout.in-eval", "failed")]
)
def test_the_property_passes_what_is_right_and_fails_what_is_wrong(
    deviation: str | None, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holotype_conformance.judge.engine import Settings, judge
    from holotype_conformance.models.adapters.reference import ReferenceCandidate
    from holotype_conformance.models.claims import CLAIMS
    from holotype_conformance.models.deviations import DeviatedCandidate, find
    from holotype_conformance.models.subject import Subject
    from holotype_spec import load

    monkeypatch.setattr(CLAIMS, "_known", dict(CLAIMS._known))
    names = defined(
        PROPERTY,
        "hypothesis",
        "holotype_conformance.models.properties.sequence",
        "holotype_conformance.judge.property",
    )
    candidate = DeviatedCandidate(find(deviation)) if deviation else ReferenceCandidate()
    subject = Subject(candidate, load("gpt2"))
    assert judge(subject, names["repeatable"], Settings()).outcome == outcome


def test_the_deviation_applies_where_it_says_and_changes_what_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from holotype_conformance.models.deviations.deviation import CATALOGUE
    from holotype_spec import load

    monkeypatch.setattr(CATALOGUE, "_known", dict(CATALOGUE._known))
    names = defined(
        DEVIATION,
        "holotype_conformance.models.deviations.features",
        "holotype_conformance.models.deviations.deviation",
    )
    deviation = names["paired_otherwise"]
    applies = [load(name) for name in ("llama2-70b", "llama-7b", "gpt2")]
    assert [deviation.applies(spec) for spec in applies] == [True, False, False]
    assert deviation.spec(applies[0]).architecture.positions.pairing == "interleaved"


@pytest.mark.parametrize(
    ("slug", "outcome"), [("masks.causal", "passed"), ("masks.window", "failed")]
)
def test_the_deviation_of_a_kernel_is_caught_where_it_makes_a_difference(
    slug: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holotype_conformance.judge.engine import Settings, judge
    from holotype_conformance.kernels.deviations import CATALOGUE, DeviatedKernel
    from holotype_conformance.kernels.properties import kernel_properties
    from holotype_conformance.kernels.subject import KernelSubject

    monkeypatch.setattr(CATALOGUE, "_known", dict(CATALOGUE._known))
    names = defined(
        OF_A_KERNEL,
        "dataclasses",
        "holotype_conformance.kernels.candidate",
        "holotype_conformance.kernels.deviations.deviation",
    )
    assert names["doubled"] is CATALOGUE.find("window.doubled")
    subject = KernelSubject(DeviatedKernel(names["doubled"]))
    (property_,) = (each for each in kernel_properties() if each.slug == slug)
    assert judge(subject, property_, Settings()).outcome == outcome


def test_what_the_guide_links_to_and_names_is_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", GUIDE):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:spec|reference|conformance|tests|docs)/[^`\s…]*)`", GUIDE):
        assert (ROOT / path.replace("NAME.toml", "gpt2.toml")).exists(), path


def test_the_commands_of_the_guide_and_the_readme_name_what_the_project_has() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    groups = PROJECT["dependency-groups"]
    for text in (GUIDE, readme):
        (install,) = re.findall(r"pip install .*-e .*", text)
        (extra,), (group,) = (
            re.findall(r"\[(\w+)\]", install),
            re.findall(r"--group (\w+)", install),
        )
        assert extra in PROJECT["project"]["optional-dependencies"]
        included = {each["include-group"] for each in groups[group] if isinstance(each, dict)}
        assert included == {"lint", "types", "tests"}
    environments = (ROOT / "tox.ini").read_text(encoding="utf-8")
    for name in re.findall(r"tox -e (\w+)", GUIDE):
        assert f"[testenv:{name}]" in environments


def test_the_hooks_run_the_ruff_that_ci_runs() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (hooked,), (pinned,) = (
        re.findall(r"rev: v(\S+)", hooks),
        re.findall(r"^ruff==(\S+)", constraints, re.M),
    )
    assert hooked == pinned


def test_all_that_a_program_writes_and_nothing_else_is_marked_as_generated() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "docs", "spec", "reference", "conformance"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is no checkout")
    paths = [path for path in listed.stdout.split() if path.endswith((".md", ".json"))]
    attributes = subprocess.run(
        ["git", "check-attr", "linguist-generated", "--", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    marked = {
        line.split(": ")[0] for line in attributes.stdout.splitlines() if line.endswith(" set")
    }
    # Each says in its beginning that a program wrote it; JSON has no room for that.
    written = {
        path
        for path in paths
        if path.endswith(".json")
        or re.search(
            r"[Gg]enerated (from|by)|Every class of", (ROOT / path).read_text("utf-8")[:2000]
        )
    }
    assert marked == written
