"""A case that no draw would give is refused, and one that was drawn never is."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest

from holotype_conformance.judge.drawing import draw
from holotype_conformance.judge.engine import Settings, judge, reason_to_skip
from holotype_conformance.judge.given_case import CaseError, demand_fit, read_case
from holotype_conformance.judge.property import Case, Property, Skip
from holotype_conformance.judge.records import Request
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.run.session import RequestError, Session
from holotype_spec import load

pytestmark = pytest.mark.slow

SPECS = ("gpt2", "bert-base-uncased", "t5-small", "mistral-7b", "xlnet-base-cased", "qwen2-7b")
REFUSED = [
    ("agreement.logits", '{"length": 0}', "`int` >= 1"),
    ("agreement.logits", '{"length": 3, "layers": 0}', "`int` >= 1"),
    ("agreement.logits", '{"length": 3, "layers": -1}', "`int` >= 1"),
    ("agreement.logits", '{"length": 3, "layers": 100}', "`int` <= 8"),
    ("agreement.logits", '{"length": 3, "batch": 0}', "`int` >= 1"),
    ("agreement.logits", '{"length": 3, "batch": 1000000}', "`int` <= 64"),
    ("agreement.logits", '{"length": 3, "weights": -1}', "`int` >= 0"),
    ("agreement.logits", '{"length": 3, "tokens": 100000}', "`int` <= 999"),
    ("agreement.logits", '{"length": 3, "padding": "middle"}', "enum value"),
    ("agreement.logits", '{"length": 1000}', "length 1000 is more than the 523 tokens"),
    ("agreement.logits", "[" * 100_000, "is not a case"),
    ("cache.chunks", '{"length": 3, "cuts": []}', "do not rise"),
    ("cache.chunks", '{"length": 3, "cuts": [2, 1]}', "do not rise"),
    ("cache.chunks", '{"length": 3, "cuts": [3]}', "do not rise"),
    ("cache.chunks", '{"length": 3, "cuts": [1], "padding": "left"}', "padding is never"),
    ("causality.truncation", '{"length": 3, "kept": 3}', "kept 3 is not less than length 3"),
    (
        "causality.future-perturbation",
        '{"length": 3, "position": 3}',
        "position 3 is not one of 3 tokens",
    ),
    (
        "padding.right-invariance",
        '{"length": 3, "batch": 2, "padding": "left"}',
        "padding is never",
    ),
    ("parameters.count", '{"size": "tiny"}', "enum value"),
    ("parameters.scaling", '{"layers": 0}', "`int` >= 1"),
]


def of(slug: str) -> Property:
    return next(each for each in all_properties() if each.slug == slug)


@pytest.fixture(scope="module")
def gpt2() -> Subject:
    return Subject(ReferenceCandidate(), load("gpt2"))


@pytest.mark.parametrize(("slug", "case", "said"), REFUSED)
def test_what_no_draw_would_give_is_refused(gpt2: Subject, slug: str, case: str, said: str) -> None:
    with pytest.raises(CaseError, match=said):
        judge(gpt2, of(slug), Settings(case=case))


def test_a_refusal_rejects_the_request_and_tells_the_parent() -> None:
    told: list[Any] = []
    asked = Request(
        target="reference",
        specs=("gpt2",),
        properties=("cache.chunks",),
        case='{"length": 3, "cuts": [9]}',
    )
    run = Session(asked, ReferenceCandidate(), notify=told.append)
    with pytest.raises(RequestError, match="do not rise"):
        run.judge(run.specs[0], run.properties[0])
    assert "do not rise" in told[-1].message


@pytest.mark.parametrize("name", SPECS)
def test_what_is_drawn_fits(name: str) -> None:
    subject = Subject(ReferenceCandidate(), load(name))
    for property_ in all_properties():
        if reason_to_skip(subject, property_) is None:
            _demand_all_fit(property_, subject)


def test_what_is_drawn_for_kernels_fits() -> None:
    subject: Any = KernelSubject(resolve_kernel("sdpa"))
    for property_ in kernel_properties():
        if reason_to_skip(subject, property_) is None:
            _demand_all_fit(property_, subject)


def _demand_all_fit(property_: Property, subject: Any) -> None:
    seen = 0

    def fits(case: Case) -> None:
        nonlocal seen
        seen += 1
        assert read_case(property_, msgspec.json.encode(case).decode()) == case
        assert case.misfit(subject) is None
        if seen == 12:
            demand_fit(property_, subject, case)

    with suppress(Skip):  # what depends on the machine
        draw(property_.cases(subject), fits, seed=1, examples=25, shrink=False)


@pytest.mark.parametrize(
    ("slug", "case", "said"),
    [
        ("formula.float64", '{"queries": 0, "keys": 3}', "`int` >= 1"),
        ("formula.float64", '{"queries": 3, "keys": 3, "heads": 3, "kv_heads": 2}', "evenly"),
        ("lengths.empty", '{"queries": 0, "keys": 3, "dtype": "float32"}', "dtype is never"),
    ],
)
def test_problems_that_are_none_are_refused_for_kernels(slug: str, case: str, said: str) -> None:
    subject: Any = KernelSubject(resolve_kernel("sdpa"))
    property_ = next(each for each in kernel_properties() if each.slug == slug)
    with pytest.raises(CaseError, match=said):
        judge(subject, property_, Settings(case=case))
