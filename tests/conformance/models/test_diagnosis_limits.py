"""Names that passing properties would contradict: candidates that are wrong in one region alone, and what they are
called."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.property import Violation
from holotype_conformance.models import diagnosis
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Floor, Inputs, Outputs
from holotype_conformance.models.cases import BatchCase
from holotype_conformance.models.deviations import DeviatedCandidate, find
from holotype_conformance.models.diagnosis import diagnose
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.properties.agreement import AgreementCase
from holotype_conformance.models.properties.caching import ChunkCase
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2, LLAMA, BERT, T5 = map(load, ("gpt2", "llama3-8b", "bert-base-uncased", "t5-small"))
KNOWN = (  # of the catalogue, which is searched whole in the first test, and in those of test_diagnosis.py
    "activation.relu",
    "activation.gelu",
    "cache.mask-top-left",
    "mask.cross-dropped",
    "mask.ends",
    "mask.padding-along-queries",
    "mask.padding-first-layer-only",
    "mask.padding-ignored",
    "positions.ids-ignored",
    "softmax.over-batch",
)
RELU = "if the activation is relu instead of gelu-tanh"


@pytest.fixture(autouse=True)
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests ask is where a name holds; a search among few names asks it, and takes a tenth of the time."""
    if "whole_catalogue" in request.fixturenames:
        return
    whole = diagnosis.applicable
    monkeypatch.setattr(
        diagnosis, "applicable", lambda spec: [each for each in whole(spec) if each.slug in KNOWN]
    )


@pytest.fixture
def whole_catalogue() -> None:
    """Search all deviations."""


class Partly(ReferenceCandidate):
    """The reference with deviations, but only `when` a call is so."""

    def __init__(self, when: Callable[[SimpleNamespace], bool], *slugs: str) -> None:
        self.when = when
        self.slugs = slugs
        self.wrong: WeakKeyDictionary[nn.Module, tuple[nn.Module, str]] = WeakKeyDictionary()

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        model = super().build(spec, path)
        deviated = DeviatedCandidate(*map(find, self.slugs or ("activation.relu",)))
        self.wrong[model] = deviated.build(spec, path), path
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        super().load(model, weights)
        first = next(model.parameters())
        super().load(self.wrong[model][0].to(first.device, first.dtype).eval(), weights)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return super().forward(self._chosen(model, inputs, cached=False), inputs)

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        return super().forward_cached(self._chosen(model, inputs, cached=True), inputs, cache)

    def _chosen(self, model: nn.Module, inputs: Inputs, *, cached: bool) -> nn.Module:
        wrong, path = self.wrong[model]
        call = SimpleNamespace(
            rows=len(inputs.token_ids),
            length=inputs.token_ids.shape[1],
            padding=padding(inputs.attention_mask),
            path=path,
            cached=cached,
            dtype=next(model.parameters()).dtype,
            gradients=torch.is_grad_enabled(),
            inputs=inputs,
        )
        return wrong if self.when(call) else model


def padding(mask: Tensor | None) -> str:
    if mask is None:
        return "none"
    if mask.all():
        return "ones"
    return "left" if not mask[:, 0].all() else "right"


def named(
    candidate: ReferenceCandidate,
    case: BatchCase,
    *,
    spec: Spec = GPT2,
    slug: str = "agreement.logits",
    **facts: Any,
) -> list[str]:
    found = diagnose(
        Subject(candidate, spec), PROPERTIES[slug], case, Violation("other logits", **facts)
    )
    start = f"agrees with {spec.name} "
    assert all(each.title.startswith(start) for each in found)
    return [each.title.removeprefix(start) for each in found]


@pytest.mark.parametrize(
    ("when", "case", "path", "limit"),
    [
        (lambda call: call.padding == "left", {"padding": "left"}, "fused", "only under left padding"),
        (lambda call: call.padding != "left", {}, "fused", "not under left padding"),
        (
            lambda call: call.padding in ("left", "right"),
            {"padding": "right"},
            "eager",
            "only under padding",
        ),
        (lambda call: call.padding == "none", {}, "fused", "only without a mask"),
        (lambda call: call.path == "eager", {}, "eager", "only on the path eager"),
        (lambda call: not call.cached, {}, "fused", "only in one pass"),
        (lambda call: call.rows == 1, {"batch": 1}, "fused", "only in a batch of one row"),
        (lambda call: call.rows > 1, {}, "fused", "only in batches of several rows"),
        (lambda call: call.length > 64, {"length": 90}, "fused", "only beyond 64 tokens in one pass"),
        (lambda call: call.length <= 200, {}, "fused", "only up to 200 tokens"),
        (lambda call: not call.gradients, {}, "fused", "not with gradients"),
        (lambda call: call.dtype is torch.float64, {}, "fused", "only in float64"),
        (
            lambda call: call.inputs.position_ids is not None and call.padding != "left",
            {"positions": "skipping"},
            "fused",
            "only with position ids that skip some",
        ),
        (
            lambda call: call.padding == "left" and call.path == "eager",
            {"padding": "left"},
            "eager",
            "only under left padding on the path eager",
        ),
        (
            lambda call: call.padding == "left" or call.path == "eager",
            {"padding": "left"},
            "fused",
            "not without padding or under right padding on the path fused",
        ),
    ],
)  # fmt: skip
def test_a_name_says_where_it_agrees(when, case, path, limit) -> None:  # type: ignore[no-untyped-def]
    given = AgreementCase(**{"length": 7, "batch": 2} | case)
    where = f", {limit}" if limit else ""
    assert named(Partly(when), given, path=path) == [f"{RELU}{where}"]


