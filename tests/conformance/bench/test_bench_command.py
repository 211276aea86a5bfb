"""``holotype bench`` as a person or a machine meets it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pytest_benchmark.logger import Logger
from pytest_benchmark.storage.file import FileStorage

from holotype_conformance.cli import main

pytestmark = pytest.mark.slow

ROGUES = str(Path(__file__).with_name("rogues.py"))
ONE = ("--only", "causal 1x8x256x64 forward")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def test_a_kernel_that_is_right_passes_and_its_files_are_read_by_others(tmp_path: Path) -> None:
    data, chart = tmp_path / "found.json", tmp_path / "chart.svg"
    done = bench(f"{ROGUES}:right", *ONE, "--json", str(data), "--chart", str(chart))
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "right passes all gates" in done.stdout
    assert done.stderr.splitlines() == ["1 of 1: causal 1x8x256x64 forward"]  # no terminal
    assert "roof" in next(line for line in done.stdout.splitlines() if "GFLOP/s" in line)

    logger = Logger(0)  # type: ignore[no-untyped-call]
    ((_, read),) = FileStorage(tmp_path, logger).load(str(data))  # type: ignore[no-untyped-call]
    (found,) = read["benchmarks"]
    assert found["stats"]["rounds"] == len(found["stats"]["data"])
    assert found["extra_info"]["counts"]["flops"] == 4 * 8 * 64 * 10 * 64 * 64
    assert 0 < found["extra_info"]["achieved_of_roofline"] < 1.25

    report = json.loads(data.read_text())["holotype"]
    assert report["passed"]
    assert report["control"]["slowed"]["ratio"] > report["control"]["same"]["ratio"]
    drawn = ET.parse(chart).getroot()
    assert drawn.tag.endswith("svg")
    (point,) = drawn.iter("{http://www.w3.org/2000/svg}circle")
    assert "% of the roofline" in "".join(point.itertext())


def test_an_earlier_version_that_was_faster_is_a_regression(tmp_path: Path) -> None:
    text = Path(ROGUES).read_text()
    here, before = tmp_path / "here", tmp_path / "before"
    for folder, name in ((here, "slower"), (before, "right")):
        folder.mkdir()
        (folder / "kernel.py").write_text(f"{text}\n\nattention = {name}\n")
    done = bench(
        f"{here / 'kernel.py'}:attention", *ONE, "--against-version", str(before), "--gate", "*o-*"
    )
    assert done.exit_code == 1, done.output
    assert "✗ time.no-slowdown" in done.stdout
    assert "✗ counts.no-increase" in done.stdout
    assert "where     causal 1x8x256x64 forward" in done.stdout


def test_a_wrong_kernel_gets_no_time_and_exit_code_1() -> None:
    done = bench(f"{ROGUES}:off_by_one", *ONE)
    assert done.exit_code == 1
    assert "the result differs from the formula" in done.stdout
    assert f"  why       holotype check-attention {ROGUES}:off_by_one\n" in done.stdout
    assert "0 timed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sdpq",), "did you mean sdpa"),
        (("sdpa", "--only", "nothing*"), "matches no configuration"),
        (("sdpa", "--gate", "nothing*"), "matches no gate"),
        (("sdpa", "--json", "/nowhere/x.json"), "there is no folder"),
        (("sdpa", "--against", "sdpa", "--against-version", "HEAD"), "not both"),
        (("sdpa", *ONE, "--device", "cuda:99"), "cuda:99"),
        (("reference", "--spec", "gpt3000"), "gpt3000"),
        ((f"{ROGUES}:quadratic", "--only", "window*1024x64 forward"), "nothing was measured"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_paragraph(arguments: tuple[str, ...], said: str) -> None:
    done = bench(*arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_run_at_all_is_exit_code_3(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import os\nos._exit(5)\n")
    done = bench(f"{broken}:attention")
    assert done.exit_code == 3
    assert "exit code 5" in done.stderr
