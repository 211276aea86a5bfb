"""The runs as on other machines: which they are, and that what fails is told."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holotype_spec import complete

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "machines" / "run.py"


@pytest.fixture(scope="module")
def machines() -> Any:
    spec = importlib.util.spec_from_file_location("machines_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_main_models_run_on_each_machine_with_each_seed(machines: Any) -> None:
    runs = machines.plan()
    main = [run for run in runs if run.spec in machines.MAIN]
    assert len(main) == len({*main}) == 7 * len(machines.MACHINES) * 4
    assert {run.spec for run in main} == {*machines.MAIN}


def test_every_model_with_a_class_and_names_runs_or_one_that_is_probed_alike(machines: Any) -> None:
    known = {
        spec.name
        for spec in complete()
        if spec.family.transformers != "none" and spec.family.checkpoint != "none"
    }
    assert {run.spec for run in machines.plan(every=True)} == known
    ran = {run.spec for run in machines.plan()}
    for alike in machines.probed_alike():
        assert len(ran & {*alike}) == 1, alike
    assert len(ran) < len(known)


def test_shards_are_all_of_it_once(machines: Any) -> None:
    runs = machines.plan()
    parts = [machines.shard(runs, f"{number}/4") for number in (1, 2, 3, 4)]
    assert sorted(run for part in parts for run in part) == sorted(runs)
    for wrong in ("0/4", "5/4", "1", "x/2"):
        with pytest.raises(SystemExit, match="expected a part such as 2/4"):
            machines.shard(runs, wrong)


@pytest.mark.parametrize(
    ("patch", "code", "said"),
    [("", 0, "1 of 1 runs conform"), ("broken", 1, "0 of 1 runs conform")],
)
def test_a_run_is_logged_and_told_and_not_repeated(
    patch: str, code: int, said: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    log = tmp_path / "log.jsonl"
    if patch:
        facts = {"spec": "gpt2", "machine": "aten-default", "seed": 0, "code": 1}
        log.write_text(json.dumps(facts | {"failed": ["agreement.logits: off"]}) + "\n")
    command = [sys.executable, str(SCRIPT), "--log", str(log), "--spec", "gpt2", "--seed", "0"]
    command += ["--machine", "aten-default", "--property", "interface.outputs"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert said in done.stdout
        assert ("agreement.logits: off" in done.stdout) == bool(patch)
    assert len(log.read_text().splitlines()) == 1


def test_what_failed_is_found_wherever_a_report_has_it(machines: Any) -> None:
    results = [
        {"property": "a.b", "outcome": "failed", "reason": "off"},
        {"property": "a.c", "outcome": "passed", "reason": None},
        {"property": "a.d", "outcome": "undecided", "reason": "no end"},
    ]
    told = {"reports": [{"results": results}]}
    assert machines._failed(told) == ["a.b: off", "a.d: no end"]
    assert machines._failed(results) == machines._failed(told)
