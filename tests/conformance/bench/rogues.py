"""Kernels under test: one that is right, and others that are each wrong, wasteful or slow in one way."""

import contextlib
import os
import subprocess
import sys
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from holotype_conformance.judge.declaring import Floor
from holotype_conformance.kernels.candidate import KernelCandidate


def right(q, k, v, *, mask=None, causal=False):
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )


def checkpointed(q, k, v, *, mask=None, causal=False):
    """Computed again on the way back, by a checkpoint that refuses to be asked for some gradients."""
    run = partial(right, mask=mask, causal=causal)
    return checkpoint(run, q, k, v, use_reentrant=True)


def some_gradients_missing(q, k, v, *, mask=None, causal=False):
    return right(q, k.detach(), v, mask=mask, causal=causal)


class Coarse(KernelCandidate):
    """Rounds its keys, and says how far off that is."""

    floor = Floor(relative=0.02, reason="keys in 8 bits")
    digits = 64.0

    def attention(self, q, k, v, *, mask=None, causal=False):
        return right(q, (k * self.digits).round() / self.digits, v, mask=mask, causal=causal)


class CoarserThanStated(Coarse):
    digits = 0.5


class CoarseUnstated(Coarse):
    floor = None


def slower(q, k, v, *, mask=None, causal=False):
    """A tenth more work where there are ten heads."""
    right(q[:, :1], k[:, :1], v[:, :1], mask=mask, causal=causal)
    return right(q, k, v, mask=mask, causal=causal)


def a_fifth_twice(q, k, v, *, mask=None, causal=False):
    """The two blocks of 64 in the lower right corner once more: of a length of 256 a fifth."""
    again = right(q[:, :, -64:], k[:, :, -128:], v[:, :, -128:])
    return right(q, k, v, mask=mask, causal=causal) + 0.0 * again.mean()


def documents_as_one(q, k, v, *, mask=None, causal=False, documents=None):
    """Told the lengths of documents, it makes a dense mask of them."""
    if documents is not None:
        number = torch.repeat_interleave(torch.tensor(documents))
        mask, causal = (number[:, None] == number).tril(), False
    return right(q, k, v, mask=mask, causal=causal)


def documents_apart(q, k, v, *, mask=None, causal=False, documents=None):
    """Each document by itself."""
    lengths = documents or (q.shape[2],)
    parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    return torch.cat([right(*part, mask=mask, causal=causal) for part in parts], dim=2)


def documents_with_the_next(q, k, v, *, mask=None, causal=False, documents=None):
    """Each document, and a block of 64 by 64 of the next one once more."""
    lengths = documents or (q.shape[2],)
    for end in (sum(lengths[: i + 1]) for i in range(len(lengths) - 1)):
        right(*(x[:, :, end : end + 64] for x in (q, k, v)))
    return documents_apart(q, k, v, mask=mask, causal=causal, documents=documents)


def hungrier(q, k, v, *, mask=None, causal=False):
    """One more copy."""
    return right(q.clone(), k, v, mask=mask, causal=causal)


def quadratic(q, k, v, *, causal=False):
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    return scores.softmax(-1) @ v


def off_by_one(q, k, v, *, causal=False):
    shape = q.shape[2], k.shape[2]
    seen = torch.ones(shape, dtype=torch.bool).tril(-1 if causal else max(shape))
    seen[0, 0] = True
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


class _Detached(torch.autograd.Function):
    """Right forward, and half of the gradient by the keys."""

    @staticmethod
    def forward(ctx, k):
        return k.view_as(k)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0.5


def half_gradient(q, k, v, *, causal=False):
    return right(q, _Detached.apply(k), v, causal=causal)


def writes(q, k, v, *, causal=False):
    result = right(q, k, v, causal=causal)
    if not q.requires_grad:
        q.zero_()
    return result


_RESULTS = {}


def remembers(q, k, v, *, causal=False):
    """Hands out what it computed the last time, which is right for the inputs of the last time only."""
    key = tuple(q.shape)
    if key not in _RESULTS:
        _RESULTS[key] = right(q, k, v, causal=causal)
    return _RESULTS[key]


def dies_at_length_128(q, k, v, *, causal=False):
    if q.shape[2] == 128:
        os._exit(7)
    return right(q, k, v, causal=causal)


def refuses_gradients(q, k, v, *, causal=False):
    return right(q.detach(), k.detach(), v.detach(), causal=causal)


def stops_clocks(q, k, v, *, causal=False):
    """Right, and every clock that it can reach stands still."""
    time.process_time = time.thread_time = time.perf_counter = time.monotonic = lambda: 0.0
    return right(q, k, v, causal=causal)


def hangs_at_length_128(q, k, v, *, causal=False):
    while q.shape[2] == 128:
        time.sleep(1)
    return right(q, k, v, causal=causal)


def floods(q, k, v, *, causal=False):
    os.write(1, b'{"type":"sampled","seconds":0}\n' * 30_000)
    return right(q, k, v, causal=causal)


def leaves_a_daemon(q, k, v, *, causal=False):
    """A process of a session of its own, which nobody waits for."""
    if not _RESULTS:
        line = f"import time; time.sleep({os.environ['HOLOTYPE_DAEMON']})"
        _RESULTS[()] = subprocess.Popen([sys.executable, "-c", line], start_new_session=True)
    return right(q, k, v, causal=causal)


def scribbles(q, k, v, *, causal=False):
    """Answers in our name wherever it can write."""
    for number in range(3, 1100):
        with contextlib.suppress(OSError):
            os.write(number, b"{}\n")
    return right(q, k, v, causal=causal)
