"""The search for a diagnosis: on every device, and what becomes of a search that fails."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from holotype_conformance.judge import engine
from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Request, Result
from holotype_conformance.judge.time_limit import TimedOut
from holotype_conformance.judge.verdict import reported
from holotype_conformance.models import diagnosis
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.deviations import DeviatedCandidate, find
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.report.html import html
from holotype_conformance.report.junit import junit
from holotype_conformance.report.text import Painter, report_text
from holotype_conformance.torch_tools.fake_device import ELSEWHERE, places
from holotype_spec import load

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2 = load("gpt2")
RELU = find("activation.relu")


def failed(candidate=None, *, slug="agreement.logits", limit=0.0, **facts) -> Result:
    subject = Subject(candidate or DeviatedCandidate(RELU, paths=("fused",)), GPT2, **facts)
    result = judge(subject, PROPERTIES[slug], Settings(limit=limit, diagnose=diagnosis.diagnose))
    assert result.outcome == "failed"
    return result


# Devices --------------------------------------------------------------------------------------------------------


def test_a_failure_is_named_on_a_device_that_is_not_the_cpu() -> None:
    with places():
        result = failed(device=str(ELSEWHERE))
    assert result.undiagnosed is None
    assert [each.deviation for each in result.diagnosis] == ["activation.relu"]


def test_a_subject_on_another_device_is_the_same_in_all_else() -> None:
    there = torch.device("cpu", 0)
    here = Subject(ReferenceCandidate(), GPT2, seed=3, dtypes=("float64",), long_rows=True)
    moved = here.on(there)
    assert moved.device == there
    assert (moved.seed, moved.asked, moved.long_rows) == (3, ("float64",), True)
    assert moved.probe(2) == here.probe(2)


def test_a_subject_with_long_rows_is_the_same_in_all_else() -> None:
    subject = Subject(ReferenceCandidate(), GPT2, seed=3, device="cpu:0", dtypes=("float64",))
    far = subject.with_long_rows
    assert far.long_rows
    assert (far.seed, far.asked, far.device) == (3, ("float64",), torch.device("cpu", 0))
    assert far.probe(2) != subject.probe(2)


# Failures of the search -----------------------------------------------------------------------------------------


def crash(*_: object) -> None:
    raise RuntimeError("no idea\nat all")


@pytest.fixture
def undiagnosed(monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(diagnosis, "diagnose", crash)
    return failed()


SAID = "the search for a diagnosis raised RuntimeError: no idea"


def test_a_search_that_raises_is_told_in_the_result(undiagnosed: Result) -> None:
    assert (undiagnosed.diagnosis, undiagnosed.undiagnosed) == ((), SAID)
    assert undiagnosed.details is not None
    assert "in crash" in undiagnosed.details  # the traceback, for --verbose


def test_a_search_that_does_not_end_is_told_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*_: object) -> None:
        raise TimedOut("60 s of processor time")

    monkeypatch.setattr(diagnosis, "diagnose", search)
    monkeypatch.setattr(engine, "is_time_up", lambda error: isinstance(error, TimedOut))
    assert failed(limit=60.0).undiagnosed == "the search for a diagnosis did not end within 60 s"


def test_a_search_that_finds_nothing_is_no_failure_of_the_search() -> None:
    class Noisy(ReferenceCandidate):
        paths = ("fused",)

        def forward(self, model, inputs):  # type: ignore[no-untyped-def]
            outputs = super().forward(model, inputs)
            return type(outputs)(logits=outputs.logits + 0.01 * outputs.logits.sin())

    result = failed(Noisy())
    assert (result.diagnosis, result.undiagnosed) == ((), None)


def test_every_output_tells_of_a_search_that_failed(undiagnosed: Result) -> None:
    report = reported(
        Request(target="mine.py:build", specs=("gpt2",)),
        (undiagnosed,),
        spec="gpt2",
        parameters=1,
        unusable=None,
        suite=1,
        holotype="1.0",
        candidate="mine.py:build",
        environment=None,
    )
    text = report_text(report, Painter())
    assert f"  diagnosis none: {SAID}\n" in text.replace("\n            ", " ")
    assert max(map(len, text.splitlines())) <= 200  # the rerun
    for document in (junit([report]), html([report])):
        assert f"none: {SAID}" in " ".join(document.split())
    written = json.loads(msgspec.json.encode(report))["results"][0]
    assert written["undiagnosed"] == SAID


LEAVING = """
import os, sys
from holotype_conformance.models.deviations import DeviatedCandidate, find

class Leaving(DeviatedCandidate):
    def __init__(self):
        super().__init__(find("activation.relu"), paths=("fused",))

    def forward(self, model, inputs):
        frame = sys._getframe()
        while frame is not None:
            if frame.f_globals["__name__"] == "holotype_conformance.models.diagnosis":
                os._exit(7)
            frame = frame.f_back
        return super().forward(model, inputs)
"""


def test_a_process_that_ends_during_the_search_leaves_the_failure_and_says_so(
    tmp_path: Path,
) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING)
    command = [
        *(sys.executable, "-c", "from holotype_conformance.cli import main; main()"),
        *("check", "leaving.py:Leaving"),
        *("--spec", "gpt2", "--property", "agreement.logits", "--json", "out.json"),
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    (result,) = json.loads((tmp_path / "out.json").read_text())["results"]
    assert (result["outcome"], result["counterexample"]["facts"]["path"]) == ("failed", "fused")
    assert result["undiagnosed"] == (
        "the candidate's process exited with status 7 during the search for a diagnosis"
    )
    assert "during the search for a diagnosis" in " ".join(run.stdout.split())
