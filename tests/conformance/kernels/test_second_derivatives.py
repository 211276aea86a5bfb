"""Second derivatives: kernels that lose them without a word are caught and told what is constant; the others pass."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.diagnosis import diagnose
from holotype_conformance.kernels.double_backward import NAMES, bent
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.second_derivatives import Along, curvature
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.targets import resolve_kernel

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}
GRADIENTS = [f"gradients.{dtype}" for dtype in ("float64", "float32", "bfloat16", "float16")]


def judged(function, slug="gradients.second-derivatives"):
    subject = KernelSubject(FunctionKernel(function, "mine"))
    return judge(subject, PROPERTIES[slug], Settings(diagnose=diagnose))


# Kernels with a backward pass of their own ------------------------------------------------------------------------


def scored(q, k, scale, causal):
    scores = scale * q @ k.mT
    if causal:
        away = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2]
        scores = scores.masked_fill(away < torch.arange(k.shape[2]), -math.inf)
    return scores


def backward_of(q, k, v, output, log_sum, upstream, by_log_sum, scale, causal):
    weights = (scored(q, k, scale, causal) - log_sum).exp()
    row_sums = (upstream * output).sum(-1, keepdim=True)
    by_score = scale * weights * (upstream @ v.mT - row_sums + by_log_sum)
    return by_score @ k, by_score.mT @ q, weights.mT @ upstream


def function(*, wrapped=lambda backward: backward, forget=()):
    """An attention function that keeps its output and the logarithm of the sum; what it is to forget is detached."""

    class Attention(Function):
        @staticmethod
        def forward(ctx, q, k, v, scale, causal):
            scores = scored(q, k, scale, causal)
            log_sum = scores.logsumexp(-1, keepdim=True)
            output = (scores - log_sum).exp() @ v
            ctx.scale, ctx.causal = scale, causal
            ctx.save_for_backward(q, k, v, output, log_sum)
            return output, log_sum

        @staticmethod
        @wrapped
        def backward(ctx, upstream, by_log_sum):
            q, k, v, output, log_sum = ctx.saved_tensors
            if "inputs" in forget:
                q, k, v, output, log_sum = (x.detach() for x in (q, k, v, output, log_sum))
            output = output.detach() if "output" in forget else output
            log_sum = log_sum.detach() if "log-sum" in forget else log_sum
            given = (q, k, v, output, log_sum, upstream, by_log_sum)
            return *backward_of(*given, ctx.scale, ctx.causal), None, None

    def attention(q, k, v, *, causal=False, scale=None):
        wide = torch.promote_types(q.dtype, torch.float32)
        given = (q.to(wide), k.to(wide), v.to(wide))
        output, _ = Attention.apply(*given, q.shape[-1] ** -0.5 if scale is None else scale, causal)
        return output.to(q.dtype)

    return attention


def without_graph(backward):
    def run(ctx, *upstream):
        with torch.no_grad():
            return backward(ctx, *upstream)

    return run


def in_numpy(backward):
    """What a kernel in another language gives back: new tensors."""

    def run(ctx, *upstream):
        return tuple(
            x if x is None else torch.from_numpy(x.detach().numpy().copy())
            for x in backward(ctx, *upstream)
        )

    return run


def raising(backward):
    def run(ctx, *upstream):
        if torch.is_grad_enabled():
            raise NotImplementedError("this kernel has no second derivatives")
        return backward(ctx, *upstream)

    return run


def explicit(q, k, v, *, causal=False, scale=None):
    scores = scored(q, k, q.shape[-1] ** -0.5 if scale is None else scale, causal)
    return scores.float().softmax(-1).to(q) @ v if q.dtype.itemsize < 4 else scores.softmax(-1) @ v


def of_torch(q, k, v, *, causal=False, scale=None):
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(
            q, k, v, is_causal=causal and q.shape == k.shape, scale=scale
        )


SILENT = {
    "nothing": function(wrapped=without_graph),
    "numpy": function(wrapped=in_numpy),
    "inputs": function(forget=("inputs",)),
    "log-sum": function(forget=("log-sum",)),
    "output": function(forget=("output",)),
    "log-sum-and-output": function(forget=("log-sum", "output")),
}


@pytest.mark.parametrize("name", SILENT)
def test_a_kernel_that_loses_second_derivatives_without_a_word_is_caught_and_told_what_it_loses(
    name,
):
    result = judged(SILENT[name])
    assert result.outcome == "failed", result
    named = [each.deviation for each in result.diagnosis]
    assert named == ([] if name in ("nothing", "numpy") else [f"detached.{name}"])
    if not named:
        assert result.reason.startswith("autograd takes the gradients for constants")


@pytest.mark.parametrize("name", SILENT)
def test_its_gradients_are_right(name):
    assert judged(SILENT[name], "gradients.float64").outcome == "passed"


@pytest.mark.parametrize("name", ["explicit", "of_torch", "function"])
def test_second_derivatives_that_are_right_pass(name):
    kernels = {"explicit": explicit, "of_torch": of_torch, "function": function()}
    assert judged(kernels[name]).outcome == "passed"


@pytest.mark.parametrize(
    ("wrapped", "said"),
    [
        (once_differentiable, "trying to differentiate twice a function that was marked with"),
        (raising, "this kernel has no second derivatives"),
    ],
)
def test_a_kernel_that_refuses_is_skipped_with_what_it_says(wrapped, said):
    result = judged(function(wrapped=wrapped))
    assert result.outcome == "skipped"
    assert said in result.reason


def test_one_path_that_is_silent_is_found_behind_others_that_refuse():
    silent, honest = SILENT["inputs"], function(wrapped=once_differentiable)

    def attention(q, k, v, *, causal=False, scale=None):
        path = silent if causal and q.shape[2] > 500 else honest
        return path(q, k, v, causal=causal, scale=scale)

    result = judged(attention)
    assert result.outcome == "failed"
    assert result.counterexample.case["keys"] > 500


@pytest.mark.parametrize("target", ["sdpa:math", "reference:fused", "reference:blocks"])
def test_kernels_that_have_them_are_right(target):
    subject = KernelSubject(resolve_kernel(target))
    assert (
        judge(
            subject, PROPERTIES["gradients.second-derivatives"], Settings(diagnose=diagnose)
        ).outcome
        == "passed"
    )


@pytest.mark.parametrize("target", ["sdpa", "sdpa:flash"])
def test_fused_kernels_of_torch_say_that_they_have_none(target):
    subject = KernelSubject(resolve_kernel(target))
    result = judge(subject, PROPERTIES["gradients.second-derivatives"], Settings(diagnose=diagnose))
    assert result.outcome == "skipped"
    assert "is not implemented" in result.reason


# The formula ------------------------------------------------------------------------------------------------------


CASES = [
    AttentionCase(
        queries=queries, keys=keys, heads=heads, kv_heads=2, batch=2, mask=mask, percent=percent
    )
    for (queries, keys), heads, (mask, percent) in product(
        ((4, 7), (5, 5)), (2, 6), (("none", None), ("random", -70))
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_formula_of_second_derivatives_is_what_autograd_makes_of_that_of_attention(case):
    asked = bent(KernelSubject(resolve_kernel("sdpa")).problem(case), seed=3)
    expected, sizes = asked.expected()
    found = asked.of_plain()
    for name in NAMES:
        assert found[name].numpy() == pytest.approx(getattr(expected, name), abs=1e-12)
        assert (np.abs(getattr(expected, name)) <= getattr(sizes, name) * (1 + 1e-12)).all()


def test_the_formula_of_second_derivatives_is_the_change_of_the_gradients():
    """By central differences of the formula in NumPy, which knows nothing of autograd."""
    rng = np.random.default_rng(5)
    q, k, v, upstream, dq, dk, dv = (rng.standard_normal((1, 2, 4, 3)) for _ in range(7))
    found, _ = curvature(q, k, v, upstream, Along(q=dq, k=dk, v=dv), visible=None, scale=0.4)
    step = 1e-5
    ends = [
        oracle.attention(q + t * dq, k + t * dk, v + t * dv, scale=0.4, upstream=upstream)
        for t in (step, -step)
    ]
    for name in "qkv":
        change = (getattr(ends[0].gradients, name) - getattr(ends[1].gradients, name)) / (2 * step)
        assert getattr(found, name) == pytest.approx(change, abs=1e-8)
    assert found.upstream == pytest.approx((ends[0].output - ends[1].output) / (2 * step), abs=1e-8)
