"""What a candidate declares, from the outside: believed, printed in every output, and no cover for anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Tree

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[2] / "examples" / "third_party_gpt2"
DECLARED = [
    ("absent", "float16", None),
    ("holds", "reparametrised", None),
    ("floor", "outputs through a cache", 0.02),
    ("floor", "gradients", 0.02),
    ("floor", "weights", 0.05),
    ("difference", "architecture.feed_forward.activation", None),
]
# Each is about one declaration; the first about the weights that are handed out.
PROPERTIES = (
    "agreement.logits",
    "agreement.gradients",
    "agreement.float16-range",
    "parameters.count",
    "parameters.training-step",
    "cache.chunks",
)


def checked(
    name: str, folder: Path, *words: str, properties: tuple[str, ...] = PROPERTIES
) -> tuple[int, str]:
    """`holotype check` of one of the declaring candidates: its exit code, and all that it prints, in one line."""
    path = os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", "from holotype_conformance.cli import main; main()"]
    command += ["check", f"{HERE.parent / 'declaring.py'}:{name}", "--spec", "gpt2", *words]
    command += [word for slug in properties for word in ("--property", slug)]
    run = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return run.returncode, " ".join(run.stdout.split())


def results(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    report = json.loads((folder / "report.json").read_text())
    return report, {each["property"]: each for each in report["results"]}


def test_a_wrong_declaration_is_bad_input(tmp_path: Path) -> None:
    code, text = checked("Typo", tmp_path, properties=PROPERTIES[:1])
    assert code == 2
    assert "did you mean gradients" in text


def test_what_is_declared_is_believed_and_stands_in_every_output(tmp_path: Path) -> None:
    kinds = ("json", "junit", "html")
    words = [word for kind in kinds for word in (f"--{kind}", f"report.{kind}")]
    code, text = checked("Right", tmp_path, *words)
    assert code == 0, text
    report, found = results(tmp_path)
    skipped = {"agreement.float16-range", "parameters.training-step"}
    assert {slug: each["outcome"] for slug, each in found.items()} == {
        slug: "skipped" if slug in skipped else "passed" for slug in PROPERTIES
    }
    assert "its kernels have none" in found["agreement.float16-range"]["reason"]
    assert [
        (each["kind"], each["name"], each["allowed"]) for each in report["declared"]
    ] == DECLARED
    assert all(each["reason"] for each in report["declared"])

    assert "cannot do: float16 (its kernels have none)" in text
    under = text[text.index("conforms to gpt2") :]
    assert "within the limits of precision that it states" in under
    assert "but for 1 stated difference" in under
    for said in ("may be off by 0.02", "may be off by 0.05", "8 bits in its matrices"):
        assert said in under
        assert said in " ".join((tmp_path / "report.html").read_text().split())
    lines = Tree.parse(tmp_path / "report.junit").iter("property")
    listed = {each.get("name"): each.get("value") or "" for each in lines}
    assert listed["declared: cannot do: float16"] == "its kernels have none"
    assert any("may be off by 0.05" in value for value in listed.values())


def test_what_is_wrong_beyond_each_declaration_is_found(tmp_path: Path) -> None:
    wrong = ("agreement.logits", "parameters.count", "cache.chunks")
    code, text = checked("Wrong", tmp_path, "--json", "report.json", properties=wrong)
    assert code == 1
    assert "does not conform to gpt2" in text
    report, found = results(tmp_path)
    assert report["conforms"] is False
    assert {slug: each["outcome"] for slug, each in found.items()} == dict.fromkeys(wrong, "failed")
    for slug, said in {
        "agreement.logits": "rounding stays below 1e-12",  # it is measured: 8 bits excuse nothing
        "parameters.count": "(+1)",
        "cache.chunks": "the candidate states that it may be 0.02",
    }.items():
        assert said in found[slug]["reason"]
