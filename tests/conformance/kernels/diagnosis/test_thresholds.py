"""Mistakes that begin with a number of keys or queries, and blocks that the first row of a batch decides, are named."""

from pathlib import Path
from runpy import run_path

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.deviations.blocks import BLOCKS, UNEVEN
from holotype_conformance.kernels.diagnosis import diagnose
from holotype_conformance.kernels.diagnosis.rows import SIZES
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

plain = run_path(str(Path(__file__).parents[1] / "limited_kernels.py"))["plain"]
EVERY = {property_.slug: property_ for property_ in kernel_properties()}


def named(attention, slug):
    result = judge(
        KernelSubject(FunctionKernel(attention, "mine")), EVERY[slug], Settings(diagnose=diagnose)
    )
    assert result.outcome == "failed", result
    return [each.deviation for each in result.diagnosis]


def wrong_where(where):
    """One whose results are off where the numbers of queries and keys say so."""

    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        found = plain(q, k, v, mask=mask, causal=causal, window=window, scale=scale)
        return found * (1.1 if where(q.shape[2], k.shape[2]) else 1.0)

    return attention


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (lambda n, m: m > 128, "sizes.keys-most.128"),
        (lambda n, m: m > 48, "sizes.keys-most.48"),
        (lambda n, m: n > 64, "sizes.queries-most.64"),
        (lambda n, m: m % 32 != 0, "sizes.keys-multiple.32"),
        (lambda n, m: n % 16 != 0, "sizes.queries-multiple.16"),
        (lambda n, m: n * m > 128 * 128, "sizes.lengths-most.128"),
        # One block too few, but never none: the last one that is not full is lost.
        (lambda n, m: m > 16 and m % 16 != 0, "sizes.keys-one-or-multiple.16"),
    ],
)
def test_where_a_mistake_begins_is_told(where, name):
    # With causal as many queries as keys fail, without it a few of one.
    assert name in named(wrong_where(where), "lengths.block-edges")


def test_a_number_that_decides_under_a_mask_alone_says_so():
    def attention(q, k, v, *, mask=None, causal=False, window=None, scale=None):
        found = plain(q, k, v, mask=mask, causal=causal, window=window, scale=scale)
        return found * (1.1 if k.shape[2] > 64 and mask is not None else 1.0)

    result = judge(
        KernelSubject(FunctionKernel(attention, "mine")),
        EVERY["lengths.masks"],
        Settings(diagnose=diagnose),
    )
    said = [each.title for each in result.diagnosis]
    assert [
        each.endswith("and wrong beyond, with a mask like this case's alone") for each in said
    ] == [True]


@pytest.mark.parametrize(
    "where", [lambda n, m: True, lambda n, m: m > 5, lambda n, m: m > 57, lambda n, m: m % 3 == 0]
)
def test_no_number_is_told_where_it_explains_nothing(where):
    assert named(wrong_where(where), "lengths.block-edges") == []


def visited_by_the_first(block):
    """One that skips blocks of a mask which the first row of the batch does not see."""

    def attention(q, k, v, *, mask=None, scale=None):
        if mask is not None:
            boolean = mask.dtype == torch.bool
            seen = (mask if boolean else mask > -torch.inf)[:1].any(1, keepdim=True)
            seen = seen.expand(1, 1, q.shape[2], k.shape[2]).clone()
            for i in range(0, q.shape[2], block):
                for j in range(0, k.shape[2], block):
                    part = (..., slice(i, i + block), slice(j, j + block))
                    seen[part] = seen[part].any()
            mask = mask & seen if boolean else mask.masked_fill(~seen, -torch.inf)
        return plain(q, k, v, mask=mask, scale=scale)

    return attention


@pytest.mark.parametrize("block", [16, 48, 64])
def test_blocks_that_the_first_row_decides_are_named_with_their_size(block):
    assert named(visited_by_the_first(block), "lengths.masks") == [f"blocks.of-first-row.{block}"]


def test_no_two_blocks_end_alike_behind_the_last_key_of_every_first_row():
    ends = {
        block: tuple(-(-(size + 1) // block) * block for size in SIZES)
        for block in (*BLOCKS, *UNEVEN)
    }
    assert len(set(ends.values())) == len(ends)
