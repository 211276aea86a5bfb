"""Cases as a kernel with declared limits takes them: the nearest sizes, and the parameters that it must be told."""

from __future__ import annotations

import msgspec

from holotype_conformance.kernels.candidate import KernelCandidate
from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.sizes import Axis, nearest


def is_limited(kernel: KernelCandidate) -> bool:
    """Whether it declares anything that changes cases."""
    return bool(
        kernel.sizes
        or kernel.required
        or "unequal-lengths" in kernel.absent
        or "batches" in kernel.absent
    )


def fitted(case: AttentionCase, kernel: KernelCandidate) -> AttentionCase:
    """The nearest case that the kernel takes by what it declares; the case itself where nothing is declared."""
    if not is_limited(kernel):
        return case
    case = _told(case, kernel)
    queries, keys = _lengths(case, kernel)
    heads = _size(kernel, case.heads, "heads")
    group = case.heads // max(case.kv_heads, 1)
    sized = msgspec.structs.replace(
        case,
        batch=1 if "batches" in kernel.absent else _size(kernel, case.batch, "batch"),
        queries=queries,
        heads=heads,
        kv_heads=heads // group if heads % group == 0 else heads,
        head_dim=_size(kernel, case.head_dim, "head_dim"),
    )
    return _with_keys(sized, keys)


def _lengths(case: AttentionCase, kernel: KernelCandidate) -> tuple[int, int]:
    """Queries and keys."""
    if "unequal-lengths" in kernel.absent:
        length = _size(kernel, max(case.queries, case.keys), "lengths", "queries", "keys")
        return length, length
    keys = _size(kernel, case.keys, "lengths", "keys")
    queries = min(case.queries, keys) if "causal" in kernel.required else case.queries
    queries = _size(kernel, queries, "lengths", "queries")
    return queries, keys


def _size(kernel: KernelCandidate, size: int, *axes: Axis) -> int:
    limits = [kernel.sizes[axis] for axis in axes if axis in kernel.sizes]
    found = nearest(size, limits) if limits else size
    return size if found is None else found


def _told(case: AttentionCase, kernel: KernelCandidate) -> AttentionCase:
    """With causal where the kernel must be passed that."""
    if "causal" not in kernel.required:
        return case
    if case.mask == "none":
        return msgspec.structs.replace(case, mask="causal", form="arguments")
    if case.mask == "band":
        return msgspec.structs.replace(case, mask="window")
    if case.mask == "prefix" and case.form != "arguments":
        return msgspec.structs.replace(case, mask="causal")
    return case


def _with_keys(case: AttentionCase, keys: int) -> AttentionCase:
    """With another number of keys, and a mask that fits them."""
    size = case.size
    if case.mask not in ("window", "band", "documents"):
        size = keys if size >= case.keys else min(size, keys)
    return msgspec.structs.replace(
        case, keys=keys, size=size, documents=_filled(case.documents, keys)
    )


def _filled(lengths: tuple[int, ...], keys: int) -> tuple[int, ...]:
    """Lengths of documents that fill the keys: the last one takes what is left, or ends where the keys do."""
    if not lengths or sum(lengths) == keys:
        return lengths
    found: list[int] = []
    for length in lengths:
        left = keys - sum(found)
        if left:
            found.append(min(length, left))
    found[-1] += keys - sum(found)
    return tuple(found)
