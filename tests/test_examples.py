"""The examples, checked from the command line as their authors would, in another folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "third_party_gpt2"


def check(target: str, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON report of ``holotype check TARGET --spec gpt2``, run in `folder`."""
    command = shutil.which("holotype", path=sysconfig.get_path("scripts"))
    assert command, "holotype is not installed beside this interpreter"
    report = folder / "report.json"
    done = subprocess.run(
        [command, "check", target, "--spec", "gpt2", "--json", str(report), *options],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(report.read_text())


# Reasons of skips that lie with the machine or the profile, and not with the candidate.
ELSEWHERE = ("no CUDA device: ", "a case takes seconds: ")


def failed(report: dict[str, Any]) -> set[str]:
    """The slugs of the properties that failed."""
    return {result["property"] for result in report["results"] if result["outcome"] == "failed"}


def test_the_sound_example_conforms_and_skips_only_what_gpt2_or_its_adapter_has_not(
    tmp_path: Path,
) -> None:
    code, report = check(f"{EXAMPLE}/adapter.py:Adapter", tmp_path)
    assert code == 0
    assert report["conforms"] is True
    skipped = {
        r["property"]
        for r in report["results"]
        if r["outcome"] == "skipped" and not r["reason"].startswith(ELSEWHERE)
    }
    assert skipped == {
        "causality.order",  # GPT-2 predicts from left to right
        "causality.source-dependence",  # it has no encoder
        "padding.source",
        "positions.shift-invariance",  # its positions are not relative
        "objective.gradients",
        "objective.loss",  # the example leaves the loss to whoever trains it
    }


def test_the_example_with_three_bugs_does_not_conform(tmp_path: Path) -> None:
    code, report = check(f"{EXAMPLE}/buggy.py:Adapter", tmp_path)
    assert code == 1
    assert report["conforms"] is False
    assert {"agreement.logits", "causality.future-perturbation", "cache.chunks"} <= failed(report)


@pytest.mark.parametrize(
    ("bug", "caught_by", "diagnosis"),
    [
        ("SeesAhead", "causality.future-perturbation", "mask.one-ahead"),
        ("ExactGelu", "agreement.logits", "activation.gelu"),
        ("PositionsRestart", "cache.chunks", "cache.offset-forgotten"),
    ],
)
def test_each_planted_bug_alone_is_caught_and_named(
    tmp_path: Path, bug: str, caught_by: str, diagnosis: str
) -> None:
    code, report = check(f"{EXAMPLE}/buggy.py:{bug}", tmp_path, "--property", caught_by)
    (result,) = report["results"]
    assert code == 1
    assert result["outcome"] == "failed"
    assert result["diagnosis"][0]["deviation"] == diagnosis


def test_the_adapter_has_at_most_15_lines() -> None:
    lines = (EXAMPLE / "adapter.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 15


def test_the_example_knows_nothing_of_holotype() -> None:
    for name in ("gpt2.py", "gpt2_with_bugs.py"):
        assert not re.search(r"^\s*(import|from)\s+holotype", (EXAMPLE / name).read_text(), re.M)


def test_the_example_computes_what_transformers_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from gpt2 import GPT2, Settings

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=97,
        n_positions=41,
        n_embd=40,
        n_head=5,
        n_layer=3,
        bos_token_id=0,
        eos_token_id=0,
    )
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    ours = GPT2(Settings(97, 41, 40, 5, 3)).double().eval()
    ours.load_released(theirs.state_dict())
    words = torch.randint(97, (3, 13))
    keep = torch.ones_like(words)
    keep[1, :4] = keep[2, :1] = 0
    places = (keep.cumsum(1) - 1).clamp(min=0)

    with torch.no_grad():
        expected = theirs(words, attention_mask=keep, position_ids=places).logits
        whole = ours(words, keep, places)[0]
        first, cache = ours(words[:, :7], keep[:, :7], places[:, :7])
        second, _ = ours(words[:, 7:], keep, places[:, 7:], cache)
    real = keep.bool()
    scale = expected[real].square().mean().sqrt()
    for logits in (whole, torch.cat([first, second], dim=1)):
        assert (logits - expected)[real].abs().max() <= 1e-12 * scale
