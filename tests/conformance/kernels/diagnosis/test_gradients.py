"""A kernel whose backward pass is wrong in a known way is told which; one that is wrong in another way is not."""

import math
from functools import partial

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.diagnosis import diagnose
from holotype_conformance.kernels.diagnosis.gradients import BACKWARD, astray
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}


def seen_by(n, m, causal, window, ahead=0, wider=0):
    away = torch.arange(n)[:, None] + m - n - torch.arange(m)
    seen = away >= -ahead if causal else torch.ones(n, m, dtype=torch.bool)
    return seen if window is None else seen & (away.abs() < window + wider)


MISPLACED = {"other-divisor": lambda h, kv: h // kv, "tiled": lambda h, kv: h % kv}


def misplaced(x, to):
    """The gradients of heads, (batch, kv_heads, group, …), added to other key-value heads than theirs."""
    found = torch.zeros_like(x[:, :, 0])
    for head, each in enumerate(x.flatten(1, 2).unbind(1)):
        if to(head, x.shape[1]) < x.shape[1]:
            found[:, to(head, x.shape[1])] += each
    return found


def kernel(
    *,
    powers=(1, 1),
    mean=True,
    base=1.0,
    heads="sum",
    backward_mask=None,
    blocks=(),
    off=0.0,
):
    """One with a backward pass of its own, with a bug or none."""

    class Attend(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v, told, scale):
            n, m, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
            keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            scores = (scale * q @ keys.mT).masked_fill(~seen_by(n, m, *told), -math.inf)
            log_sum = scores.logsumexp(-1, keepdim=True)
            output = (scores - log_sum).exp() @ values
            ctx.save_for_backward(q, keys, values, output, log_sum)
            ctx.told, ctx.scale, ctx.group = told, scale, group
            return output

        @staticmethod
        def backward(ctx, upstream):
            q, keys, values, output, log_sum = ctx.saved_tensors
            n, m = q.shape[2], keys.shape[2]
            seen = seen_by(n, m, *ctx.told, **(backward_mask or {}))
            scores = (ctx.scale * q @ keys.mT).masked_fill(~seen, -math.inf)
            weights = (scores - base * log_sum).exp()
            off_each = (upstream * output).sum(-1, keepdim=True) * (1.0 if mean else 0.0)
            by_score = weights * (upstream @ values.mT - off_each)
            kept = {name: torch.ones(n if name[0] == "q" else m, dtype=torch.bool) for name in "qk"}
            for_q, for_k = by_score, (by_score, weights)
            for name, size in blocks:
                length = {"q": n, "k": m}[name[-1]]
                if name == "over-k":
                    for_q = by_score * (torch.arange(m) >= (m - 1) // size * size)
                elif name == "over-q":
                    last = (torch.arange(n) >= (n - 1) // size * size)[:, None]
                    for_k = (by_score * last, weights * last)
                elif length >= size:
                    kept[name[-1]] = torch.arange(length) < length // size * size
            d_q = ctx.scale ** powers[0] * for_q @ keys * kept["q"][:, None]
            d_k = ctx.scale ** powers[1] * for_k[0].mT @ q * kept["k"][:, None]
            d_v = for_k[1].mT @ upstream * kept["k"][:, None]
            d_k, d_v = (x.unflatten(1, (-1, ctx.group)) for x in (d_k, d_v))
            pick = {"sum": lambda x: x.sum(2), "mean": lambda x: x.mean(2)}
            pick |= {"first": lambda x: x[:, :, 0], "last": lambda x: x[:, :, -1]}
            pick |= {name: partial(misplaced, to=to) for name, to in MISPLACED.items()}
            return d_q * (1 + off), pick[heads](d_k), pick[heads](d_v), None, None

    def attention(q, k, v, *, causal=False, window=None, scale=None):
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return Attend.apply(q, k, v, (causal, window), scale)

    return attention


def diagnosed(function, slug):
    result = judge(
        KernelSubject(FunctionKernel(function, "mine")),
        PROPERTIES[slug],
        Settings(diagnose=diagnose),
    )
    assert result.outcome == "failed", result
    return {each.deviation for each in result.diagnosis}


GROUPED, PLAIN = "algebra.grouped-heads", "gradients.float64"
EDGES = "lengths.block-edges"
FOUND = {
    "gradients.unscaled-q": (PLAIN, {"powers": (0, 1)}),
    "gradients.unscaled-k": (PLAIN, {"powers": (1, 0)}),
    "gradients.unscaled": (PLAIN, {"powers": (0, 0)}),
    "gradients.scaled-twice-q": (PLAIN, {"powers": (2, 1)}),
    "gradients.scaled-twice-k": (PLAIN, {"powers": (1, 2)}),
    "gradients.scaled-twice": (PLAIN, {"powers": (2, 2)}),
    "gradients.mean-missing": (PLAIN, {"mean": False}),
    "gradients.log-sum-base-two": (PLAIN, {"base": math.log2(math.e)}),
    "gradients.log-sum-base-e": (PLAIN, {"base": math.log(2)}),
    "gradients.heads-first": (GROUPED, {"heads": "first"}),
    "gradients.heads-last": (GROUPED, {"heads": "last"}),
    "gradients.heads-mean": (GROUPED, {"heads": "mean"}),
    "gradients.heads-other-divisor": (GROUPED, {"heads": "other-divisor"}),
    "gradients.heads-tiled": (GROUPED, {"heads": "tiled"}),
    "gradients.causal.one-ahead": ("masks.causal", {"backward_mask": {"ahead": 1}}),
    "gradients.causal.hides-self": ("masks.causal", {"backward_mask": {"ahead": -1}}),
    "gradients.causal.ignored": ("masks.causal", {"backward_mask": {"ahead": 10**6}}),
    "gradients.window.wider": ("masks.window", {"backward_mask": {"wider": 1}}),
    "gradients.window.ignored": ("masks.window", {"backward_mask": {"wider": 10**6}}),
    "gradients.overwritten-q.16": (EDGES, {"blocks": (("over-k", 16),)}),
    "gradients.overwritten-q.80": (EDGES, {"blocks": (("over-k", 80),)}),
    "gradients.rest-k.48": (EDGES, {"blocks": (("rest-k", 48),)}),
    "gradients.overwritten-k.32": (EDGES, {"blocks": (("over-q", 32),)}),
    "gradients.rest-q.64": (EDGES, {"blocks": (("rest-q", 64),)}),
    "gradients.rest-k.16": (EDGES, {"blocks": (("rest-k", 16),)}),
}


def test_the_changes_are_known_by_their_names():
    assert FOUND.keys() <= {change.slug for change in BACKWARD}


@pytest.mark.parametrize("deviation", FOUND)
def test_a_known_mistake_of_the_way_back_is_named_and_no_other(deviation):
    slug, bug = FOUND[deviation]
    assert diagnosed(kernel(**bug), slug) == {deviation}


@pytest.mark.parametrize("slug", [PLAIN, GROUPED, EDGES, "masks.causal", "masks.window"])
def test_what_the_mistakes_are_made_in_is_right_without_them(slug):
    subject = KernelSubject(FunctionKernel(kernel(), "mine"))
    assert judge(subject, PROPERTIES[slug], Settings(diagnose=diagnose)).outcome == "passed"


def test_right_gradients_have_no_diagnosis_though_a_mistake_could_not_show():
    case = AttentionCase(queries=8, keys=8)  # in blocks of 8 there is nothing to overwrite
    assert astray(KernelSubject(FunctionKernel(kernel(), "mine")), case, [], []) == []


def test_gradients_that_are_wrong_in_another_way_have_no_diagnosis():
    assert diagnosed(kernel(off=0.01), PLAIN) == set()
