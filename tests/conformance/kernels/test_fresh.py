"""A kernel's failure that a kernel made anew does not show is told with the calls that it needs."""

from pathlib import Path

import pytest

from holotype_conformance.judge.records import Request, Result
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.run.session import Session

pytestmark = pytest.mark.slow

KEEPING = """
import torch
from torch.nn.functional import scaled_dot_product_attention

kept = {}


def stale(q, k, v, *, causal=False):
    # The mask of the first call is kept for all that are no longer.
    if not causal:
        return scaled_dot_product_attention(q, k, v)
    made = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
    longest = kept.get("mask", made)
    if longest.shape[0] < q.shape[2] or longest.shape[1] < k.shape[2]:
        longest = made
    kept["mask"] = longest
    return scaled_dot_product_attention(q, k, v, attn_mask=longest[: q.shape[2], : k.shape[2]])


def wrong(q, k, v):
    return 1.5 * scaled_dot_product_attention(q, k, v)
"""


def judged(folder: Path, name: str, slug: str) -> Result:
    path = folder / "keeping.py"
    path.write_text(KEEPING)
    request = Request(
        target=f"{path}:{name}",
        specs=("attention",),
        kind="attention",
        properties=(slug,),
        limit=0,
    )
    run = Session(request, resolve_kernel(request.target))
    return run.judge(run.specs[0], run.properties[0])


def test_what_a_kernel_keeps_from_call_to_call_is_told_with_the_calls(tmp_path: Path) -> None:
    result = judged(tmp_path, "stale", "masks.diagonal")
    assert result.outcome == "failed"
    assert (result.depends or "").startswith("on earlier calls: on a fresh kernel the same case")
    assert result.history
    assert result.counterexample is not None
    assert "--case" not in result.counterexample.rerun


def test_a_kernel_that_is_always_wrong_depends_on_nothing(tmp_path: Path) -> None:
    result = judged(tmp_path, "wrong", "formula.float64")
    assert (result.outcome, result.depends, result.history) == ("failed", None, ())
