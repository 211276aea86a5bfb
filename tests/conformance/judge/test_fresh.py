"""A failure that a fresh model does not show is told with the calls that it needs, and what reruns it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import pytest
from torch import nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Request, Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.properties.agreement import logits
from holotype_conformance.models.subject import Subject
from holotype_conformance.models.suite import MODELS
from holotype_conformance.report.text import failure_text
from holotype_conformance.run.apart.split import possible, session_here, split
from holotype_spec import load

pytestmark = pytest.mark.slow

GPT2 = load("gpt2")
EXAMPLE = Path(__file__).parents[3] / "examples" / "third_party_gpt2"
AFTER_A_WHILE = """
import sys

sys.path.insert(0, {folder!r})
from adapter import Adapter
from holotype_conformance.models.candidate import Outputs

calls = 0


class Tiring(Adapter):
    def forward_cached(self, model, inputs, cache):
        global calls
        calls += 1
        found = super().forward_cached(model, inputs, cache)
        return Outputs(logits=found.logits * (1.5 if calls > 9 else 1.0), cache=found.cache)
"""


class Forgetful(ReferenceCandidate):
    """Each model is right for the first calls."""

    paths = ("fused",)

    def __init__(self, good: int = 3) -> None:
        self.good = good
        self.calls: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        self.calls[model] = self.calls.get(model, 0) + 1
        factor = 1.0 if self.calls[model] <= self.good else 1.5
        return Outputs(logits=factor * super().forward(model, inputs).logits)


def judged(good: int, asked: list[bool] | None = None) -> Result:
    """The verdict on a model that is right so often; `asked` takes for each fresh one whether it may be shared."""
    subject = Subject(Forgetful(good), GPT2)

    @contextmanager
    def fresh(*, shared: bool = False) -> Iterator[Subject]:
        if asked is not None:
            asked.append(shared)
        yield Subject(Forgetful(good), GPT2)

    def rerun(case: object) -> str:
        return "all of it" if case is None else "one case"

    return judge(subject, logits, Settings(fresh=fresh, rerun=rerun))


def test_nothing_is_imported_anew_for_a_failure_that_a_shared_fresh_model_shows() -> None:
    asked: list[bool] = []
    assert judged(good=0, asked=asked).depends is None
    assert asked == [True]


def test_what_holds_on_a_shared_fresh_model_is_tried_on_others_of_its_own() -> None:
    asked: list[bool] = []
    assert judged(good=3, asked=asked).depends is not None
    assert asked[0]
    assert len(asked) > 1
    assert not any(asked[1:])


def test_a_failure_that_needs_earlier_calls_names_them_and_reruns_them_all() -> None:
    result = judged(good=3)
    assert result.outcome == "failed"
    assert (result.depends or "").startswith("on earlier calls: on a fresh model the same case")
    assert len(result.history) >= 1
    assert result.counterexample is not None
    assert result.counterexample.rerun == "all of it"
    text = failure_text(result)
    assert "depends" in text
    assert "meaning" not in text  # its advice would be false


def test_a_failure_of_every_model_depends_on_nothing() -> None:
    result = judged(good=0)
    assert (result.outcome, result.depends, result.history) == ("failed", None, ())
    assert result.counterexample is not None
    assert result.counterexample.rerun == "one case"


def test_one_that_cannot_be_brought_about_again_is_said_to_be_green_alone() -> None:
    subject = Subject(Forgetful(0), GPT2)

    @contextmanager
    def fresh(*, shared: bool = False) -> Iterator[Subject]:
        yield Subject(Forgetful(10**9), GPT2)

    result = judge(subject, logits, Settings(fresh=fresh))
    assert result.outcome == "failed"
    assert "earlier calls of other properties, or on chance" in (result.depends or "")


@pytest.mark.skipif(not possible(MODELS), reason="a process cannot be split here")
def test_what_the_candidate_keeps_in_its_process_is_found_out_in_another(tmp_path: Path) -> None:
    path = tmp_path / "tiring.py"
    path.write_text(AFTER_A_WHILE.format(folder=str(EXAMPLE)))
    request = Request(
        target=f"{path}:Tiring", specs=("gpt2",), properties=("agreement.logits",), limit=0
    )
    half = split(MODELS, lambda: None)
    try:
        run = session_here(half, request)
        result = run.judge(run.specs[0], run.properties[0])
    finally:
        half.end()
    assert result.outcome == "failed"
    assert "on earlier calls: on a fresh model" in (result.depends or "")
    assert result.history
