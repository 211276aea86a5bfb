"""The keys that each query may see, described once as data, which every way of computing attention reads.

    pattern      query i sees                                             paper
    all          every key                                                Vaswani et al. 2017, section 3.2.3
    causal       j ≤ i                                                    the same
    window w     i - w < j ≤ i                                            Jiang et al. 2023, section 2
    band b, a    i - b ≤ j ≤ i + a                                        Beltagy et al. 2020, section 3.1
    prefix p     besides, every key j < p                                 Raffel et al. 2019, section 3.2.1
    documents    of all these, the keys of its own document only          Krell et al. 2021, section 3.2
    padding      of all these, the real ones only

`Mask.visible` is the one statement of it, as a boolean matrix: whoever computes without it must come to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor

from holotype_spec import schema

Lengths = tuple[int, ...]
Documents = tuple[Lengths, ...]
Prefix = int | Lengths


@dataclass(frozen=True, kw_only=True)
class Band:
    """Query i sees the keys from i - before to i + after: a window on both sides (Beltagy et al. 2020)."""

    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Query i, at index cached + i of the sequence, may see key j if pattern, prefix and documents allow it and key j
    is real.

    Attributes:
        pattern: which keys a query may see by their places.
        queries, keys: how many there are.
        cached: how many keys stand before the first query.
        padding: (batch, keys) boolean, true for a real key, or None when all are real.
        device: where the matrix is wanted.
        prefix: the first so many keys are seen by every query, whatever the pattern: one number for all rows of the
            batch, or one for each.
        documents: the lengths of the documents that are packed into the keys, one after the other, and do not see each
            other: one tuple of lengths for each row of the batch, or a single one for all rows; None for no packing.

    So a window of 256 over two packed documents, the same in every row, is Mask(pattern=SlidingWindow(window=256),
    documents=((100, 412),), queries=512, keys=512, …), and a prefix-LM whose two rows have prefixes of 3 and 5 tokens
    Mask(pattern=Causal(), prefix=(3, 5), …). `holotype_reference.kernels.mask_shapes` says what `visible` holds without
    building it. A subclass that draws another matrix overrides `visible` or `allowed`; then nothing is inferred.

    Raises:
        ValueError: the documents' lengths are not those of the keys.
    """

    pattern: schema.Pattern | Band
    queries: int
    keys: int
    cached: int
    padding: Tensor | None
    device: torch.device
    prefix: Prefix = 0
    documents: Documents | None = None
    # Whether the matrix is what the attributes say: not in a subclass that draws its own.
    is_described: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls.is_described = (cls.visible, cls.allowed) == (Mask.visible, Mask.allowed)

    def __post_init__(self) -> None:
        for lengths in self.documents or ():
            beyond = self.cached + self.queries > self.keys
            if min(lengths) < 1 or sum(lengths) != self.keys or beyond:
                raise ValueError(
                    f"documents of the lengths {lengths} do not hold {self.keys} keys and the queries at"
                    f" {self.cached} to {self.cached + self.queries - 1}: every key belongs to one document of one"
                    " key or more, and every query stands at a key"
                )

    @cached_property
    def visible(self) -> Tensor:
        """(batch or 1, 1, queries, keys) boolean, true where query i may see key j; the 1 is for the heads."""
        if self.padding is None:
            return self.allowed()
        return self.allowed() & rearrange(self.padding, "batch keys -> batch 1 1 keys")

    def allowed(self, queries: slice | None = None, keys: slice | None = None) -> Tensor:
        """(batch or 1, 1, queries, keys) boolean: all but the padding."""
        queries, keys = queries or slice(0, self.queries), keys or slice(0, self.keys)
        i = torch.arange(queries.start, queries.stop, device=self.device) + self.cached
        j = torch.arange(keys.start, keys.stop, device=self.device)
        i, j = rearrange(i, "i -> 1 1 i 1"), rearrange(j, "j -> 1 1 1 j")
        before, after = self.reach
        seen = (i >= 0) & (j >= 0) if after is None else j <= i + after
        if before is not None:
            seen = seen & (j >= i - before)
        if self.prefix != 0:
            prefixes = (self.prefix,) if isinstance(self.prefix, int) else self.prefix
            seen = seen | (j < torch.tensor(prefixes, device=self.device)[:, None, None, None])
        if self.documents is not None:
            seen = seen & self._same_document(i, j)
        return seen

    def _same_document(self, i: Tensor, j: Tensor) -> Tensor:
        assert self.documents is not None
        starts = torch.zeros(len(self.documents), self.keys + 1, dtype=torch.long)
        for row, lengths in zip(starts, self.documents, strict=True):
            for start in accumulate(lengths):
                row[start] += 1
        # How many documents end at or before a place: the number of its own.
        number = rearrange(starts.cumsum(dim=1), "batch place -> batch 1 1 place").to(self.device)
        # More queries than keys: those before the first key are counted to the first document.
        return number[..., i.flatten().clamp(min=0)].mT == number[..., j.flatten()]

    @property
    def shows_all(self) -> bool:
        """No query is left without any key: each sees at least its own place, if there is a key at it."""
        if not self.is_described or self.padding is not None:
            return False
        return self.keys >= self.cached + self.queries or self.reach == (None, None)

    @cached_property
    def sighted(self) -> Tensor:
        """(batch or 1, 1, queries, 1) boolean, false for a query that sees no key at all."""
        return self.visible.any(dim=-1, keepdim=True)

    @cached_property
    def open(self) -> Tensor:
        """`visible`, but a query that sees no key sees them all: for kernels that cannot stand a row without any."""
        return self.visible if self.shows_all else self.visible | ~self.sighted

    def silence(self, x: Tensor) -> Tensor:
        """Zero for the queries that see no key. x: (batch, heads, queries, anything)"""
        return x.masked_fill(~self.sighted, 0.0)

    @property
    def reach(self) -> tuple[int | None, int | None]:
        """The numbers of keys before and after its own place that a query sees by the pattern; None for all of them."""
        match self.pattern:
            # A mixture shows everything until one of its masks is chosen; an order has a mask of its own.
            case schema.Bidirectional() | schema.MixtureOfMasks() | schema.Permutation():
                return None, None
            # What the prefix adds stands in `prefix`.
            case schema.Causal() | schema.PrefixCausal():
                return None, 0
            case schema.SlidingWindow(window=window):
                return window - 1, 0
            case Band(before=before, after=after):
                return before, after
            case _:
                # `holotype_reference.support` keeps these from getting here.
                raise NotImplementedError(f"no mask for {type(self.pattern).__name__}")
