"""A kernel that is wrong in a known way is told which; one that is wrong in another way is told nothing."""

import math

import pytest
import torch
from einops import rearrange

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import LAYOUT, FunctionKernel, KernelCandidate
from holotype_conformance.kernels.diagnosis import OF_ANY_SIZE, diagnose
from holotype_conformance.kernels.diagnosis.layouts import misread
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}


def told(scale, default):
    return default if scale is None else scale


def kernel(
    *,
    power=1.0,
    base=math.e,
    told=told,
    ahead=0,
    wider=0,
    corner=False,
    repeat=True,
    flip=False,
    deaf=(),
    sides=False,
    number=None,
    off=0.0,
    one=False,
    first=False,
):
    """An attention function with a bug or none; `number` is what is made of scores and a mask of 0 and 1."""

    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        n, m, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
        share = (
            (lambda x: x.repeat_interleave(group, 1))
            if repeat
            else (lambda x: x.repeat(1, group, 1, 1))
        )
        if first and 1 < k.shape[1] < q.shape[1]:
            k, v = (x[:, :1].expand(x.shape) for x in (k, v))
        scores = q @ share(k).mT * told(scale, q.shape[-1] ** -0.5) ** power * math.log(base)
        away = torch.arange(n)[:, None] - torch.arange(m) + (0 if corner else m - n)
        seen = torch.ones(n, m, dtype=torch.bool)
        if (causal and "causal" not in deaf) or (window is not None and "band" in deaf):
            seen = away >= -ahead
        if window is not None and "window" not in deaf:
            seen = (seen | sides) & (away.abs() < window + wider)
        if mask is not None and number is not None:
            scores = number(scores, mask.to(scores.dtype))
        elif mask is not None and "mask" not in deaf:
            seen = seen & (~mask if flip else mask)
        scores = scores.masked_fill(~seen, -math.inf)
        scores = scores.masked_fill(~seen.any(-1, keepdim=True), 0.0)
        if one:  # as if there were one key more, of score and value zero
            scores = torch.nn.functional.pad(scores, (1, 0))
            return scores.softmax(-1)[..., 1:] @ share(v)
        return (scores.softmax(-1) @ share(v)) * (1.0 + off)

    return attention


def spanned(
    *,
    prefix=True,
    more=0,
    hides=False,
    corner=False,
    both=False,
    back=0,
    late=0,
    drops=False,
    row=None,
):
    """One that takes prefixes and documents by argument, with a bug or none; `row` is the one that serves for all."""

    def of_row(each, batch):
        rows = each if isinstance(each[0], tuple) else (each,)
        return rows if row is None else (rows[row],) * batch

    def attention(q, k, v, *, causal=False, prefix_=None, documents=None):
        n, m = q.shape[2], k.shape[2]
        place, key = torch.arange(n)[:, None] + (0 if corner else m - n), torch.arange(m)
        seen = (place >= key) if causal and not both else torch.ones(n, m, dtype=torch.bool)
        if prefix_ is not None and prefix:
            sizes = prefix_ if isinstance(prefix_, tuple) else (prefix_,)
            sizes = sizes if row is None else (sizes[row],) * len(sizes)
            first = key < torch.tensor(sizes)[:, None, None] + more
            seen = (first if hides else seen | first)[:, None]
        if documents is not None and prefix:
            masks = []
            for lengths in of_row(documents, len(q)):
                ends = torch.tensor(lengths).cumsum(0)
                number = torch.bucketize(key - late, ends, right=True).clamp(max=len(lengths) - 1)
                own = number[place.clamp(0, m - 1).flatten()][:, None]
                starts = torch.cat([torch.zeros(1, dtype=torch.long), ends[:-1] + late])
                begun = key >= starts[own] - back
                last = (own == number[-1]) if drops else torch.zeros_like(own, dtype=torch.bool)
                masks.append(begun & (number <= own if not both else number == own) & ~last)
            seen = seen & torch.stack(masks)[:, None]
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~seen, -math.inf)
        scores = scores.masked_fill(~seen.any(-1, keepdim=True), 0.0)
        return scores.softmax(-1) @ v

    def told(q, k, v, *, causal=False, prefix=None, documents=None):
        return attention(q, k, v, causal=causal, prefix_=prefix, documents=documents)

    return told


def diagnosed(function, slug):
    result = judge(
        KernelSubject(FunctionKernel(function, "mine")),
        PROPERTIES[slug],
        Settings(diagnose=diagnose),
    )
    assert result.outcome == "failed", result
    return {each.deviation for each in result.diagnosis}


