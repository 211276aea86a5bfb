"""Bugs of one path only, of the kinds that trackers of kernels report, are caught; kernels in unusual styles pass."""

import math
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}
steps = run_path(str(Path(__file__).parents[1] / "kernel_in_steps.py"))
kernel, pattern, prepare, scored, told = (
    steps[name] for name in ("kernel", "pattern", "prepare", "scored", "told")
)
right = kernel()


def judged(function, slug):
    return judge(KernelSubject(FunctionKernel(function, "mine")), PROPERTIES[slug], Settings())


# Bugs of one path ---------------------------------------------------------------------------------------------------


def routed(when, **changes):
    """Right, but where `when` says so it is told something else."""

    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        given = {"mask": mask, "causal": causal, "window": window, "scale": scale}
        if when(q, k, **given):
            given |= {
                name: change(given[name]) if callable(change) else change
                for name, change in changes.items()
            }
        return right(q, k, v, **given)

    return attention


def grouped(q, k, **_):
    return q.shape[1] != k.shape[1]


def decoding(q, k, **_):
    return q.shape[2] == 1 and k.shape[2] > 64


def masked(kind, also):
    def when(q, k, *, mask, **given):
        return mask is not None and mask.is_floating_point() == kind and bool(given[also])

    return when


def by_first_key(mask, block=64):
    """A block of keys is skipped if the first of them is hidden."""
    mask = mask.clone()
    for start in range(block, mask.shape[3], block):
        if not mask[..., start].any():
            mask[..., start : start + block] = False
    return mask


def boolean(q, k, *, mask, **_):
    return mask is not None and mask.dtype == torch.bool


def long_bias(q, k, *, mask, **_):
    return mask is not None and mask.dtype != torch.bool and k.shape[2] > 64