@pytest.mark.usefixtures("whole_catalogue")
def test_a_name_that_holds_everywhere_has_no_limit() -> None:
    assert named(Partly(lambda call: True), AgreementCase(length=7, batch=2)) == [RELU]


def test_what_is_wrong_through_a_cache_alone_is_called_so() -> None:
    case = ChunkCase(length=7, batch=2, cuts=(3, 4))
    found = named(Partly(lambda call: call.cached), case, slug="cache.chunks")
    assert found == [f"{RELU}, only through a cache"]


def test_regions_that_no_few_words_tell_apart_leave_no_name() -> None:
    def when(call: SimpleNamespace) -> bool:
        return (call.padding == "left") == (call.path == "fused")

    assert named(Partly(when), AgreementCase(length=7, batch=2, padding="left")) == []


def test_what_agrees_on_tiny_inputs_alone_is_no_explanation() -> None:
    assert named(Partly(lambda call: call.length < 5), AgreementCase(length=4, batch=2)) == []


@pytest.mark.parametrize(
    ("slug", "spec", "case"),
    [
        ("mask.padding-ignored", BERT, AgreementCase(length=7, batch=2, padding="right")),
        ("mask.padding-first-layer-only", GPT2, AgreementCase(length=7, batch=2, padding="left")),
        ("positions.ids-ignored", LLAMA, AgreementCase(length=7, positions="skipping")),
        ("cache.mask-top-left", LLAMA, ChunkCase(length=7, batch=2, cuts=(3,))),
        ("mask.cross-dropped", T5, AgreementCase(length=7, batch=2, pad_source=True)),
        ("softmax.over-batch", GPT2, AgreementCase(length=7, batch=2)),
        ("mask.ends", GPT2, AgreementCase(length=300)),
    ],
)
def test_what_makes_no_difference_elsewhere_needs_no_limit(slug, spec, case) -> None:  # type: ignore[no-untyped-def]
    chunked = isinstance(case, ChunkCase)
    found = diagnose(
        Subject(DeviatedCandidate(find(slug)), spec),
        PROPERTIES["cache.chunks" if chunked else "agreement.logits"],
        case,
        Violation("other logits"),
    )
    assert found[0].deviation == slug
    assert found[0].title == f"agrees with {spec.name} if {find(slug).title(spec)}"


def test_of_two_mistakes_that_meet_in_some_regions_both_are_named() -> None:
    both = DeviatedCandidate(find("activation.relu"), find("mask.padding-along-queries"))
    (found,) = named(both, AgreementCase(length=7, batch=2))
    assert found.startswith(f"{RELU} and ")
    assert "only" not in found


def test_failures_with_one_cause_have_one_name_wherever_they_showed() -> None:
    subject = Subject(Partly(lambda call: call.path == "eager"), GPT2)
    slugs = ("agreement.logits", "agreement.faint-logits", "cache.chunks", "padding.all-ones")
    results = [judge(subject, PROPERTIES[slug], Settings(diagnose=diagnose)) for slug in slugs]
    titles = {each.title for result in results for each in result.diagnosis}
    assert titles == {f"agrees with gpt2 {RELU}, only on the path eager"}
    assert [len(result.diagnosis) for result in results[:2]] == [1, 1]


def test_a_region_in_which_the_candidate_crashes_tells_nothing() -> None:
    class Crashing(Partly):
        def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
            raise NotImplementedError("no cache today")

    assert named(Crashing(lambda call: True), AgreementCase(length=7, batch=2)) == [RELU]


class Coarse(Partly):
    """One that states to be off by 3 %, and is: by numbers that have no name."""

    def __init__(self, noise: float, when: Callable[[SimpleNamespace], bool]) -> None:
        super().__init__(when)
        self.noise = noise

    def floor(self, spec: Spec) -> Floor:
        return Floor(relative=0.03, reason="it is coarse")

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        logits = super().forward(model, inputs).logits
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        return Outputs(logits=logits + self.noise * logits.std() * noise)


def test_of_a_coarse_candidate_nothing_is_said_that_merely_lies_near() -> None:
    unnamed = Coarse(0.3, lambda call: False)
    assert named(unnamed, AgreementCase(length=7, batch=2)) == []


def test_a_coarse_candidate_is_named_where_the_name_is_far_nearer_than_what_it_claims_to_be() -> (
    None
):
    relu = Coarse(0.003, lambda call: True)
    assert named(relu, AgreementCase(length=7, batch=2)) == [RELU]
