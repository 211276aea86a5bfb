"""A name is given to a kernel's mistake for what it explains, and no further; the search runs on every device."""

from pathlib import Path
from runpy import run_path

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.diagnosis import diagnose
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.torch_tools.fake_device import ELSEWHERE, places

pytestmark = pytest.mark.slow

plain = run_path(str(Path(__file__).parents[1] / "limited_kernels.py"))["plain"]
EVERY = {property_.slug: property_ for property_ in kernel_properties()}


def wrong_where(where, wrong):
    """A kernel that makes a mistake in some calls: `wrong(q, k, v, options)` is what it computes there instead."""

    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        told = {"mask": mask, "causal": causal, "window": window, "scale": scale}
        if where(q, k, told):
            q, k, v, told = wrong(q, k, v, told)
        return plain(q, k, v, **told)

    return attention


def diagnosed(attention, slug, subject=None, **settings):
    subject = subject or KernelSubject(FunctionKernel(attention, "mine"))
    result = judge(subject, EVERY[slug], Settings(diagnose=diagnose, **settings))
    assert result.outcome == "failed", result
    return {each.deviation: each.title for each in result.diagnosis}


def without_causal(q, k, v, told):
    return q, k, v, told | {"causal": False}


def unscaled(q, k, v, told):
    return q, k, v, told | {"scale": 1.0}


def maskless(q, k, v, told):
    return q, k, v, told | {"mask": None}


@pytest.mark.parametrize(
    ("where", "slug", "words"),
    [
        (lambda q, k: True, "masks.causal", "causal is ignored"),
        (
            lambda q, k: q.shape[2] > k.shape[2],
            "masks.diagonal",
            "causal is ignored where queries > keys",
        ),
        (
            lambda q, k: q.shape[2] < k.shape[2],
            "masks.diagonal",
            "causal is ignored where queries < keys",
        ),
        (
            lambda q, k: q.shape[2] != k.shape[2],
            "masks.diagonal",
            "causal is ignored where queries < keys or where queries > keys",
        ),
        (
            lambda q, k: q.shape[0] > 1,
            "masks.causal",
            "causal is ignored in a batch of several rows",
        ),
        (
            lambda q, k: k.shape[2] < 100,
            "masks.causal",
            "causal is ignored for 19 keys, though not for many",
        ),
        (
            lambda q, k: q.dtype is torch.float64,
            "masks.causal",
            "causal is ignored in float64",
        ),
        (
            lambda q, k: q.shape[1] != k.shape[1],
            "algebra.grouped-heads",
            "causal is ignored with grouped heads",
        ),
    ],
)
def test_a_name_is_limited_to_where_the_mistake_is_made(where, slug, words):
    attention = wrong_where(lambda q, k, told: told["causal"] and where(q, k), without_causal)
    found = diagnosed(attention, slug)
    assert found["causal.ignored"] == f"agrees with the formula if {words}"


def test_the_form_in_which_a_mask_is_told_is_a_limit():
    boolean = wrong_where(
        lambda q, k, told: told["mask"] is not None and told["mask"].dtype == torch.bool, maskless
    )
    assert diagnosed(boolean, "masks.boolean") == {
        "mask.ignored": "agrees with the formula if the mask is ignored where the mask is boolean"
    }
    both = wrong_where(lambda q, k, told: told["mask"] is not None, maskless)
    assert diagnosed(both, "masks.boolean") == {
        "mask.ignored": "agrees with the formula if the mask is ignored"
    }


def test_a_head_dim_is_a_limit():
    attention = wrong_where(lambda q, k, told: q.shape[3] % 16, unscaled)
    found = diagnosed(attention, "formula.float64")
    assert found == {
        "scale.missing": "agrees with the formula if the scale is missing for a head dim of 12"
    }


def test_a_name_that_needs_many_limits_is_not_given():
    def rarely(q, k, told):
        one = q.shape[2] == k.shape[2] and q.shape[1] == k.shape[1]
        return told["causal"] and one and q.shape[0] == 2 and q.dtype is torch.float64

    assert diagnosed(wrong_where(rarely, without_causal), "masks.causal") == {}


class Unscaled(torch.autograd.Function):
    """The gradient by q without its scale."""

    @staticmethod
    def forward(ctx, q):
        ctx.scale = q.shape[-1] ** -0.5
        return q.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream / ctx.scale


def test_a_mistake_of_the_backward_pass_is_limited_too():
    attention = wrong_where(
        lambda q, k, told: q.shape[2] < k.shape[2] and told["scale"] is None,
        lambda q, k, v, told: (Unscaled.apply(q), k, v, told),
    )
    found = diagnosed(attention, "lengths.query-length")
    words = "the gradient by q is without the scale where queries < keys and where no scale is told"
    assert found["gradients.unscaled-q"] == f"agrees with the formula if {words}"


def test_the_search_runs_on_a_device_that_is_not_the_cpu():
    attention = wrong_where(lambda q, k, told: told["causal"], without_causal)
    with places():
        subject = KernelSubject(FunctionKernel(attention, "mine"), device=str(ELSEWHERE))
        found = diagnosed(attention, "masks.causal", subject)
    assert found == {"causal.ignored": "agrees with the formula if causal is ignored"}