def far_edge_late(queries, keys, causal, window, block=64):
    """Tiles of queries begin at the block of keys with which the window of their last query begins."""
    seen = pattern(queries, keys, causal, window)
    if not causal or window is None or not keys:
        return seen
    last = (torch.arange(queries) // block * block + block - 1).clamp(max=queries - 1)
    first = (last + keys - queries - window + 1).clamp(min=0) // block * block
    return seen & (torch.arange(keys) >= first[:, None])


def right_only(scores, block=64):
    """Blocks of keys left of the block of queries get no gradient."""
    queries, keys = (torch.arange(size) // block for size in scores.shape[-2:])
    return torch.where(queries[:, None] > keys, scores.detach(), scores)


class Backward(Function):
    """The identity, with a backward pass that is given."""

    @staticmethod
    def forward(ctx, x, backward):
        y = x.clone()
        ctx.y, ctx.backward_of = y, backward
        return y

    @staticmethod
    def backward(ctx, upstream):
        return ctx.backward_of(ctx, upstream), None


def backward(of):
    return kernel(last=lambda q, result: Backward.apply(result, of))


def as_if_contiguous(ctx, upstream):
    flat = torch.zeros(upstream.numel(), dtype=upstream.dtype)
    size = upstream.untyped_storage().nbytes() // upstream.itemsize - upstream.storage_offset()
    size = min(size, upstream.numel())
    flat[:size] = upstream.as_strided((size,), (1,))
    return flat.view(upstream.shape)


def writes_into_upstream(ctx, upstream):
    kept = upstream.clone()
    upstream.detach().mul_(2.0)
    return kept


def writes_into_the_result(ctx, upstream):
    ctx.y.data.mul_(upstream)
    return upstream


def keeps_summing(ctx, upstream):
    ctx.sum = getattr(ctx, "sum", 0.0) + upstream
    return ctx.sum


def trained_otherwise(q, result):
    return result + 0.02 * result.detach() * (result.requires_grad and torch.is_grad_enabled())


def only_with_q(q, k, v):
    """Frozen queries freeze everything."""
    if torch.is_grad_enabled() and not q.requires_grad:
        k, v = (0.0 * x + x.detach() for x in (k, v))
    return prepare(q, k, v)


def few_groups(q, k, v):
    if q.shape[1] > 4 * k.shape[1]:
        q = torch.cat([q[:, :-1], q[:, :1]], 1)
    return prepare(q, k, v)


def narrow(q, k, v):
    return prepare(q * (torch.arange(q.shape[-1]) < 192), k, v)


BUGS = {
    "strides of the gradient are ignored": (backward(as_if_contiguous), "contract.strides"),
    "the gradient that arrives is overwritten": (
        backward(writes_into_upstream),
        "contract.inputs-unwritten",
    ),
    "the saved output is overwritten": (
        backward(writes_into_the_result),
        "contract.inputs-unwritten",
    ),
    "gradients are kept between backward passes": (
        backward(keeps_summing),
        "contract.deterministic",
    ),
    "the result with gradients is another": (kernel(last=trained_otherwise), "gradients.float64"),
    "no gradients where q requires none": (kernel(prepare=only_with_q), "gradients.some"),
    "groups of more than four heads": (kernel(prepare=few_groups), "algebra.grouped-heads"),
    "a head dim over 192 is cut": (kernel(prepare=narrow), "formula.float64"),
    "a window starts a block late": (kernel(pattern=far_edge_late), "masks.window"),
    "the left of a band has no gradient": (
        kernel(weigh=lambda scores: steps["weigh"](right_only(scores))),
        "masks.band",
    ),
    "a window of more than all keys": (
        routed(lambda q, k, *, window, **_: (window or 0) > k.shape[2], causal=False),
        "masks.window",
    ),
    "grouped heads ignore the window": (routed(grouped, window=None), "lengths.masks"),
    "grouped heads ignore the scale": (routed(grouped, scale=None), "lengths.masks"),
    "one query ignores the window": (routed(decoding, window=None), "lengths.masks"),
    "one query ignores the mask": (routed(decoding, mask=None), "lengths.masks"),
    "a boolean mask drops the window": (
        routed(masked(False, "window"), window=None),
        "lengths.masks",
    ),
    "an additive mask drops causal": (
        routed(masked(True, "causal"), causal=False),
        "lengths.masks",
    ),
    "a block hidden by its first key": (routed(boolean, mask=by_first_key), "lengths.masks"),
    "a long bias is read a row late": (
        routed(long_bias, mask=lambda mask: mask.roll(1, 2)),
        "lengths.masks",
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_of_one_path_is_caught(bug):
    function, slug = BUGS[bug]
    assert judged(function, slug).outcome == "failed"


# Unusual styles -----------------------------------------------------------------------------------------------------


def rounded(finish):
    return kernel(finish=lambda weights, v: finish(weights, v).to(v.dtype))


class InNumpy(Function):
    """Weights and values multiplied in NumPy, forward and backward."""

    @staticmethod
    def forward(ctx, weights, v):
        ctx.weights, ctx.v = weights.detach().numpy(), v.detach().to(weights).numpy()
        return torch.from_numpy(ctx.weights @ ctx.v)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        given = upstream.numpy()
        products = (given @ ctx.v.swapaxes(-1, -2), ctx.weights.swapaxes(-1, -2) @ given)
        return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in products)


def spread(weights, v):
    """The result lies in memory with holes."""
    found = weights @ v.to(weights)
    room = found.new_empty(found.shape[0], found.shape[2], found.shape[1], 2 * found.shape[3])
    return room.transpose(1, 2)[..., ::2].copy_(found)


def expanded(weights, v):
    found = weights @ v.to(weights)
    return found[..., None].expand(*found.shape, 3)[..., 1]


def compensated(weights, v, block=100):
    """Blocks of a hundred keys, summed after Kahan."""
    total = lost = (
        torch.zeros_like(weights[..., :1]) @ v.to(weights)[..., :1, :] if v.shape[2] else 0.0
    )
    for start in range(0, v.shape[2], block):
        more = weights[..., start : start + block] @ v[..., start : start + block, :].to(weights)
        term = more - lost
        new = total + term
        lost, total = ((new - total) - term).detach(), new
    return total if v.shape[2] else weights @ v.to(weights)


def mapped(weights, v):
    return torch.func.vmap(torch.matmul, in_dims=1, out_dims=1)(weights, v.to(weights))


def in_base_two(scores):
    top = scores.amax(-1, keepdim=True) if scores.shape[-1] else 0.0
    top = top.masked_fill(top.isneginf(), 0.0) if scores.shape[-1] else top
    powers = torch.exp2((scores - top) * math.log2(math.e))
    total = powers.sum(-1, keepdim=True)
    return powers / total.masked_fill(total == 0.0, 1.0)


def in_place(scores):
    weights = steps["weigh"](scores) * 1.0
    return weights.mul_(2.0).div_(2.0)


def recomputed(q, k, v, *, mask=None, causal=False, window=None, scale=None):
    def again(q, k, v):
        return right(q, k, v, mask=mask, causal=causal, window=window, scale=scale)

    return checkpoint(again, q, k, v, use_reentrant=False)


STYLES = {
    "in NumPy": rounded(InNumpy.apply),
    "a result with holes": rounded(spread),
    "an expanded result": rounded(expanded),
    "summed after Kahan in blocks of 100": rounded(compensated),
    "mapped over heads": rounded(mapped),
    "base two": kernel(weigh=in_base_two),
    "own temporaries in place": kernel(weigh=in_place),
    "float64 inside": kernel(scored=lambda q, k, scale: scored(q.double(), k.double(), scale)),
    "recomputed in the backward pass": recomputed,
}
WIDE = sorted(
    {slug for _, slug in BUGS.values()}
    | {"gradients.second-derivatives", "masks.no-key", "lengths.empty"}
)


@pytest.mark.parametrize("style", STYLES)
def test_no_style_is_flagged(style):
    found = {slug: judged(STYLES[style], slug) for slug in WIDE}
    assert {slug: each.reason for slug, each in found.items() if each.outcome == "failed"} == {}
