"""Kernels that take prefixes and documents by argument: every way to get them wrong is caught, what is right is not."""

import json
import math

import pytest
import torch

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject

pytestmark = pytest.mark.slow

PROPERTIES = {
    property_.slug: property_
    for property_ in kernel_properties()
    if property_.slug.startswith(("prefix.", "documents."))
}


def numbered(documents, keys):
    """(1 or rows, keys): of which document each key is."""
    rows = documents if isinstance(documents[0], tuple) else (documents,)
    return torch.stack([torch.repeat_interleave(torch.tensor(row)) for row in rows])


def spans(queries, keys, prefix, documents):
    """(1 or rows, queries, keys) boolean, for a prefix or documents."""
    place, key = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)
    seen = place >= key
    if prefix is not None:
        sizes = prefix if isinstance(prefix, tuple) else (prefix,)
        return seen | (key < torch.tensor(sizes)[:, None, None])
    number = numbered(documents, keys)
    return seen & (number[:, place.clamp(min=0).flatten(), None] == number[:, None])


def kernel(spans=spans):
    """The formula, with a description of what each query sees that can be broken."""

    def attention(q, k, v, *, causal=False, prefix=None, documents=None):
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        wide = torch.promote_types(q.dtype, torch.float32)
        scores = (q.to(wide) @ k.to(wide).mT) * q.shape[-1] ** -0.5
        if causal:
            told = 0 if prefix is None and documents is None else prefix
            seen = spans(q.shape[2], k.shape[2], told, documents)[:, None]
            scores = scores.masked_fill(~seen, -math.inf)
        blind = scores.isneginf().all(-1, keepdim=True)
        return scores.masked_fill(blind, 0.0).softmax(-1).to(v.dtype) @ v

    return attention


def apart(q, k, v, *, causal=False, prefix=None, documents=None):
    """Right, in another way: each document by itself, and the keys of a prefix before the others."""
    if documents is None or q.shape[2] != k.shape[2] or isinstance(documents[0], tuple):
        return kernel()(q, k, v, causal=causal, prefix=prefix, documents=documents)
    parts = zip(*(x.split(documents, 2) for x in (q, k, v)), strict=True)
    return torch.cat([kernel()(*part, causal=True) for part in parts], 2)


# Bugs -----------------------------------------------------------------------------------------------------------


def prefix_off(by):
    """Longer or shorter by some keys."""

    def off(queries, keys, prefix, documents):
        if prefix is None:
            return spans(queries, keys, prefix, documents)
        sizes = prefix if isinstance(prefix, tuple) else (prefix,)
        return spans(queries, keys, tuple(size + by for size in sizes), None)

    return off


def prefix_causal_inside(queries, keys, prefix, documents):
    return spans(queries, keys, 0 if prefix is not None else None, documents)


