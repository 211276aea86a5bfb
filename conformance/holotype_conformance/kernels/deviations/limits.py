"""Kernels that refuse what they do not declare: each would be told by one line of a `KernelCandidate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from holotype_conformance.judge.deviation import says
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import CATALOGUE, RIGHT, KernelDeviation
from holotype_conformance.kernels.deviations.formula import is_grouped

BLOCK = 16


@dataclass(frozen=True, kw_only=True)
class Limit(KernelDeviation):
    """A kernel that raises for some calls, and is right for others."""

    refuses: Callable[[Call], bool]
    backwards: bool = False

    def attention(self, call: Call) -> Tensor:
        refused = self.refuses(call)
        if refused and not self.backwards:
            raise RuntimeError(f"unsupported: {self.words}")
        found = RIGHT(call)
        if refused and found.requires_grad:
            found.register_hook(self._raise)  # type: ignore[no-untyped-call]
        return found

    def _raise(self, gradient: Tensor) -> Tensor:
        raise RuntimeError(f"unsupported: {self.words}")


def _limit(
    slug: str, title: str, meaning: str, refuses: Callable[[Call], bool], *, backwards: bool = False
) -> None:
    CATALOGUE.register(
        Limit(
            slug=f"limit.{slug}",
            title=says(title),
            meaning=meaning,
            refuses=refuses,
            backwards=backwards,
        )
    )


_limit(
    "lengths",
    "it takes lengths that are multiples of a block only",
    "A kernel without masked edges, as most first versions are. Pad what it is given, or declare"
    ' sizes = {"lengths": Sizes(multiple=16, reason="…")}: it is then tested at such lengths, and'
    " the report says so.",
    lambda call: bool(call.q.shape[2] % BLOCK or call.k.shape[2] % BLOCK),
)
_limit(
    "head_dim",
    "it takes some head dims only",
    "Tensor cores take vectors of 16, and kernels are compiled for 64 and 128. Declare sizes ="
    ' {"head_dim": Sizes(multiple=16, reason="…")}, or pad the head dim with zeros, which changes'
    " no product but the default scale.",
    lambda call: call.q.shape[3] % BLOCK != 0,
)
_limit(
    "unequal-lengths",
    "it takes as many queries as keys only",
    "A kernel for training, that knows no cache. In decoding there is one query to many keys:"
    ' another kernel must serve that. Declare absent = {"unequal-lengths": "…"}.',
    lambda call: call.q.shape[2] != call.k.shape[2],
)
_limit(
    "batches",
    "it takes a batch of one only",
    "A kernel that was written for one sequence, or for a pack of them. Call it row by row in an"
    ' adapter, or declare absent = {"batches": "…"}.',
    lambda call: len(call.q) > 1,
)
_limit(
    "grouped-heads",
    "it refuses groups of three heads",
    "Groups are taken by shifts of an index, so that only powers of two work, and the first test,"
    ' of two heads to one, does. Divide instead, or declare absent = {"grouped-heads": "…"} and'
    " repeat keys and values before the call.",
    lambda call: is_grouped(call) and call.q.shape[1] // call.k.shape[1] == 3,
)
_limit(
    "gradients",
    "its backward pass raises where it was told a scale",
    "The way back exists for some of what the way forward takes: here not for a scale of the"
    ' caller\'s. Where training is not what the kernel is for, declare absent = {"gradients": "…"};'
    " else hand every argument on to the backward pass.",
    lambda call: call.scale is not None,
    backwards=True,
)
_limit(
    "window",
    "it must be told a window beyond 32 keys",
    "The end of the loop is computed from the window, and nothing says what it is without one; up"
    " to one block nobody asks. Give it a default that hides nothing, or declare required ="
    ' {"window": "…"}.',
    lambda call: call.k.shape[2] > 2 * BLOCK and call.window is None,
)
_limit(
    "causal",
    "it must be told causal beyond 32 keys",
    "A kernel of decoders, which visits the blocks up to the diagonal; up to one block it is"
    ' right without. Declare required = {"causal": "…"}: it is then given causal calls alone.',
    lambda call: call.k.shape[2] > 2 * BLOCK and not call.causal,
)
