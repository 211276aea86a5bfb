"""The properties of other devices, kernels, threads and compilation: what they catch, and what they leave alone."""

from dataclasses import replace

import pytest
import torch

from holotype_conformance.commands.measure_devices import page
from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Environment, Request, Result
from holotype_conformance.judge.verdict import reported
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import FunctionCandidate
from holotype_conformance.models.deviations import DeviatedCandidate, find
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_conformance.torch_tools import backends as machine
from holotype_conformance.torch_tools.fake_device import ELSEWHERE, places
from holotype_reference.model import build
from holotype_spec import load

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
ON_GPU = [
    f"devices.{name}" for name in ("float64", "float32", "bfloat16", "float16", "tensorfloat")
]
ANYWHERE = [
    "devices.placement",
    "devices.back-ends",
    "devices.threads",
    "devices.settings-kept",
    "batch.rounding",
]
GPT2 = load("gpt2")


def verdict(candidate, slug, *, spec=GPT2, dtypes=(), **settings):
    subject = Subject(candidate, spec, dtypes=dtypes)
    return judge(subject, PROPERTIES[slug], Settings(named=True, **settings))


@pytest.fixture
def beside(monkeypatch):
    """The CPU under another name, on which another candidate runs."""

    def put(candidate):
        real = Subject.on

        def on(self, device):
            if device == torch.device("cpu", 0):
                return Subject(candidate, self.spec, seed=self.seed, dtypes=self.asked)
            return real(self, device)

        monkeypatch.setattr(machine, "cuda_device", lambda asked: torch.device("cpu", 0))
        monkeypatch.setattr(Subject, "on", on)

    return put


# Without a GPU --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("slug", ON_GPU)
def test_without_a_gpu_they_are_skipped_with_the_reason(slug):
    result = verdict(ReferenceCandidate(), slug)
    assert result.outcome == "skipped"
    assert result.reason.startswith("no CUDA device: ")


@pytest.mark.parametrize("slug", ON_GPU)
def test_a_candidate_that_is_the_same_on_both_devices_passes(slug, beside):
    beside(ReferenceCandidate())
    assert verdict(ReferenceCandidate(), slug).outcome == "passed"


@pytest.mark.parametrize("slug", ON_GPU)
def test_a_candidate_that_is_another_on_the_gpu_fails(slug, beside):
    beside(DeviatedCandidate(find("activation.relu")))
    result = verdict(ReferenceCandidate(), slug)
    assert result.outcome == "failed"
    assert "on the GPU and on the CPU differ" in result.reason


