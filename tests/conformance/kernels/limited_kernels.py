"""Kernels that are right, each in a way or within limits of its own; those of `wrong` lose what the others keep."""

import math
from typing import ClassVar

import torch
from torch.utils.checkpoint import checkpoint

from holotype_conformance.judge.declaring import Floor
from holotype_conformance.kernels.candidate import KernelCandidate
from holotype_conformance.kernels.sizes import Sizes


def scored(q, k, *, mask, causal, window, scale):
    """Scores, -inf where a key is hidden; zero where all are."""
    queries, keys = q.shape[2], k.shape[2]
    scores = (q @ k.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
    places, keys_at = (torch.arange(n, device=q.device) for n in (queries, keys))
    away = places[:, None] + keys - queries - keys_at
    seen = away >= 0 if causal else torch.ones_like(away, dtype=torch.bool)
    if window is not None:
        seen = seen & (away.abs() < window)
    scores = scores.masked_fill(~seen, -math.inf)
    if mask is not None:
        boolean = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, -math.inf) if boolean else scores + mask
    return scores.masked_fill(scores.isneginf().all(-1, keepdim=True), 0.0) if keys else scores


def dense(weigh, rounded=lambda x: x):
    """A kernel with every score in one matrix, whose weights are `weigh(scores)`."""

    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        wide, group = torch.promote_types(q.dtype, torch.float32), q.shape[1] // k.shape[1]
        keys, values = (x.to(wide).repeat_interleave(group, 1) for x in (k, v))
        given = {"mask": mask, "causal": causal, "window": window, "scale": scale}
        weights = weigh(scored(rounded(q.to(wide)), rounded(keys), **given))
        return (weights.to(wide) @ values).to(q.dtype)

    return attention


plain = dense(lambda scores: scores.softmax(-1))


def reentrant(q, k, v, *, mask=None, causal=False, window=None, scale=None, attention=plain):
    """Computed again on the way back, by the older kind of checkpoint."""

    def inner(q, k, v):
        return attention(q, k, v, mask=mask, causal=causal, window=window, scale=scale)

    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return checkpoint(inner, q, k, v, use_reentrant=True)
    return inner(q, k, v)


class Half(torch.autograd.Function):
    """A backward pass of half the size."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        return 0.5 * upstream


def reentrant_wrong(q, k, v, **options):
    return reentrant(Half.apply(q), k, v, **options)


RIGHT = {
    "less a logarithm": dense(lambda s: (s - s.logsumexp(-1, keepdim=True)).exp()),
    "softmax in float32": dense(lambda s: s.softmax(-1, dtype=torch.float32)),
    "scores in float32": dense(lambda s: s.float().softmax(-1)),
    "base two": dense(lambda s: (s * torch.tensor(math.log2(math.e)) * math.log(2.0)).softmax(-1)),
    "reentrant": reentrant,
}
WRONG = {
    "less a logarithm in bfloat16": dense(
        lambda s: (s - s.logsumexp(-1, keepdim=True).bfloat16().to(s.dtype)).exp()
    ),
    "less a logarithm of powers": dense(lambda s: (s - s.exp().sum(-1, keepdim=True).log()).exp()),
    "softmax in bfloat16": dense(lambda s: s.bfloat16().softmax(-1).to(s.dtype)),
    "reentrant": reentrant_wrong,
}


class Limited(KernelCandidate):
    """Takes square problems of one row in blocks of 64 and vectors of 16, without gradients."""

    title = "limited"
    attends = staticmethod(plain)

    def attention(self, q, k, v, *, mask=None, causal=False, window=None, scale=None):
        limits = {
            "as many keys as queries": q.shape[2] == k.shape[2],
            "blocks of 64": q.shape[2] % 64 == 0 and q.shape[2] > 0,
            "vectors of 16": q.shape[3] % 16 == 0,
            "one row": q.shape[0] == 1,
        }
        for said, kept in limits.items():
            if not kept:
                raise NotImplementedError(f"{said} only")
        given = {"mask": mask, "causal": causal, "window": window, "scale": scale}
        return self.attends(q, k, v, **given).detach()


class Told(Limited):
    absent: ClassVar = {
        "unequal-lengths": "self-attention only",
        "batches": "one sequence at a time",
        "gradients": "inference only",
    }
    sizes: ClassVar = {
        "lengths": Sizes(multiple=64, reason="blocks of 64"),
        "head_dim": Sizes(multiple=16, reason="vectors of 16"),
    }


class Windowed(KernelCandidate):
    """Wants a window in every call."""

    required: ClassVar = {"window": "a kernel of sliding windows"}
    attends = staticmethod(plain)

    def attention(self, q, k, v, *, window, mask=None, causal=False, scale=None):
        if window is None:
            raise NotImplementedError("without a window")
        return self.attends(q, k, v, mask=mask, causal=causal, window=window, scale=scale)


class Decoder(KernelCandidate):
    """Is always causal."""

    required: ClassVar = {"causal": "a kernel of decoders"}
    attends = staticmethod(plain)

    def attention(self, q, k, v, *, causal, mask=None, window=None, scale=None):
        if not causal:
            raise NotImplementedError("without causal")
        return self.attends(q, k, v, mask=mask, causal=causal, window=window, scale=scale)


def seven_bits(x):
    """In 128 steps of the largest number of each vector."""
    step = x.abs().amax(-1, keepdim=True) / 127
    return x + (step * (x / step.clamp_min(1e-30)).round() - x).detach()


class Coarse(KernelCandidate):
    """Keeps queries and keys in 8 bits."""

    floor = Floor(relative=0.05, reason="queries and keys are kept in 8 bits")
    attends = staticmethod(dense(lambda s: s.softmax(-1), rounded=seven_bits))

    def attention(self, q, k, v, *, mask=None, causal=False, window=None, scale=None):
        given = {"mask": mask, "causal": causal, "window": window, "scale": scale}
        return self.attends(q, k, v, **given)
