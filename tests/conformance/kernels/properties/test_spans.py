"""Kernels that take prefixes and documents by argument: what is right is not flagged, and what they lack is skipped."""

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.deviations import DeviatedKernel
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

PROPERTIES = {
    property_.slug: property_
    for property_ in kernel_properties()
    if property_.slug.startswith(("prefix.", "documents."))
}


right = DeviatedKernel().attention


def apart(q, k, v, *, causal=False, prefix=None, documents=None):
    """Right, in another way: each document by itself, and the keys of a prefix before the others."""
    if documents is None or q.shape[2] != k.shape[2] or isinstance(documents[0], tuple):
        return right(q, k, v, causal=causal, prefix=prefix, documents=documents)
    parts = zip(*(x.split(documents, 2) for x in (q, k, v)), strict=True)
    return torch.cat([right(*part, causal=True) for part in parts], 2)


def verdict(function, slug, **settings):
    subject = KernelSubject(FunctionKernel(function, "mine"))
    return judge(subject, PROPERTIES[slug], Settings(named=True, **settings))


@pytest.mark.parametrize("slug", PROPERTIES)
def test_no_property_flags_a_kernel_that_takes_documents_one_by_one(slug):
    result = verdict(apart, slug)
    assert result.outcome == "passed", result


def test_a_kernel_that_is_told_no_documents_is_skipped_by_name_with_the_reason():
    def plain(q, k, v, *, causal=False):
        return right(q, k, v, causal=causal)

    for slug, name in (("prefix.formula", "prefix"), ("documents.rows", "documents")):
        result = verdict(plain, slug)
        assert result.outcome == "skipped"
        assert f"takes no `{name}`" in result.reason


def test_a_prefix_for_each_row_may_be_refused():
    def one_for_all(q, k, v, *, causal=False, prefix=None):
        return right(q, k, v, causal=causal, prefix=prefix if prefix is None else int(prefix))

    assert verdict(one_for_all, "prefix.formula").outcome == "passed"
    result = verdict(one_for_all, "prefix.rows")
    assert result.outcome == "skipped"
    assert "it refuses a prefix for each row of the batch" in result.reason
