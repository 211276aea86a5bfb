"""A kernel that is wrong in a known way is told which; one that is wrong in another way is told nothing."""

import math

import pytest
import torch

from holotype_conformance.attention.claims import kernel_properties
from holotype_conformance.attention.diagnosis import CHANGES
from holotype_conformance.attention.kernel import FunctionKernel
from holotype_conformance.attention.subject import KernelSubject
from holotype_conformance.engine import Settings, judge

PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}


def kernel(*, power=1.0, ahead=0, wider=0, corner=False, repeat=True, flip=False, deaf=(), off=0.0):
    """An attention function with a bug or none."""

    def attention(q, k, v, *, mask=None, causal=False, window=None):
        n, m, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
        share = (
            (lambda x: x.repeat_interleave(group, 1))
            if repeat
            else (lambda x: x.repeat(1, group, 1, 1))
        )
        scores = q @ share(k).mT * (q.shape[-1] ** -0.5) ** power
        away = torch.arange(n)[:, None] - torch.arange(m) + (0 if corner else m - n)
        seen = torch.ones(n, m, dtype=torch.bool)
        if (causal and "causal" not in deaf) or (window is not None and "band" in deaf):
            seen = away >= -ahead
        if window is not None and "window" not in deaf:
            seen = seen & (away.abs() < window + wider)
        if mask is not None and "mask" not in deaf:
            seen = seen & (~mask if flip else mask)
        scores = scores.masked_fill(~seen, -math.inf)
        scores = scores.masked_fill(~seen.any(-1, keepdim=True), 0.0)
        return (scores.softmax(-1) @ share(v)) * (1.0 + off)

    return attention


def diagnosed(function, slug):
    result = judge(KernelSubject(FunctionKernel(function, "mine")), PROPERTIES[slug], Settings())
    assert result.outcome == "failed", result
    return {each.deviation for each in result.diagnosis}


FOUND = {
    "scale.missing": ("formula.float64", {"power": 0.0}),
    "scale.twice": ("formula.float64", {"power": 2.0}),
    "scale.inverse": ("formula.float64", {"power": -1.0}),
    "heads.tiled": ("algebra.grouped-heads", {"repeat": False}),
    "causal.upper-left": ("masks.diagonal", {"corner": True}),
    "causal.one-ahead": ("masks.causal", {"ahead": 1}),
    "causal.hides-self": ("masks.causal", {"ahead": -1}),
    "causal.ignored": ("masks.causal", {"deaf": ("causal",)}),
    "window.wider": ("masks.window", {"wider": 1}),
    "window.narrower": ("masks.window", {"wider": -1}),
    "window.upper-left": ("masks.window", {"corner": True}),
    "window.ignored": ("masks.window", {"deaf": ("window",)}),
    "band.causal": ("masks.band", {"deaf": ("band",)}),
    "band.wider": ("masks.band", {"wider": 1}),
    "band.ignored": ("masks.band", {"deaf": ("window",)}),
    "mask.ignored": ("masks.boolean", {"deaf": ("mask",)}),
    "mask.inverted": ("masks.boolean", {"flip": True}),
}


def test_every_change_is_tried():
    assert FOUND.keys() == {change.slug for change in CHANGES}


@pytest.mark.parametrize("deviation", FOUND)
def test_a_known_mistake_is_named_and_no_other(deviation):
    slug, bug = FOUND[deviation]
    assert diagnosed(kernel(**bug), slug) == {deviation}


def test_what_is_wrong_in_another_way_has_no_diagnosis():
    assert diagnosed(kernel(off=0.01), "formula.float64") == set()