FOUND = {
    "scale.missing": ("formula.float64", {"power": 0.0}),
    "scale.twice": ("formula.float64", {"power": 2.0}),
    "scale.inverse": ("formula.float64", {"power": -1.0}),
    "scale.ignored": ("formula.scale", {"told": lambda scale, default: default}),
    "scale.zero-ignored": ("formula.scale", {"told": lambda scale, default: scale or default}),
    "scale.on-top": (
        "formula.scale",
        {"told": lambda scale, default: default if scale is None else default * scale},
    ),
    "softmax.base-two": ("formula.float64", {"base": 2.0}),
    "softmax.log2e-left": ("formula.float64", {"base": math.e ** math.log2(math.e)}),
    "softmax.one-added": ("formula.float64", {"one": True}),
    "heads.first-shared": ("algebra.grouped-heads", {"first": True}),
    "heads.tiled": ("algebra.grouped-heads", {"repeat": False}),
    "causal.upper-left": ("masks.diagonal", {"corner": True}),
    "causal.one-ahead": ("masks.causal", {"ahead": 1}),
    "causal.hides-self": ("masks.causal", {"ahead": -1}),
    "causal.ignored": ("masks.causal", {"deaf": ("causal",)}),
    "window.wider": ("masks.window", {"wider": 1}),
    "window.narrower": ("masks.window", {"wider": -1}),
    "window.upper-left": ("masks.window", {"corner": True}),
    "window.ignored": ("masks.window", {"deaf": ("window",)}),
    "window.both-sides": ("masks.window", {"sides": True}),
    "band.causal": ("masks.band", {"deaf": ("band",)}),
    "band.wider": ("masks.band", {"wider": 1}),
    "band.ignored": ("masks.band", {"deaf": ("window",)}),
    "prefix.ignored": ("prefix.formula", {"prefix": False}),
    "prefix.longer": ("prefix.formula", {"more": 1}),
    "prefix.shorter": ("prefix.formula", {"more": -1}),
    "prefix.alone": ("prefix.formula", {"hides": True}),
    "prefix.everything": ("prefix.formula", {"both": True}),
    "prefix.upper-left": ("prefix.formula", {"corner": True}),
    "prefix.first-row": ("prefix.rows", {"row": 0}),
    "documents.ignored": ("documents.formula", {"prefix": False}),
    "documents.both-ways": ("documents.formula", {"both": True}),
    "documents.one-back": ("documents.formula", {"back": 1}),
    "documents.late": ("documents.formula", {"late": 1}),
    "documents.early": ("documents.formula", {"late": -1}),
    "documents.upper-left": ("documents.formula", {"corner": True}),
    "documents.last-missing": ("documents.formula", {"drops": True}),
    "documents.first-row": ("documents.rows", {"row": 0}),
    "mask.ignored": ("masks.boolean", {"deaf": ("mask",)}),
    "mask.as-number": ("masks.boolean", {"number": torch.add}),
    "mask.multiplied": ("masks.boolean", {"number": torch.mul}),
    "mask.inverted": ("masks.boolean", {"flip": True}),
}


def test_every_change_is_tried():
    assert FOUND.keys() == {change.slug for change in OF_ANY_SIZE}


@pytest.mark.parametrize("deviation", FOUND)
def test_a_known_mistake_is_named_and_no_other(deviation):
    slug, bug = FOUND[deviation]
    made = spanned if slug.startswith(("prefix.", "documents.")) else kernel
    assert diagnosed(made(**bug), slug) == {deviation}


@pytest.mark.parametrize(
    "slug", ["prefix.formula", "prefix.rows", "documents.formula", "documents.rows"]
)
def test_what_the_mistakes_are_made_in_is_right_without_them(slug):
    subject = KernelSubject(FunctionKernel(spanned(), "mine"))
    assert judge(subject, PROPERTIES[slug], Settings(diagnose=diagnose)).outcome == "passed"


def test_a_scale_is_not_said_to_be_ignored_where_another_is_missing_too():
    found = diagnosed(kernel(told=lambda scale, default: 1.0), "formula.scale")
    assert found == {"scale.missing"}


def test_a_kernel_that_divides_by_the_scale_is_told_so_though_it_has_no_result_for_zero():
    def divided(scale, default):
        if scale == 0.0:
            raise ZeroDivisionError
        return default if scale is None else 1.0 / scale

    assert diagnosed(kernel(told=divided), "formula.scale") == {"scale.inverse"}


def test_what_is_wrong_in_another_way_has_no_diagnosis():
    assert diagnosed(kernel(off=0.01), "formula.float64") == set()


def in_order(axes, layout=LAYOUT, **wrong):
    """A kernel that computes for one order of the axes, and is said to take another."""

    class Kernel(KernelCandidate):
        def attention(self, q, k, v):
            own = [rearrange(x, f"{axes} -> {LAYOUT}") for x in (q, k, v)]
            return rearrange(plain(*own, **wrong), f"{LAYOUT} -> {axes}")

    found = Kernel()
    found.layout = layout
    return KernelSubject(found)


def plain(q, k, v, factor=1.0):
    return factor * (q @ k.mT / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v


ROWS, LONG = "batch length heads head_dim", "length batch heads head_dim"


@pytest.mark.parametrize(
    ("axes", "layout"), [(ROWS, LAYOUT), (LONG, LAYOUT), (LAYOUT, ROWS), (ROWS, LONG)]
)
def test_a_kernel_that_takes_its_axes_in_another_order_is_told_which(axes, layout):
    subject = in_order(axes, layout)
    for slug in ("formula.float64", "contract.result", "lengths.query-length"):
        result = judge(subject, PROPERTIES[slug], Settings(diagnose=diagnose, profile="quick"))
        assert result.outcome == "failed"
        assert [found.deviation for found in result.diagnosis] == ["layout"]
        assert f'if its layout is "{axes}"' in result.diagnosis[0].title


@pytest.mark.parametrize(
    "subject",
    [
        in_order(LAYOUT),
        in_order(ROWS, ROWS),
        in_order(LAYOUT, factor=1.01),
        in_order(ROWS, factor=1.01),
        in_order("batch length head_dim heads"),
        in_order("(batch heads) length head_dim", "(batch heads) length head_dim"),
    ],
)
def test_no_order_is_told_where_none_explains_the_results(subject):
    assert misread(subject) is None
