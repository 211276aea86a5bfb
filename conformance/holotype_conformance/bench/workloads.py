"""Workloads: a grid of attention problems for kernels, and four kinds of passes for models.

**Kernels.** The quick grid has lengths of 256, 512 and 1024, the full one goes on to 4096; 8 heads of 64 numbers, and
12 over 4 for grouped heads; forward, and forward with backward. Memory is counted, not timed, at lengths four times
apart with one head, so that a quadratic term shows. **Models.** `holotype_conformance.bench.sizes` scales the spec.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec

from holotype_spec import areas
from holotype_spec.areas import Seen
from holotype_spec.costs import Cost, attention_cost

MaskKind = Literal["none", "causal", "window", "prefix", "documents"]
Grid = Literal["quick", "full"]
Part = Literal["forward", "forward-backward", "prefill", "decode"]

WINDOW = 256
STEPS = 16  # tokens that are decoded after a cache
RAGGED = (37, 100, 333, 64, 5, 357, 128)  # of 1024; at other lengths in proportion


class KernelWork(msgspec.Struct, frozen=True, kw_only=True, tag="kernel", omit_defaults=True):
    """One attention problem: as many queries as keys.

    `sizes` is the window's or the prefix's, alone, or the lengths of the documents.
    """

    length: int
    batch: int = 1
    heads: int = 8
    kv_heads: int = 8
    head_dim: int = 64
    mask: MaskKind = "causal"
    sizes: tuple[int, ...] = ()
    dtype: str = "float32"
    part: Part = "forward"

    @property
    def name(self) -> str:
        """Short, and different for each member of a grid."""
        heads = f"{self.heads}" if self.heads == self.kv_heads else f"{self.heads}/{self.kv_heads}"
        return f"{self.masked} {self.batch}x{heads}x{self.length}x{self.head_dim} {self.part}"

    @property
    def masked(self) -> str:
        """The kind of mask with its sizes."""
        match self.mask:
            case "window" | "prefix":
                return f"{self.mask}-{self.sizes[0]}"
            case "documents":
                equal = len(set(self.sizes)) == 1
                return f"documents-{len(self.sizes)}{f'x{self.sizes[0]}' if equal else ''}"
            case _:
                return self.mask

    @property
    def tokens(self) -> int:
        """The unit that throughput counts."""
        return self.batch * self.length

    def seen(self) -> Seen:
        """The keys that each query sees."""
        match self.mask:
            case "none":
                return areas.full(self.length, self.length)
            case "causal":
                return areas.causal(self.length, self.length)
            case "window":
                return areas.window(self.length, self.length, self.sizes[0])
            case "prefix":
                return areas.prefix(self.length, self.length, self.sizes[0])
            case "documents":
                return areas.documents(self.sizes)

    def least(self) -> Cost:
        """The least that any exact computation takes."""
        return self._cost(areas.pairs(self.seen()))

    def _cost(self, pairs: int) -> Cost:
        return attention_cost(
            pairs,
            batch=self.batch,
            heads=self.heads,
            kv_heads=self.kv_heads,
            queries=self.length,
            keys=self.length,
            head_dim=self.head_dim,
            dtype=self.dtype,
            training=self.part == "forward-backward",
        )

    def block_flops(self, *, by_document: bool) -> int:
        """FLOPs over the blocks of 64 by 64 that the mask touches.

        The backward pass may compute the scores again: seven products in all, against two forward. `by_document` where
        blocks begin anew with each document.
        """
        if by_document and self.mask == "documents":
            pairs = sum(areas.block_pairs(areas.causal(n, n), n) for n in self.sizes)
        else:
            pairs = areas.block_pairs(self.seen(), self.length)
        products = 7 if self.part == "forward-backward" else 2
        return 2 * products * self.batch * self.heads * pairs * self.head_dim


class ModelWork(msgspec.Struct, frozen=True, kw_only=True, tag="model", omit_defaults=True):
    """One pass of a model.

    `decode` reads `length` tokens one at a time after a cache of `cached`; `prefill` fills an empty cache.
    """

    spec: str
    length: int
    batch: int = 1
    cached: int = 0
    dtype: str = "float32"
    part: Part = "forward"

    @property
    def name(self) -> str:
        """Short, and different for each member of a grid."""
        after = f"+{self.cached}" if self.cached else ""
        return f"{self.spec} {self.batch}x{self.length}{after} {self.part}"

    @property
    def tokens(self) -> int:
        """The unit that throughput counts."""
        return self.batch * self.length


Work = KernelWork | ModelWork


def kernel_grid(grid: Grid) -> list[KernelWork]:
    """The problems that are timed."""
    lengths = [256, 512, 1024] if grid == "quick" else [256, 512, 1024, 2048, 4096]
    parts: tuple[Part, ...] = ("forward", "forward-backward")
    works = []
    for part in parts:
        for length in lengths:
            works += [KernelWork(length=length, mask="causal", part=part)]
            if length >= 1024 or grid == "full":
                works += _masked(length, part)
        works += [
            KernelWork(length=512, mask="none", part=part),
            KernelWork(length=1024, heads=12, kv_heads=4, part=part),
        ]
        if grid == "full":
            works += [
                KernelWork(length=512, batch=4, part=part),
                KernelWork(length=1024, heads=4, kv_heads=4, head_dim=128, part=part),
                KernelWork(length=1000, heads=12, kv_heads=12, head_dim=80, part=part),
            ]
    return sorted(works, key=lambda work: work.least().flops)


def _masked(length: int, part: Part, heads: int = 8) -> list[KernelWork]:
    """Masks that hide more than the future does, at one length."""
    masks: list[tuple[MaskKind, tuple[int, ...]]] = [
        ("window", (min(WINDOW, length // 2),)),
        ("prefix", (length // 2,)),
        ("documents", (length // 16,) * 16),
        ("documents", ragged(length)),
    ]
    return [
        KernelWork(length=length, heads=heads, kv_heads=heads, mask=mask, sizes=at, part=part)
        for mask, at in masks
    ]


def ragged(length: int) -> tuple[int, ...]:
    """Seven documents of very different lengths, together `length`."""
    starts = [round(length * sum(RAGGED[:i]) / sum(RAGGED)) for i in range(len(RAGGED) + 1)]
    return tuple(b - a for a, b in pairwise(starts))


def memory_grid(grid: Grid) -> list[list[KernelWork]]:
    """Lists of the same problem at growing lengths, for the exponent of memory."""
    lengths = [256, 512, 1024] if grid == "quick" else [1024, 2048, 4096, 8192]
    families: list[list[KernelWork]] = []
    for part in ("forward", "forward-backward"):
        at = [
            [KernelWork(length=n, heads=1, kv_heads=1, part=part), *_masked(n, part, heads=1)]
            for n in lengths
        ]
        families += [list(family) for family in zip(*at, strict=True)]
    return families


def model_grid(spec: str, grid: Grid, *, decodes: bool, longest: int) -> list[ModelWork]:
    """The passes that are timed of one spec, no longer than `longest`."""
    lengths = [64, 256] if grid == "quick" else [64, 256, 1024]
    lengths = [length for length in lengths if length <= longest] or [longest]
    works = []
    for length in lengths:
        parts: list[Part] = ["forward", "forward-backward"]
        parts += ["prefill"] if decodes else []
        works += [ModelWork(spec=spec, length=length, part=part) for part in parts]
        if decodes and length > STEPS:
            before = length - STEPS
            works.append(ModelWork(spec=spec, length=STEPS, cached=before, part="decode"))
    works.append(ModelWork(spec=spec, length=lengths[0], batch=4))
    return works