class Autocast(ReferenceCandidate):
    """Right, but for products in bfloat16."""

    def forward(self, model, inputs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = super().forward(model, inputs)
        dtype = next(model.parameters()).dtype
        return type(outputs)(logits=outputs.logits.to(dtype))


def test_a_lower_precision_on_the_gpu_alone_is_no_rounding(beside):
    beside(Autocast())
    result = verdict(ReferenceCandidate(), "devices.float32")
    assert result.outcome == "failed"
    assert result.counterexample.facts["error"] > 100 * result.counterexample.facts["budget"]


# On any machine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["gpt2", "bert-base-uncased", "t5-small", "mistral-7b-v0.1"])
@pytest.mark.parametrize("slug", ANYWHERE)
def test_the_reference_is_not_flagged(spec, slug):
    assert verdict(ReferenceCandidate(), slug, spec=load(spec), seed=1).outcome == "passed"


@pytest.mark.parametrize("spec", ["gpt2", "bert-base-uncased", "t5-small", "llama3-8b"])
@pytest.mark.parametrize("slug", ANYWHERE)
def test_transformers_is_not_flagged(spec, slug):
    pytest.importorskip("transformers")
    from holotype_conformance.models.targets import resolve

    assert verdict(resolve("hf"), slug, spec=load(spec), seed=1).outcome == "passed"


@pytest.mark.parametrize(
    ("deviation", "slug"),
    [
        ("devices.table-left-behind", "devices.placement"),
        ("devices.positions-on-cpu", "devices.placement"),
        ("devices.reduced-sums", "devices.settings-kept"),
        ("threads.rest-dropped", "devices.threads"),
        ("backends.fallback-unpadded", "devices.back-ends"),
        ("batch.one-scale", "batch.rounding"),
        ("compiled.unpadded", "devices.captured"),
    ],
)
def test_each_catches_what_it_is_there_for(deviation, slug):
    candidate = DeviatedCandidate(find(deviation), paths=("fused",))
    result = verdict(candidate, slug)
    assert result.outcome == "failed", result.reason


def test_capturing_a_right_model_changes_nothing():
    class OnePath(ReferenceCandidate):
        paths = ("fused",)

    assert verdict(OnePath(), "devices.captured").outcome == "passed"


def test_logits_that_come_back_on_the_cpu_are_said():
    class Returning(ReferenceCandidate):
        def forward(self, model, inputs):
            outputs = super().forward(model, inputs)
            return type(outputs)(logits=outputs.logits.cpu())

    result = verdict(Returning(), "devices.placement")
    assert result.outcome == "failed"
    assert "the logits are on the CPU" in result.reason


def test_what_the_simulated_device_cannot_run_is_no_failure():
    class ThroughNumpy(ReferenceCandidate):
        def forward(self, model, inputs):
            inputs.token_ids.numpy()
            return super().forward(model, inputs)

    result = verdict(ThroughNumpy(), "devices.placement")
    assert result.outcome == "skipped"
    assert result.reason.startswith("the simulated device cannot run it: ")


# The suite's own tensors ----------------------------------------------------------------------------------------

# What the simulated device cannot do, gradients that are not kept, pickles and inference mode, is left out.
MOVED = [
    slug
    for slug, property_ in PROPERTIES.items()
    if slug.partition(".")[0]
    in ("interface", "agreement", "causality", "padding", "batch", "positions", "cache")
    and not property_.costly
]


@pytest.mark.parametrize("spec", ["gpt2", "t5-small"])
def test_what_the_suite_makes_lies_on_the_device_that_was_asked_for(spec):
    with places():
        subject = Subject(ReferenceCandidate(), load(spec), device=str(ELSEWHERE))
        for slug in MOVED:
            few = replace(PROPERTIES[slug], examples=1)
            result = judge(subject, few, Settings(limit=0.0))
            assert result.outcome in ("passed", "skipped"), (slug, result.reason)


# Float32 inside of float64 --------------------------------------------------------------------------------------


class NarrowNorm(ReferenceCandidate):
    """Its last norm returns what float32 holds."""

    def build(self, spec, path="fused"):
        model = super().build(spec, path)
        norm = model.writer.final_norm
        right = norm.forward
        norm.forward = lambda x: right(x).float().to(x.dtype)
        return model


def test_an_error_of_the_size_of_float32s_rounding_is_called_that():
    result = verdict(NarrowNorm(), "agreement.logits")
    assert result.outcome == "failed"
    assert "the candidate seems to compute a part of this in float32" in result.reason
    assert 1e-9 < result.counterexample.facts["error"] < 1e-5


def test_a_larger_error_is_not():
    result = verdict(DeviatedCandidate(find("activation.gelu")), "agreement.logits")
    assert result.outcome == "failed"
    assert "float32" not in result.reason


# Evidence -------------------------------------------------------------------------------------------------------


def test_a_result_tells_the_error_that_came_nearest_its_budget():
    result = verdict(ReferenceCandidate(), "agreement.bfloat16")
    assert 0.5 * result.budget < result.error <= result.budget
    assert 1e-3 < result.budget < 1e-1
    assert verdict(ReferenceCandidate(), "parameters.count").budget is None


def test_the_page_lists_what_was_measured_and_by_name_what_was_not():
    environment = Environment(
        python="3.11",
        torch="2.13",
        platform="Linux",
        device="cpu",
        versions={"torch": "2.13"},
        arithmetic={"float32 products": "highest"},
    )

    def result(slug, outcome, **facts):
        return Result(property=slug, level="must", outcome=outcome, seconds=1.0, **facts)

    def found(candidate, spec, *results, unusable=None):
        return reported(
            Request(target=candidate, specs=(spec,)),
            results,
            holotype="1.0",
            spec=spec,
            candidate=candidate,
            parameters=None,
            unusable=unusable,
            suite=len(results),
            environment=environment,
        )

    lack = "no CUDA device: torch was built without CUDA"
    text = page(
        [
            found(
                "reference",
                "gpt2",
                result("devices.threads", "passed", cases=2, error=1e-15, budget=1e-12),
                result("devices.float64", "skipped", reason=lack),
            ),
            found("sdpa:cudnn", "attention", unusable="in no dtype"),
        ],
        "docs/devices.md",
    )
    assert "| reference, gpt2 | `devices.threads` | passed | 2 | 1.0e-15 | 1.0e-12 |" in text
    assert f"- `devices.float64`: {lack} (reference, gpt2)" in text
    assert "- `everything`: in no dtype (sdpa:cudnn)" in text
    assert "float32 products: highest" in text


# Dtypes ---------------------------------------------------------------------------------------------------------


def test_cases_are_drawn_in_the_dtypes_that_were_asked_for():
    seen = []
    verdict(
        ReferenceCandidate(),
        "devices.back-ends",
        dtypes=("bfloat16", "float16"),
        trying=lambda case: seen.append(case["dtype"]),
    )
    assert set(seen) == {"bfloat16", "float16"}


def test_without_weights_there_is_a_budget_in_float64_alone():
    def unnamed(spec):
        model = build(spec)
        model.register_parameter("another", torch.nn.Parameter(torch.ones(1)))
        return model

    candidate = FunctionCandidate(unnamed, "unnamed")
    seen = []
    result = verdict(candidate, "devices.back-ends", trying=lambda case: seen.append(case["dtype"]))
    assert result.outcome == "passed"
    assert set(seen) == {"float64"}
    result = verdict(candidate, "devices.back-ends", dtypes=("bfloat16",))
    assert result.outcome == "skipped"
    assert result.reason.startswith("nothing to measure a budget by: ")
