"""The reference's attention as a kernel: what it is told by arguments is what the oracle's matrices say."""

from __future__ import annotations

import pytest
import torch

from holotype_conformance.attention import oracle
from holotype_conformance.attention.adapters import ReferenceKernel
from holotype_conformance.attention.kernel import Call
from holotype_reference.weighted_sum import PATHS


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (9, 9), (9, 5), (300, 300), (70, 400)])
def test_prefixes_and_documents_are_those_of_the_oracle(path, queries, keys):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, length, 4, generator=generator, dtype=torch.float64)
        for length in (queries, keys, keys)
    )
    lengths = (2, keys - 2)
    told = [
        ({"prefix": 3}, oracle.prefix(queries, keys, 3)),
        ({"documents": lengths}, oracle.documents(queries, keys, lengths)),
    ]
    for options, visible in told:
        found = ReferenceKernel(path).call(Call(q=q, k=k, v=v, causal=True, **options))
        right = oracle.attention(q.numpy(), k.numpy(), v.numpy(), visible=visible).output
        torch.testing.assert_close(found, torch.from_numpy(right), rtol=0, atol=1e-12)
