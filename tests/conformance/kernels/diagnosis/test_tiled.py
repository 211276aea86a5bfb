"""Each mistake of those who go through the keys in blocks is caught, and named with the size of the block."""

import os
from itertools import product
from pathlib import Path
from runpy import run_path

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.deviations.blocks import BLOCKS, UNEVEN
from holotype_conformance.kernels.diagnosis import BY_BLOCK, LENGTHS, diagnose
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in kernel_properties()}
tiled = run_path(str(Path(__file__).parents[1] / "tiled_kernels.py"))["tiled"]

# The property that is sure to catch each, whatever the block.
CAUGHT = {
    "blocks.output-not-rescaled": "lengths.rising-scores",
    "blocks.sum-not-rescaled": "lengths.rising-scores",
    "blocks.neither-rescaled": "lengths.rising-scores",
    "blocks.rescaled-by-exp2": "lengths.rising-scores",
    "blocks.rescaled-by-exp": "lengths.rising-scores",
    "blocks.rescaled-without-scale": "lengths.rising-scores",
    "blocks.added": "lengths.block-edges",
    "blocks.averaged": "lengths.block-edges",
    "blocks.rest-dropped": "lengths.block-edges",
    "blocks.padding-counted": "lengths.block-edges",
    "blocks.diagonal-skipped": "masks.causal",
    "blocks.upper-left": "lengths.cache",
}


FULL = os.environ.get("HOLOTYPE_KILL_MATRIX") == "full"


def pairs(blocks):
    """Each mistake with each size of block in the full form; else with every third, each size with four mistakes."""
    every = list(product(enumerate(CAUGHT), enumerate(blocks)))
    return [(bug, block) for (i, bug), (j, block) in every if FULL or (i + j) % 3 == 0]


def judged(function, slug, dtypes=()):
    subject = KernelSubject(FunctionKernel(function, "mine"), dtypes=dtypes)
    return judge(subject, PROPERTIES[slug], Settings(diagnose=diagnose))


def named(result):
    assert result.outcome == "failed", result
    return {each.deviation for each in result.diagnosis}


def test_every_mistake_is_tried_with_every_block():
    slugs = [change.slug for change in BY_BLOCK]
    blocks = (*BLOCKS, *UNEVEN)
    assert sorted(slugs) == sorted(f"{bug}.{block}" for bug in CAUGHT for block in blocks)


@pytest.mark.parametrize(("bug", "block"), pairs(BLOCKS))
def test_a_mistake_in_a_float32_kernel_is_caught_and_named_with_its_block_and_no_other(bug, block):
    result = judged(tiled(block, bug), CAUGHT[bug], dtypes=("float32",))
    assert named(result) == {f"{bug}.{block}"}
    assert (
        f"{block} keys" in result.diagnosis[0].title
        or f"block of {block}" in result.diagnosis[0].title
    )


@pytest.mark.parametrize(("bug", "block"), pairs(UNEVEN))
def test_a_mistake_in_blocks_of_an_uncommon_size_is_named_with_it_and_no_other(bug, block):
    result = judged(tiled(block, bug), CAUGHT[bug], dtypes=("float32",))
    assert named(result) == {f"{bug}.{block}"}


@pytest.mark.parametrize("bug", [bug for bug in CAUGHT if bug != "blocks.upper-left"])
def test_a_kernel_that_takes_float64_and_computes_in_float32_is_diagnosed_in_float32(bug):
    result = judged(tiled(16, bug, inside=torch.float32), "formula.float32")
    assert named(result) == {f"{bug}.16"}


def test_a_failure_of_so_few_keys_that_there_is_one_block_is_not_laid_to_the_blocks():
    unscaled = tiled(64, "blocks.output-not-rescaled", inside=torch.float16)
    result = judged(unscaled, "extremes.large-values", dtypes=("float16",))
    assert result.counterexample.case["keys"] <= 64
    assert named(result) == set()


@pytest.mark.parametrize("bug", ["softmax.base-two", "softmax.log2e-left"])
def test_another_base_of_the_softmax_is_named_whatever_the_block(bug):
    assert named(judged(tiled(32, bug), "formula.float64")) == {bug}


@pytest.mark.parametrize("slug", [*sorted(set(CAUGHT.values())), "formula.scale", "masks.diagonal"])
@pytest.mark.parametrize("block", BLOCKS)
def test_a_kernel_in_blocks_that_is_right_passes(block, slug):
    assert judged(tiled(block), slug).outcome == "passed"


def test_a_block_of_another_size_is_not_taken_for_a_customary_one():
    found = named(judged(tiled(56, "blocks.output-not-rescaled"), "lengths.rising-scores"))
    assert found == set()


def test_no_two_blocks_leave_the_same_rests_or_lack_as_many_keys_and_each_leaves_some():
    every = BLOCKS + UNEVEN
    assert len({tuple(length % block for length in LENGTHS) for block in every}) == len(every)
    assert len({tuple(-length % block for length in LENGTHS) for block in every}) == len(every)
    assert all(length % block for length in LENGTHS for block in every)
