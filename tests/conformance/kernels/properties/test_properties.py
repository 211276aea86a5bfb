"""Every property of kernels catches the bug that it is there for, and flags no kernel that is right."""

import json
import math
import os
from functools import partial
from pathlib import Path
from runpy import run_path

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.models.properties import all_properties
from holotype_conformance.torch_tools import backends as machine

pytestmark = pytest.mark.slow

tiled = run_path(str(Path(__file__).parents[1] / "tiled_kernels.py"))["tiled"]

# Those of prefixes and documents have tests of their own.
SPANS = ("prefix.", "documents.")
EVERY = {property_.slug: property_ for property_ in kernel_properties()}
PROPERTIES = {slug: each for slug, each in EVERY.items() if not slug.startswith(SPANS)}
ON_GPU = [
    f"hardware.{name}" for name in ("float64", "float32", "bfloat16", "float16", "tensorfloat")
]
TWICE = "gradients.twice"  # back ends of torch refuse it
COMPILED = ["hardware.captured", "hardware.compiled"]


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Where there is no GPU, the properties that need one are run against the CPU under another name."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(machine, "cuda_device", lambda asked: torch.device("cpu", 0))


# A kernel in steps, each of which can be broken -----------------------------------------------------------------


def prepare(q, k, v):
    group = q.shape[1] // k.shape[1]
    return q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)


def scored(q, k, scale):
    wide = torch.promote_types(q.dtype, torch.float32)
    return (q.to(wide) @ k.to(wide).mT) * (q.shape[-1] ** -0.5 if scale is None else scale)


def pattern(queries, keys, causal, window):
    away = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
    seen = away >= 0 if causal else torch.ones_like(away, dtype=torch.bool)
    return seen if window is None else seen & (away.abs() < window)


def told(scores, mask):
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -math.inf)
    return scores + mask


def weigh(scores):
    blind = scores.isneginf().all(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1)


def finish(weights, v):
    return weights.to(v.dtype) @ v


def zeroed(v, seen):
    """Values that no query sees may hold NaN, and 0 times NaN is NaN."""
    return v.masked_fill(~seen.any(-2)[:, None], 0.0) if seen.shape[0] else v


def kernel(
    prepare=prepare,
    scored=scored,
    pattern=pattern,
    told=told,
    weigh=weigh,
    finish=finish,
    last=None,
    zeroed=zeroed,
):
    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        given = q
        q, k, v = prepare(q, k, v)
        scores = scored(q, k, scale)
        seen = pattern(q.shape[2], k.shape[2], causal, window).to(q.device)
        if causal or window is not None:
            scores = scores.masked_fill(~seen, -math.inf)
            v = zeroed(v, seen)
        result = finish(weigh(told(scores, mask)), v)
        return result if last is None else last(given, result)

    return attention


