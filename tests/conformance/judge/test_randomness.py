"""A candidate that is wrong at random is found out, and found out again by the line that reruns it."""

import random
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Property
from holotype_conformance.judge.randomness import random_states, seed_of
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.deviations import DeviatedCandidate, find
from holotype_conformance.models.properties.agreement import logits
from holotype_conformance.models.properties.modes import REPEATS, determinism
from holotype_conformance.models.subject import Subject
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

GPT2 = load("gpt2")
GENERATORS: dict[str, Callable[[], float]] = {
    "Python": random.random,
    "NumPy": np.random.rand,
    "torch": lambda: float(torch.rand(())),
}


class Unreliable(ReferenceCandidate):
    """The reference, half as large again at random."""

    paths = ("fused",)

    def __init__(self, draw: Callable[[], float], rate: float) -> None:
        self.draw = draw
        self.rate = rate

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        self.draw()  # initialisations draw too, which moves nothing that comes later
        return super().build(spec, path)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        factor = 1.5 if self.draw() < self.rate else 1.0
        return Outputs(logits=factor * super().forward(model, inputs).logits)


def judged(
    draw: Callable[[], float], property_: Property, *, rate: float = 0.08, case: str | None = None
) -> Result:
    subject = Subject(Unreliable(draw, rate), GPT2)
    return judge(subject, property_, Settings(case=case))


@pytest.mark.parametrize(
    ("property_", "rate"), [(determinism, 0.08), (logits, 0.5)], ids=["determinism", "logits"]
)
@pytest.mark.parametrize("draw", GENERATORS.values(), ids=GENERATORS)
def test_one_that_is_wrong_at_random_is_found_out_and_found_again(
    draw: Callable[[], float], property_: Property, rate: float
) -> None:
    result = judged(draw, property_, rate=rate)
    assert result.outcome == "failed"
    assert result.counterexample is not None
    case = msgspec.json.encode(result.counterexample.case).decode()
    again = judged(draw, property_, rate=rate, case=case)
    assert (again.outcome, again.reason) == ("failed", result.reason)


def test_one_that_no_seed_reaches_is_found_out_by_calling_often() -> None:
    system = random.SystemRandom()
    # At a rate of 0.08 it is missed once in some 150 runs: a test must not be.
    assert judged(system.random, determinism, rate=0.5).outcome == "failed"


def test_the_same_call_is_repeated_in_other_states_of_each_generator() -> None:
    seen: dict[str, set[float]] = {name: set() for name in GENERATORS}

    class Looking(ReferenceCandidate):
        paths = ("fused",)

        def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
            for name, draw in GENERATORS.items():
                seen[name].add(draw())
            return super().forward(model, inputs)

    case = '{"length": 5}'
    assert judge(Subject(Looking(), GPT2), determinism, Settings(case=case)).outcome == "passed"
    assert min(map(len, seen.values())) > REPEATS


@pytest.mark.parametrize("slug", ["dropout.layers-by-python", "dropout.layers-by-numpy"])
def test_layers_that_are_dropped_in_eval_mode_are_found_out(slug: str) -> None:
    result = judge(Subject(DeviatedCandidate(find(slug)), GPT2), determinism, Settings())
    assert result.outcome == "failed"


def test_states_are_given_back() -> None:
    before = [draw() for draw in _fixed()]
    with random_states(7):
        inside = [draw() for draw in GENERATORS.values()]
        with random_states(7):
            assert [draw() for draw in GENERATORS.values()] == inside
    fixed = _fixed()
    with random_states(1):
        pass
    assert [draw() for draw in fixed] == before
    assert seed_of(0, "a", 1) != seed_of(0, "a", 2)


def _fixed() -> list[Callable[[], float]]:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    return list(GENERATORS.values())


def test_the_second_of_a_pair_of_normal_numbers_is_given_back() -> None:
    np.random.seed(3)
    expected = np.random.randn(4).tolist()
    np.random.seed(3)
    first = np.random.randn()
    with random_states(1):
        np.random.randn()
        with random_states(2):
            np.random.randn()
    assert [first, *np.random.randn(3)] == expected
