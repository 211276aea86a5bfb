"""What must not move in a kernel's results is held to bits where it gives bits, and else to rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}
HELD_STILL = ["masks.hidden-keys", "algebra.heads-apart"]
Change = Callable[[Tensor, Tensor], Tensor]


def judged(change: Change, slug: str) -> Result:
    def attention(q, k, v, *, causal: bool = False, mask: Tensor | None = None):  # type: ignore[no-untyped-def]
        if causal:
            full = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
            seen = full.tril(k.shape[2] - q.shape[2])
            mask = seen if mask is None else mask & seen
        return change(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), k)

    subject = KernelSubject(FunctionKernel(attention, "changed"), dtypes=["float64"])
    return judge(subject, replace(PROPERTIES[slug], examples=10), Settings())


class RoundsAnew:
    """Rounds at the last places, in another way at each call; as much larger as `size`."""

    def __init__(self, size: float = 2**-51) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.size = size

    def __call__(self, x: Tensor, k: Tensor) -> Tensor:
        noise = torch.rand(x.shape, generator=self.generator, dtype=torch.float64)
        return x * (1 + self.size * noise.round())


def leaking(size: float) -> Change:
    """All results know that there is a large key, a little."""
    return lambda x, k: x * (1 + size * (k.abs().max() > 1000.0).to(x))


still = pytest.mark.parametrize("slug", HELD_STILL)


@still
def test_a_kernel_that_rounds_anew_at_each_call_is_held_to_rounding(slug: str) -> None:
    result = judged(RoundsAnew(), slug)
    assert result.outcome == "passed", result.reason


def test_a_leak_of_one_bit_is_one() -> None:
    assert judged(leaking(2**-52), "masks.hidden-keys").outcome == "failed"


def test_a_leak_beyond_rounding_is_seen_through_rounding() -> None:
    noise, leak = RoundsAnew(), leaking(1e-9)
    assert judged(lambda x, k: leak(noise(x, k), k), "masks.hidden-keys").outcome == "failed"


@still
def test_what_differs_by_more_from_call_to_call_is_no_rounding(slug: str) -> None:
    assert judged(RoundsAnew(1e-9), slug).outcome == "failed"
