"""Every deviation of kernels is described, is a kernel, and is what its title says and nothing else."""

import re
from dataclasses import replace

import pytest
import torch

from holotype_conformance.judge.deviation import family_of
from holotype_conformance.judge.importing import TargetError
from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.cases import AttentionCase, Form, Mask, problem
from holotype_conformance.kernels.deviations import (
    CATALOGUE,
    DeviatedKernel,
    FormulaDeviation,
    KernelDeviation,
)
from holotype_conformance.kernels.deviations.backward import BackwardDeviation
from holotype_conformance.kernels.deviations.deviation import RIGHT
from holotype_conformance.kernels.targets import resolve_kernel
from holotype_conformance.mutation.kernels import rows

every_change = pytest.mark.parametrize(
    "deviation",
    [
        pytest.param(each, id=each.slug)
        for each in rows()
        if isinstance(each, FormulaDeviation | BackwardDeviation)
    ],
)


@pytest.mark.parametrize("deviation", [pytest.param(each, id=each.slug) for each in rows()])
def test_a_deviation_is_described(deviation: KernelDeviation) -> None:
    assert re.fullmatch(r"layout|[a-z-]+\.[a-z0-9_.-]+", deviation.slug)
    assert re.fullmatch(r"\S.*[^.\s]", deviation.words)
    assert len(deviation.meaning) > 100
    for report in deviation.reports:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", report), report


def test_each_says_what_no_other_does() -> None:
    families = {family_of(each.slug): each for each in CATALOGUE}
    titles = {re.sub(r"\d+", "N", each.words) for each in families.values()}
    meanings = {each.meaning for each in families.values()}
    assert len(titles) == len(meanings) == len(families)


def call(mask: Mask, form: Form, **sizes: int) -> Call:
    facts = {"queries": 37, "keys": 37, "head_dim": 16, **sizes}
    return problem(AttentionCase(mask=mask, form=form, size=5, **facts)).call


PLAIN = (
    call("none", "arguments", batch=2, heads=6, kv_heads=2),
    call("window", "arguments", queries=5),
    call("prefix", "arguments"),
    call("documents", "arguments"),
    call("right-padding", "boolean", batch=2),
)


@every_change
def test_a_deviation_of_the_formula_is_right_where_a_call_lacks_what_it_changes(
    deviation: FormulaDeviation | BackwardDeviation,
) -> None:
    for each in PLAIN:
        found = deviation.attention(each)
        assert found.shape == each.q.shape
        if isinstance(deviation, BackwardDeviation) or not deviation.where(each):
            assert torch.equal(found, RIGHT(each))


@every_change
def test_what_a_failure_is_compared_with_is_what_the_kernel_gives(
    deviation: FormulaDeviation | BackwardDeviation,
) -> None:
    for each in PLAIN:
        if isinstance(deviation, FormulaDeviation):
            found = deviation.result(each)
            assert found is None or torch.equal(found.output, deviation.attention(each))
        else:
            leaves = [x.clone().requires_grad_() for x in (each.q, each.k, each.v)]
            deviation.attention(_with(each, leaves)).sum().backward()  # type: ignore[no-untyped-call]
            gradients = deviation.gradients(each, torch.ones_like(each.q))
            for leaf, name in zip(leaves, "qkv", strict=True):
                assert leaf.grad is not None
                torch.testing.assert_close(leaf.grad, getattr(gradients, name), equal_nan=True)


def test_gradients_of_a_backward_pass_without_a_mistake_are_those_of_autograd() -> None:
    for each in PLAIN:
        upstream = torch.randn(each.q.shape, dtype=each.q.dtype, generator=torch.manual_seed(0))
        found = []
        for kernel in (RIGHT, CATALOGUE.find("gradients.band.wider").attention):
            leaves = [x.clone().requires_grad_() for x in (each.q, each.k, each.v)]
            output = kernel(_with(each, leaves))
            found.append(torch.autograd.grad(output, leaves, upstream))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def _with(given: Call, leaves: list[torch.Tensor]) -> Call:
    """The same call on other q, k and v."""
    q, k, v = leaves
    return replace(given, q=q, k=k, v=v)


def test_a_deviation_is_a_target() -> None:
    found = resolve_kernel("deviation:causal.one-ahead")
    assert isinstance(found, DeviatedKernel)
    assert found.title == "the formula with causal.one-ahead"
    with pytest.raises(TargetError, match=r"did you mean causal\.one-ahead"):
        resolve_kernel("deviation:causal.one-ahea")