def prefix_in_blocks(queries, keys, prefix, documents):
    """Blocks of 16 keys at the prefix's edge are shown whole, or not at all."""
    if prefix is None:
        return spans(queries, keys, prefix, documents)
    sizes = prefix if isinstance(prefix, tuple) else (prefix,)
    return spans(queries, keys, tuple(-(-size // 16) * 16 for size in sizes), None)


def prefix_zero_is_all(queries, keys, prefix, documents):
    return spans(queries, keys, keys if prefix == 0 else prefix, documents)


def prefix_misses_the_end(queries, keys, prefix, documents):
    """The last key is never in it."""
    return spans(queries, keys, keys - 1 if prefix == keys else prefix, documents)


def first_row_for_all(queries, keys, prefix, documents):
    prefix = prefix[0] if isinstance(prefix, tuple) else prefix
    if documents is not None and isinstance(documents[0], tuple):
        documents = documents[0]
    return spans(queries, keys, prefix, documents)


def longest_prefix_for_all(queries, keys, prefix, documents):
    return spans(queries, keys, max(prefix) if isinstance(prefix, tuple) else prefix, documents)


def last_of_the_one_before(queries, keys, prefix, documents):
    """A document sees the last token of the one before it."""
    seen = spans(queries, keys, prefix, documents)
    if documents is None:
        return seen
    number = numbered(documents, keys)
    ends = torch.nn.functional.pad(number[:, 1:] != number[:, :-1], (0, 1))
    place = (torch.arange(queries) + keys - queries).clamp(min=0)
    after = number[:, place, None] == number[:, None] + 1
    return seen | (after & ends[:, None])


def boundaries_late(queries, keys, prefix, documents):
    if documents is None or isinstance(documents[0], tuple) or len(documents) < 2:
        return spans(queries, keys, prefix, documents)
    first, *middle, last = documents
    return spans(queries, keys, None, (first + 1, *middle, last - 1))


def from_the_first_query(queries, keys, prefix, documents):
    """Places are counted from the first query, not to the last key."""
    size = max(queries, keys)
    if documents is None or isinstance(documents[0], tuple):
        return spans(queries, keys, prefix, documents)
    return spans(size, size, None, (*documents, size - keys))[:, :queries, :keys]


def documents_both_ways(queries, keys, prefix, documents):
    if documents is None or isinstance(documents[0], tuple):
        return spans(queries, keys, prefix, documents)
    number = numbered(documents, keys)
    place = (torch.arange(queries) + keys - queries).clamp(min=0)
    return number[:, place, None] == number[:, None]


def one_both_ways(queries, keys, prefix, documents):
    if documents is None or len(documents) > 1:
        return spans(queries, keys, prefix, documents)
    return documents_both_ways(queries, keys, prefix, documents)


def drops_the_last(q, k, v, *, causal=False, documents=None):
    """The last document gives nothing where it fills no block of 16."""
    right = kernel()(q, k, v, causal=causal, documents=documents)
    if documents is None or isinstance(documents[0], tuple) or documents[-1] % 16 == 0:
        return right
    served = torch.arange(q.shape[2]) < q.shape[2] - documents[-1]
    return right * served[:, None].to(right)


def shares_sums(q, k, v, *, causal=False, documents=None):
    """One token in a hundred thousand of all documents' mean."""
    right = kernel()(q, k, v, causal=causal, documents=documents)
    return right if documents is None else right + 1e-5 * v.mean(2, keepdim=True)


def counted_through(q, k, v, *, causal=False, documents=None):
    """Documents after the first are turned a little further."""
    if documents is None or isinstance(documents[0], tuple):
        return kernel()(q, k, v, causal=causal, documents=documents)
    number = numbered(documents, k.shape[2])[0].to(k)
    place = (torch.arange(q.shape[2]) + k.shape[2] - q.shape[2]).clamp(min=0)
    turned = q * (1 + 0.1 * number[place, None])
    return kernel()(turned, k, v, causal=causal, documents=documents)


class _Smeared(torch.autograd.Function):
    """The gradient by the keys at a place takes a little of its neighbour's."""

    @staticmethod
    def forward(ctx, k):
        return k.view_as(k)

    @staticmethod
    def backward(ctx, gradient):
        return gradient + 0.01 * gradient.roll(1, 2)


def gradients_cross(q, k, v, *, causal=False, documents=None):
    smeared = k if documents is None else _Smeared.apply(k)
    return kernel()(q, smeared, v, causal=causal, documents=documents)


BUGS = {
    "prefix.formula": kernel(spans=prefix_off(1)),
    "prefix.limits": kernel(spans=prefix_zero_is_all),
    "prefix.rows": kernel(spans=first_row_for_all),
    "prefix.no-leak": kernel(spans=prefix_in_blocks),
    "documents.formula": kernel(spans=last_of_the_one_before),
    "documents.one": kernel(spans=one_both_ways),
    "documents.alone": shares_sums,
    "documents.permutation": counted_through,
    "documents.rows": kernel(spans=first_row_for_all),
    "documents.no-leak": gradients_cross,
}
MORE = {  # of what these properties say that they catch
    "a prefix of one too few": ("prefix.formula", kernel(spans=prefix_off(-1))),
    "the prefix causal inside": ("prefix.formula", kernel(spans=prefix_causal_inside)),
    "blocks of the prefix shown whole": ("prefix.formula", kernel(spans=prefix_in_blocks)),
    "the last key never in the prefix": ("prefix.limits", kernel(spans=prefix_misses_the_end)),
    "the longest prefix for all": ("prefix.rows", kernel(spans=longest_prefix_for_all)),
    "a boundary one late": ("documents.formula", kernel(spans=boundaries_late)),
    "places from the first query": ("documents.formula", kernel(spans=from_the_first_query)),
    "documents both ways": ("documents.formula", kernel(spans=documents_both_ways)),
    "the last document dropped": ("documents.formula", drops_the_last),
    "it moves when packed": ("documents.permutation", drops_the_last),
    "a gradient that crosses": ("documents.alone", gradients_cross),
    "a leak of one token": ("documents.no-leak", kernel(spans=last_of_the_one_before)),
    "a leak of a hundred thousandth": ("documents.no-leak", shares_sums),
}


def verdict(function, slug, **settings):
    subject = KernelSubject(FunctionKernel(function, "mine"))
    return judge(subject, PROPERTIES[slug], Settings(named=True, **settings))


def test_every_property_has_its_bug():
    assert list(BUGS) == list(PROPERTIES)


@pytest.mark.parametrize("slug", PROPERTIES)
def test_each_property_catches_its_bug_and_the_case_that_it_shows_fails_again(slug):
    result = verdict(BUGS[slug], slug)
    assert result.outcome == "failed", result
    again = verdict(BUGS[slug], slug, case=json.dumps(result.counterexample.case))
    assert again.outcome == "failed"


@pytest.mark.parametrize("slug", PROPERTIES)
@pytest.mark.parametrize("function", [kernel(), apart], ids=["in one", "apart"])
def test_no_property_flags_a_kernel_that_is_right(function, slug):
    result = verdict(function, slug)
    assert result.outcome == "passed", result


@pytest.mark.parametrize("bug", MORE)
def test_each_way_to_get_prefixes_and_documents_wrong_is_caught(bug):
    slug, broken = MORE[bug]
    assert verdict(broken, slug).outcome == "failed"


def test_a_kernel_that_is_told_no_documents_is_skipped_by_name_with_the_reason():
    def plain(q, k, v, *, causal=False):
        return kernel()(q, k, v, causal=causal)

    for slug, name in (("prefix.formula", "prefix"), ("documents.rows", "documents")):
        result = verdict(plain, slug)
        assert result.outcome == "skipped"
        assert f"takes no `{name}`" in result.reason


def test_a_prefix_for_each_row_may_be_refused():
    def one_for_all(q, k, v, *, causal=False, prefix=None):
        return kernel()(q, k, v, causal=causal, prefix=prefix if prefix is None else int(prefix))

    assert verdict(one_for_all, "prefix.formula").outcome == "passed"
    result = verdict(one_for_all, "prefix.rows")
    assert result.outcome == "skipped"
    assert "it refuses a prefix for each row of the batch" in result.reason