def in_blocks(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    """Right, in another way: blocks of 16 keys and a running maximum; a row without keys gives zero."""
    q, k, v = prepare(q, k, v)
    seen = pattern(q.shape[2], k.shape[2], causal, window).to(q.device)
    v = zeroed(v, seen)
    scores = told(scored(q, k, scale).masked_fill(~seen, -math.inf), mask)
    wide = scores.dtype
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


# Bugs -----------------------------------------------------------------------------------------------------------


def nan_at_nine(q, result):
    last = torch.arange(q.shape[2])[:, None] == q.shape[2] - 1
    return result.masked_fill(last, math.nan) if q.shape[2] >= 9 else result


def scales_in_place(q, k, v):
    if torch.is_grad_enabled():
        return prepare(q, k, v)
    return prepare(q.mul_(0.99), k, v)


def stops_without_q(q, k, v):
    """Where q requires no gradient, none of k is computed."""
    stopped = torch.is_grad_enabled() and not q.requires_grad
    return prepare(q, 0.0 * k + k.detach() if stopped else k, v)


def ignores_strides(q, k, v):
    def flat(x):
        strides = torch.empty(x.shape, device="meta").stride()
        return x.as_strided(x.shape, strides, x.storage_offset())

    return prepare(flat(q), flat(k), flat(v))


def half_the_gradient(scores):
    weights = weigh(scores)
    return (weights + weights.detach()) / 2


class Detached(torch.autograd.Function):
    """The softmax with a backward pass that autograd does not see through."""

    @staticmethod
    def forward(ctx, scores):
        ctx.weights = weigh(scores).detach()
        return ctx.weights.clone()

    @staticmethod
    def backward(ctx, upstream):
        return ctx.weights * (upstream - (ctx.weights * upstream).sum(-1, keepdim=True))


def one_in_the_denominator(scores):
    top = scores.amax(-1, keepdim=True)
    powers = (scores - top).exp()
    return powers / (powers.sum(-1, keepdim=True) + (-top).exp())


def drops_the_rest(scores, block=16):
    keys = scores.shape[-1]
    if keys > block and keys % block:
        scores = scores.masked_fill(torch.arange(keys) >= keys // block * block, -math.inf)
    return weigh(scores)


def unshifted(scores):
    powers = scores.exp()
    return powers / powers.sum(-1, keepdim=True)


def starts_at(lowest):
    def weigh(scores):
        powers = (scores - scores.amax(-1, keepdim=True).clamp_min(lowest)).exp()
        return powers / powers.sum(-1, keepdim=True)

    return weigh


def sums_first(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    powers = kernel(weigh=lambda s: (s - s.amax(-1, keepdim=True)).exp())
    options = {"mask": mask, "causal": causal, "window": window, "scale": scale}
    return powers(q, k, v, **options) / powers(q, k, torch.ones_like(v), **options)


def upper_left(queries, keys, causal, window):
    return (
        pattern(queries, max(queries, keys), causal, window)[:, :keys]
        if queries >= keys
        else (pattern(keys, keys, causal, window)[:queries])
    )


def one_too_far(queries, keys, causal, window):
    if causal and window is None:
        return torch.ones(queries, keys).tril(keys - queries + 1).bool()
    return pattern(queries, keys, causal, window)


def one_query_only(scores, mask):
    if mask is not None and mask.shape[2] == 1 < scores.shape[2]:
        first = torch.arange(scores.shape[2])[:, None] == 0
        return torch.where(first, told(scores, mask), scores)
    return told(scores, mask)


def either(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    return kernel()(q, k, v, mask=mask, causal=causal and mask is None, window=window, scale=scale)


def cuts_the_head(q, k, v):
    width = q.shape[-1]
    kept = width // 8 * 8 or width
    keep = torch.arange(width) < kept
    return prepare(q * keep, k, v)


def cuts_the_keys(scores):
    few = scores.shape[-2] < scores.shape[-1]
    hidden = torch.arange(scores.shape[-1]) >= scores.shape[-2]
    return weigh(scores.masked_fill(hidden, -math.inf) if few else scores)


def refuses_nothing(q, k, v):
    if not q.numel():
        raise RuntimeError("invalid configuration: an empty grid")
    return prepare(q, k, v)


def bias_scaled(scores, mask):
    return told(scores, mask if mask is None or mask.dtype == torch.bool else mask * 0.5)


def clamps(lowest):
    def clamped(scores, mask):
        if mask is None or mask.dtype == torch.bool:
            return told(scores, mask)
        return scores + mask.clamp(min=lowest)

    return clamped


def adds_lowest(scores, mask):
    if mask is None or mask.dtype != torch.bool:
        return told(scores, mask)
    return scores - 1e4 * ~mask


def refuses_no_keys(scores):
    return weigh(scores - scores.amax(-1, keepdim=True))


def only_here(q, k, v):
    return prepare(q * torch.ones(q.shape[-1], dtype=q.dtype), k, v)


def drops_rows(q, result):
    """The rows that do not divide among the threads."""
    rows = result.shape[0] * result.shape[1] * result.shape[2]
    split = torch.get_num_threads()
    served = torch.arange(rows) < rows // split * split
    return result * served.view(*result.shape[:3], 1).to(q.device)


def without_fused(scores):
    fused = torch.backends.cuda.flash_sdp_enabled()
    return weigh(scores if fused else scores * 0.9)


def when_compiled(scores):
    return weigh(scores * 0.9 if torch.compiler.is_compiling() else scores)


class Fickle:
    """Right in every other call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, q, k, v, *, causal=False):
        self.calls += 1
        right = kernel()(q, k, v, causal=causal)
        return right * 1.1 if self.calls % 2 else right


BUGS = {
    "contract.result": kernel(last=lambda q, result: result.float()),
    "contract.finite": kernel(last=nan_at_nine),
    "contract.inputs-unwritten": kernel(prepare=scales_in_place),
    "contract.deterministic": kernel(last=lambda q, x: x * (1 + 0.01 * torch.rand(1).to(x))),
    "contract.strides": kernel(prepare=ignores_strides),
    **{
        f"formula.{dtype}": kernel(scored=lambda q, k, scale: 1.3 * scored(q, k, scale))
        for dtype in ("float64", "float32", "bfloat16", "float16")
    },
    "formula.scale": kernel(scored=lambda q, k, scale: scored(q, k, scale or None)),
    **{
        f"gradients.{dtype}": kernel(weigh=half_the_gradient)
        for dtype in ("float64", "float32", "bfloat16", "float16")
    },
    "gradients.some": kernel(prepare=stops_without_q),
    "gradients.twice": kernel(weigh=Detached.apply),
    "algebra.convex": kernel(finish=lambda weights, v: finish(weights, v) * 0.9),
    "algebra.score-shift": kernel(weigh=one_in_the_denominator),
    "algebra.key-permutation": kernel(
        scored=lambda q, k, scale: scored(q, k, scale) + 0.1 * torch.arange(k.shape[2])
    ),
    "algebra.linear-in-values": kernel(finish=lambda weights, v: finish(weights, v.clamp(-2, 2))),
    "algebra.heads-apart": kernel(
        finish=lambda weights, v: finish(weights, v + 0.1 * v.mean(1, keepdim=True))
    ),
    "algebra.grouped-heads": kernel(
        prepare=lambda q, k, v: (
            q,
            k.repeat(1, q.shape[1] // k.shape[1], 1, 1),
            v.repeat(1, q.shape[1] // k.shape[1], 1, 1),
        )
    ),
    "masks.causal": kernel(pattern=one_too_far),
    "masks.diagonal": kernel(pattern=upper_left),
    "masks.window": kernel(
        pattern=lambda n, m, causal, window: pattern(n, m, causal, window and window + 1)
    ),
    "masks.band": kernel(pattern=lambda n, m, causal, window: pattern(n, m, True, window)),
    "masks.boolean": kernel(
        told=lambda s, m: told(s, ~m if m is not None and m.dtype == torch.bool else m)
    ),
    "masks.additive": kernel(told=bias_scaled),
    "masks.broadcast": kernel(told=one_query_only),
    "masks.agree": kernel(told=clamps(-3.0)),
    "masks.hidden-keys": kernel(told=adds_lowest),
    "masks.together": either,
    "masks.no-key": kernel(weigh=lambda scores: scores.softmax(-1)),
    "masks.unseen-nan": kernel(zeroed=lambda v, seen: v),
    "lengths.block-edges": kernel(weigh=drops_the_rest),
    "lengths.rising-scores": tiled(256, "blocks.output-not-rescaled"),
    "lengths.cache": tiled(128, "blocks.upper-left"),
    "lengths.query-length": kernel(weigh=cuts_the_keys),
    "lengths.head-dim": kernel(prepare=cuts_the_head),
    "lengths.empty": kernel(prepare=refuses_nothing),
    "lengths.no-keys": kernel(weigh=refuses_no_keys),
    "lengths.masks": either,
    "extremes.large-scores": kernel(weigh=unshifted),
    "extremes.equal-scores": kernel(weigh=starts_at(-100.0)),
    "extremes.additive-mask": kernel(told=clamps(-1e3)),
    "extremes.large-values": sums_first,
    "extremes.products-overflow": kernel(
        scored=lambda q, k, scale: (q @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    ),
    "hardware.placement": kernel(prepare=only_here),
    **dict.fromkeys(ON_GPU, Fickle()),
    "hardware.back-ends": kernel(weigh=without_fused),
    "hardware.threads": kernel(last=drops_rows),
    "hardware.batch-sizes": kernel(
        finish=lambda weights, v: finish(weights, v + 0.1 * v.mean(0, keepdim=True))
    ),
    "hardware.captured": kernel(weigh=when_compiled),
    "hardware.compiled": kernel(weigh=when_compiled),
}


def verdict(function, slug, **settings):
    subject = KernelSubject(FunctionKernel(function, "mine"))
    if slug == "hardware.compiled" and os.environ.get("HOLOTYPE_KILL_MATRIX") != "full":
        pytest.skip("the compiler takes a minute: it runs with HOLOTYPE_KILL_MATRIX=full")
    return judge(subject, PROPERTIES[slug], Settings(named=True, **settings))


@pytest.mark.parametrize("slug", PROPERTIES)
def test_each_property_catches_its_bug_and_the_case_that_it_shows_fails_again(slug):
    result = verdict(BUGS[slug], slug)
    assert result.outcome == "failed", result
    case = result.counterexample.case
    again = verdict(BUGS[slug], slug, case=json.dumps(case))
    assert again.outcome == "failed"


@pytest.mark.parametrize("block", [64, 128, 256])
def test_a_last_block_that_is_dropped_is_found_in_every_customary_size(block):
    result = verdict(kernel(weigh=partial(drops_the_rest, block=block)), "lengths.block-edges")
    assert result.outcome == "failed"
    assert result.counterexample.case["keys"] == block + 1


@pytest.mark.parametrize("slug", [slug for slug in PROPERTIES if slug != "hardware.compiled"])
@pytest.mark.parametrize("function", [kernel(), in_blocks], ids=["in steps", "in blocks"])
def test_no_property_flags_a_kernel_that_is_right(function, slug):
    result = verdict(function, slug)
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


def test_every_property_has_its_bug_and_says_what_a_report_needs():
    assert list(BUGS) == list(PROPERTIES)
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
        return kernel()(q, k, v)

    result = verdict(crashes, "formula.float64")
    assert result.outcome == "failed"
    assert result.reason == "attention raised RuntimeError: no kernel image"
    case = result.counterexample.case
    assert (case["queries"], case["keys"]) == (17, 17)
    assert verdict(crashes, "extremes.equal-scores").outcome in ("passed", "failed")


def test_a_nan_is_shown_with_the_smallest_shape():
    case = verdict(BUGS["contract.finite"], "contract.finite").counterexample.case
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
    result = verdict(kernel(last=last), "contract.result")
    assert result.outcome == "failed"
    assert result.reason.startswith(said)
