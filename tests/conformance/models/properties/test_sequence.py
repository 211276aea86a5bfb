"""State that one input leaves for the next is found out by a sequence of inputs, and named by where it shows."""

import pytest

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.deviations import DeviatedCandidate, find
from holotype_conformance.models.properties.sequence import sequence
from holotype_conformance.models.subject import Subject
from holotype_spec import load
from holotype_spec.catalogue import complete
from holotype_spec.schema import DynamicScaling, Rotary

pytestmark = pytest.mark.slow

GROWING = next(
    spec.name
    for spec in complete()
    if isinstance(spec.architecture.positions, Rotary)
    and isinstance(spec.architecture.positions.scaling, DynamicScaling)
)


def judged(slug: str, spec: str) -> Result:
    subject = Subject(DeviatedCandidate(find(slug)), load(spec))
    return judge(subject, sequence, Settings())


@pytest.mark.parametrize(
    ("slug", "spec"),
    [
        ("state.long-input-stays", "gpt2"),
        ("state.kept-for-batch-size", "gpt2"),
        ("state.kept-for-batch-size", "bert-base-uncased"),
        ("state.position-counter", "gpt2"),
        ("state.running-mean", "gpt2"),
        ("rotary.ntk-stays-grown", GROWING),
    ],
)
def test_what_stays_from_one_input_to_the_next_is_found_out(slug: str, spec: str) -> None:
    result = judged(slug, spec)
    assert result.outcome == "failed"
    assert "and on a fresh one" in (result.reason or "")


def test_a_table_that_stays_grown_shows_behind_the_long_input() -> None:
    result = judged("state.long-input-stays", "gpt2")
    assert result.counterexample is not None
    assert result.counterexample.facts["before"] == "the short input, the long one"


@pytest.mark.parametrize("spec", ["gpt2", "bert-base-uncased", "t5-small", GROWING])
def test_a_model_without_memory_passes(spec: str) -> None:
    result = judge(Subject(ReferenceCandidate(), load(spec)), sequence, Settings())
    assert result.outcome == "passed", result.reason
