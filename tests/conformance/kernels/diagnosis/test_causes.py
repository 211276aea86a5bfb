"""One cause has one name, whichever property meets it: a mask told with causal, and one mask in several forms."""

from pathlib import Path
from runpy import run_path

import msgspec
import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.cases import AttentionCase, TogetherCase, problem
from holotype_conformance.kernels.diagnosis import diagnose
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

plain = run_path(str(Path(__file__).parents[1] / "limited_kernels.py"))["plain"]
EVERY = {property_.slug: property_ for property_ in kernel_properties()}


def judged(attention, slug):
    return judge(
        KernelSubject(FunctionKernel(attention, "mine")), EVERY[slug], Settings(diagnose=diagnose)
    )


def named(attention, slug):
    result = judged(attention, slug)
    assert result.outcome == "failed", result
    return {each.deviation: each.title.partition(" if ")[2] for each in result.diagnosis}


def test_a_case_of_both_is_seen_where_both_show_a_key():
    both = TogetherCase(queries=4, keys=5, mask="right-padding", form="boolean", size=2)
    found = problem(both)
    assert found.call.causal
    assert found.call.mask[0, 0, 0].tolist() == [True, True, False, False, False]
    assert found.visible[0, 0].sum() == 4 * 2
    assert problem(both.mask_alone).call.causal is False
    assert problem(both.causal_alone).call.mask is None
    unmasked = problem(TogetherCase(queries=4, keys=5))
    assert unmasked.call.causal
    assert unmasked.visible[0, 0].sum() == 2 + 3 + 4 + 5
    assert msgspec.json.decode(b'{"queries":1,"keys":1}', type=TogetherCase).mask == "none"


def few_keys(q, k, v, *, mask=None, causal=False, scale=None):
    """Takes no notice of causal where there are more queries than keys."""
    return plain(q, k, v, mask=mask, causal=causal and q.shape[2] <= k.shape[2], scale=scale)


def test_causal_that_is_ignored_somewhere_is_named_with_a_mask_as_without():
    words = "causal is ignored where queries > keys"  # as masks.diagonal says
    assert named(few_keys, "masks.together") == {"causal.ignored": words}


def causal_or_mask(q, k, v, *, mask=None, causal=False, scale=None):
    """Has one branch for each: causal is dropped where a mask is given."""
    return plain(q, k, v, mask=mask, causal=causal and mask is None, scale=scale)


def mask_or_causal(q, k, v, *, mask=None, causal=False, scale=None):
    """Has one branch for each: the mask is dropped where causal is given."""
    return plain(q, k, v, mask=None if causal else mask, causal=causal, scale=scale)


@pytest.mark.parametrize(
    ("attention", "slug", "words"),
    [
        (causal_or_mask, "causal.ignored", "causal is ignored where a mask is told with it"),
        (mask_or_causal, "mask.ignored", "the mask is ignored where causal is told with it"),
    ],
)
def test_of_two_that_are_told_together_the_one_that_is_dropped_is_named(attention, slug, words):
    assert named(attention, "masks.together") == {slug: words}


def upper_left(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    """As torch's own, its diagonal starts at the first key."""
    if causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        mask = seen if mask is None else mask & seen
    return plain(q, k, v, mask=mask, scale=scale, window=window)


def unbiased(q, k, v, *, mask=None, causal=False, scale=None):
    """Takes no notice of a mask of numbers."""
    if mask is not None and mask.dtype != torch.bool:
        mask = None
    return plain(q, k, v, mask=mask, causal=causal, scale=scale)


@pytest.mark.parametrize(
    ("attention", "slug"),
    [(upper_left, "causal.upper-left"), (unbiased, "mask.ignored")],
)
def test_of_masks_that_mean_the_same_the_form_that_is_wrong_is_named(attention, slug):
    result = judged(attention, "masks.agree")
    assert result.outcome == "failed"
    assert result.counterexample.facts["form"] == (
        "arguments" if slug.startswith("causal") else "additive"
    )
    assert [each.deviation for each in result.diagnosis] == [slug]


def test_a_case_of_masks_that_agree_has_the_form_it_is_told_in_by_default():
    case = AttentionCase(queries=2, keys=2, mask="causal", form="boolean")
    assert (
        judge(
            KernelSubject(FunctionKernel(plain, "mine")),
            EVERY["masks.agree"],
            Settings(diagnose=diagnose, case=msgspec.json.encode(case).decode()),
        ).outcome
        == "passed"
    )
