"""The reference's attention as a kernel: what it is told by arguments is what the oracle's matrices say."""

from __future__ import annotations

import pytest
import torch

from holotype_conformance.bench.counters import count
from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.adapters.reference import ReferenceKernel
from holotype_conformance.kernels.candidate import Call
from holotype_reference.kernels.paths import PATHS


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("queries", "keys"), [(5, 9), (9, 9), (9, 5), (30, 5), (300, 300), (70, 400)]
)
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


@pytest.mark.parametrize("path", ["fused", "blocks"])
@pytest.mark.parametrize(
    "options", [{"window": 256}, {"prefix": 0.5}, {"documents": (0.75, 0.25)}, {}], ids=str
)
@pytest.mark.slow
def test_memory_grows_with_the_length_and_not_with_its_square(path, options):
    def peak(length):
        tensors = [torch.randn(1, 1, length, 8, requires_grad=True) for _ in range(3)]
        told = dict(options)
        if "prefix" in told:
            told["prefix"] = int(length * told["prefix"])
        if "documents" in told:
            told["documents"] = tuple(int(length * part) for part in told["documents"])
        q, k, v = tensors
        call = Call(q=q, k=k, v=v, causal=True, **told)
        kernel = ReferenceKernel(path)
        return count(lambda: kernel.call(call).sum().backward(), known=tensors).peak

    assert peak(8192) < 2.3 * peak(4096)
