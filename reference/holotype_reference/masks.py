"""Which keys each query may see, described once as data; every way of computing attention reads this description.

    pattern      query i sees                                             paper
    all          every key                                                Vaswani et al. 2017, section 3.2.3
    causal       j ≤ i                                                    the same
    window w     i - w < j ≤ i                                            Jiang et al. 2023, section 2
    band b, a    i - b ≤ j ≤ i + a                                        Beltagy et al. 2020, section 3.1
    prefix p     besides, every key j < p                                 Raffel et al. 2019, section 3.2.1
    documents    of all these, the keys of its own document only          Krell et al. 2021, section 3.2
    padding      of all these, the real ones only

`Mask.allowed` and `Mask.visible` are the one statement of it, as a boolean matrix. Whoever computes without that matrix
reads `reach`, `prefix`, `documents` and `padding` instead, and must come to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

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

    So a window of 256 over two packed documents, the same in every row, is

        Mask(pattern=schema.SlidingWindow(window=256), documents=((100, 412),), queries=512, keys=512, cached=0, …)

    and a prefix-LM whose two rows have prefixes of 3 and 5 tokens Mask(pattern=schema.Causal(), prefix=(3, 5), …).

    `holotype_reference.kernels.mask_shapes` says what `visible` holds without building it, for kernels that need no
    matrix then. A subclass that draws another matrix overrides `visible` or `allowed`; then nothing is inferred from
    the description.

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

    def __post_init__(self) -> None:
        for lengths in self.documents or ():
            if (
                min(lengths) < 1
                or sum(lengths) != self.keys
                or self.cached + self.queries > self.keys
            ):
                raise ValueError(
                    f"documents of the lengths {lengths} do not hold {self.keys} keys and the queries at"
                    f" {self.cached} to {self.cached + self.queries - 1}: every key belongs to one document of one"
                    " key or more, and every query stands at a key"
                )

    # The statement --------------------------------------------------------------------------------------------------

    @cached_property
    def visible(self) -> Tensor:
        """(batch or 1, 1, queries, keys) boolean, true where query i may see key j; the 1 is for the heads."""
        return self.part(slice(0, self.queries), slice(0, self.keys))

    def part(self, queries: slice, keys: slice) -> Tensor:
        """The same for some of the queries and keys: (batch or 1, 1, those queries, those keys)."""
        allowed = self.allowed(queries, keys)
        if self.padding is None:
            return allowed
        return allowed & rearrange(self.padding[:, keys], "batch keys -> batch 1 1 keys")

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
            seen = seen | (j < self._prefixes)
        if self.documents is not None:
            seen = seen & self._same_document(i, j)
        return seen

    @property
    def _prefixes(self) -> Tensor:
        """(batch or 1, 1, 1, 1)"""
        prefixes = (self.prefix,) if isinstance(self.prefix, int) else self.prefix
        return rearrange(torch.tensor(prefixes, device=self.device), "batch -> batch 1 1 1")

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

    # Queries that see nothing ---------------------------------------------------------------------------------------

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
        return x if self.shows_all else x.masked_fill(~self.sighted, 0.0)

    # The description, in numbers ------------------------------------------------------------------------------------

    @property
    def reach(self) -> tuple[int | None, int | None]:
        """How many keys before and after its own place a query sees by the pattern; None for all of them."""
        match self.pattern:
            # A mixture shows everything until one of its masks is chosen, see `drawn`; an order has a mask of its own.
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
                raise unknown(self.pattern)

    @property
    def is_described(self) -> bool:
        """Whether the matrix is what the attributes say: false for a subclass that draws its own."""
        own = type(self)
        return (own.visible, own.part, own.allowed) == (Mask.visible, Mask.part, Mask.allowed)


def drawn(
    pattern: schema.Pattern, keys: int, prefix: Prefix | None, right_to_left: bool | None
) -> schema.Pattern | Band:
    """The pattern of one batch. Of a mixture it is the mask that was chosen for it (Dong et al. 2019, section 2.2).

    All is seen; or each place sees itself and those behind it, which is a band that reaches to the last key; or itself
    and those before it and the prefix, which is the first of two segments: an empty one is left-to-right reading.
    """
    if not isinstance(pattern, schema.MixtureOfMasks):
        return pattern
    if right_to_left:
        return Band(before=0, after=keys)
    return schema.Bidirectional() if prefix is None else schema.Causal()


def unknown(pattern: schema.Pattern) -> NotImplementedError:
    """What `holotype_reference.support` keeps from getting here."""
    return NotImplementedError(f"no mask for {type(pattern).__name__}")
