"""No property of kernels flags one that is right; what each catches is in mutation/test_kernel_kill_matrix.py."""

import json
import math

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.deviations import CATALOGUE, DeviatedKernel
from holotype_conformance.kernels.masks import visible, without_unseen
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.models.properties import all_properties
from holotype_conformance.torch_tools import backends as machine

pytestmark = pytest.mark.slow

# Those of prefixes and documents have tests of their own.
SPANS = ("prefix.", "documents.")
EVERY = {property_.slug: property_ for property_ in kernel_properties()}
PROPERTIES = {slug: each for slug, each in EVERY.items() if not slug.startswith(SPANS)}
ON_GPU = [
    f"hardware.{name}" for name in ("float64", "float32", "bfloat16", "float16", "tensorfloat")
]
TWICE = "gradients.second-derivatives"  # back ends of torch refuse it
COMPILED = ["hardware.captured", "hardware.compiled"]


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Where there is no GPU, the properties that need one are run against the CPU under another name."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(machine, "cuda_device", lambda asked: torch.device("cpu", 0))


# Right, in another way ------------------------------------------------------------------------------------------


def in_blocks(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    """Right, in another way: blocks of 16 keys and a running maximum; a row without keys gives zero."""
    k, v, mask = without_unseen(q, k, v, mask=mask, window=window)
    told = visible(q, k, mask=mask, causal=causal, window=window)
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) @ k.to(wide).mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if told is not None and told.dtype == torch.bool:
        scores = scores.masked_fill(~told, -math.inf)
    elif told is not None:
        scores = scores + told
    top = scores.new_full((*scores.shape[:3], 1), -math.inf)
    total, mixed = torch.zeros_like(top), torch.zeros_like(q, dtype=wide)
    for start in range(0, k.shape[2], 16):
        block = scores[..., start : start + 16]
        new = torch.maximum(top, block.detach().amax(-1, keepdim=True))
        safe = new.masked_fill(new.isneginf(), 0.0)
        powers, old = (block - safe).exp(), (top - safe).exp()
        total = old * total + powers.sum(-1, keepdim=True)
        mixed = old * mixed + powers @ v[:, :, start : start + 16].to(wide)
        top = new
    return (mixed / total.masked_fill(total == 0, 1.0)).to(v.dtype)


# What no deviation is ------------------------------------------------------------------------------------------


right = DeviatedKernel().attention


def ending(last):
    """A kernel whose result is what `last` makes of q and the right one."""

    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        return last(q, right(q, k, v, mask=mask, causal=causal, window=window, scale=scale))

    return attention


class Fickle:
    """Right in every other call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, q, k, v, *, causal=False):
        self.calls += 1
        found = right(q, k, v, causal=causal)
        return found * 1.1 if self.calls % 2 else found


def verdict(function, slug, **settings):
    own = isinstance(function, DeviatedKernel)
    subject = KernelSubject(function if own else FunctionKernel(function, "mine"))
    return judge(subject, EVERY[slug], Settings(named=True, **settings))


@pytest.mark.parametrize("slug", ON_GPU)
def test_what_another_device_does_otherwise_is_caught_and_the_case_fails_again(slug):
    result = verdict(Fickle(), slug)
    assert result.outcome == "failed", result
    case = result.counterexample.case
    assert verdict(Fickle(), slug, case=json.dumps(case)).outcome == "failed"


@pytest.mark.parametrize("block", [64, 128, 256])
def test_a_last_block_that_is_dropped_is_found_in_every_customary_size(block):
    dropped = DeviatedKernel(CATALOGUE.find(f"blocks.rest-dropped.{block}"))
    result = verdict(dropped, "lengths.block-edges")
    assert result.outcome == "failed"
    assert result.counterexample.case["keys"] % block == 1


@pytest.mark.parametrize("slug", [slug for slug in EVERY if slug != "hardware.compiled"])
def test_no_property_flags_the_formula_that_deviations_change(slug):
    result = verdict(DeviatedKernel(), slug)
    assert result.outcome == "passed", result


@pytest.mark.parametrize("slug", [slug for slug in PROPERTIES if slug != "hardware.compiled"])
def test_no_property_flags_a_kernel_that_is_right_in_another_way(slug):
    result = verdict(in_blocks, slug)
    assert result.outcome == "passed", result


@pytest.mark.parametrize("target", ["sdpa", "sdpa:math", "reference:fused"])
def test_torch_and_the_reference_are_right(target):
    subject = KernelSubject(resolve_kernel(target), seed=3)
    results = [judge(subject, property_, Settings(seed=3)) for property_ in EVERY.values()]
    assert {
        (result.property, result.reason)
        for result in results
        if result.outcome != "passed" and result.property not in COMPILED
        if not (result.outcome == "skipped" and result.property.startswith((*SPANS, TWICE)))
    } == set()


def test_the_flash_back_end_is_right_but_for_strides_that_it_refuses():
    subject = KernelSubject(resolve_kernel("sdpa:flash"))
    results = [judge(subject, property_, Settings()) for property_ in EVERY.values()]
    assert {result.property for result in results if result.breaks} <= {"contract.strides"}


def test_the_eager_path_of_the_reference_is_right_but_for_products_that_overflow():
    subject = KernelSubject(resolve_kernel("reference:eager"))
    results = [judge(subject, property_, Settings()) for property_ in EVERY.values()]
    left = {
        result.property: result.level
        for result in results
        if result.outcome != "passed" and result.property not in COMPILED
    }
    assert left in ({}, {"extremes.products-overflow": "should"})


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_the_interface_of_transformers_is_right_for_anything_but_nothing(name):
    pytest.importorskip("transformers")
    subject = KernelSubject(resolve_kernel(f"hf:{name}"))
    results = [judge(subject, property_, Settings()) for property_ in EVERY.values()]
    left = {result.property for result in results if result.breaks}
    assert left <= {"lengths.empty"}


def test_every_property_says_what_a_report_needs():
    for property_ in EVERY.values():
        assert len(property_.clause) <= 52
        assert property_.catches
        assert len(property_.meaning) > 100


def test_no_property_of_kernels_has_the_name_of_one_of_models():
    assert not EVERY.keys() & {property_.slug for property_ in all_properties()}


# Shrinking ------------------------------------------------------------------------------------------------------


def test_a_crash_for_one_length_is_shown_with_the_smallest_shape():
    def crashes(q, k, v):
        if q.shape[2] == 17:
            raise RuntimeError("no kernel image")
        return right(q, k, v)

    result = verdict(crashes, "formula.float64")
    assert result.outcome == "failed"
    assert result.reason == "attention raised RuntimeError: no kernel image"
    case = result.counterexample.case
    assert (case["queries"], case["keys"]) == (17, 17)
    assert verdict(crashes, "extremes.equal-scores").outcome in ("passed", "failed")


def test_a_nan_is_shown_with_the_smallest_shape():
    nan = DeviatedKernel(CATALOGUE.find("result.last-query-nan"))
    case = verdict(nan, "contract.finite").counterexample.case
    assert (case["queries"], case["keys"]) == (9, 9)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (lambda q, x: x[:, :, :-1], "the result has the shape"),
        (lambda q, x: (x, None), "attention returned tuple; expected a tensor"),
        (lambda q, x: x.to("meta"), "the result is on meta; expected cpu, as q"),
        (lambda q, x: x.float(), "the result is torch.float32; expected torch.float64, as q"),
    ],
)
def test_what_is_returned_wrongly_is_said(last, said):
    result = verdict(ending(last), "contract.result")
    assert result.outcome == "failed"
    assert result.reason.startswith(said)
