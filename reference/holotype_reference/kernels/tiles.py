"""A mask cut into tiles: blocks of queries, each against the stretch of keys that it sees and no others.

A tile costs what its rectangle holds, so that a window over a long sequence costs its band and not the square, and only
a tile at an edge of the pattern needs a matrix. Whoever goes through the tiles one by one needs memory that is linear
in the length.

    window                  causal after a cache or a prefix
    ██                      ██████▄
    ▀███                    ████████▄
      ▀███                  ██████████▄      a full tile, and a corner, perhaps in stripes of keys
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor

from holotype_reference.kernels.mask_shapes import part
from holotype_reference.masks import Mask

BLOCK = 64
HEIGHTS = (256, 128, BLOCK)
LOW = (128, BLOCK)
# Higher tiles keep matrix products busy, lower ones follow the edge of the mask more closely: the highest is taken
# whose rectangles hold at most so much more than those of one block.
WASTE = 1.06


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Some queries and the shortest stretch of keys that holds all they may see.

    Attributes:
        queries, keys: which ones; no keys at all if these queries see none.
        full: every query here sees every key here that is real, so that no matrix of the pattern is needed.
        corner: query i sees the real keys up to the i-th: a triangle, which kernels know, and those below it see all.
    """

    queries: slice
    keys: slice
    full: bool
    corner: bool = False

    @property
    def area(self) -> int:
        """The number of scores that are computed. Kernels that know a triangle are taken to go by blocks."""
        if not self.corner:
            return self.height * self.width
        whole, rest = divmod(min(self.height, self.width), BLOCK)
        triangle = BLOCK * BLOCK * whole * (whole + 1) // 2 + rest * self.width
        return triangle + max(self.height - self.width, 0) * self.width

    @property
    def height(self) -> int:
        """The number of queries."""
        height: int = self.queries.stop - self.queries.start
        return height

    @property
    def width(self) -> int:
        """The number of keys."""
        width: int = self.keys.stop - self.keys.start
        return width


Stripe = Callable[[int], int]
"""How many keys of a triangle with such a side make a stripe."""


def whole(side: int) -> int:
    """The triangle in one piece."""
    return side


# Of a triangle the CPU's kernel computes, for each 64 to 256 queries, whole lots of 512 keys: of one that is no larger,
# the whole square. With fewer keys a call it follows the triangle more closely. Forwards several calls must be joined,
# which pays for two halves of these sizes; on the way back they are only added, which pays for stripes.
HALVED = range(384, 513)
STRIPED, STRIPE = range(320, 2049), 192


def halved(side: int) -> int:
    """For outputs."""
    return BLOCK * math.ceil(side / 2 / BLOCK) if side in HALVED else side


def striped(side: int) -> int:
    """For gradients."""
    return STRIPE if side in STRIPED else side


def tiles(mask: Mask, height: int | None = None, stripe: Stripe = whole) -> tuple[Tile, ...]:
    """A described mask without documents, the same prefix in all rows, as tiles over all queries in their order.

    Args:
        mask: what each query may see.
        height: of the tiles, unless several of them join to a full one. By default it is chosen for the mask, or what
            is causal becomes a full tile and corners that have some of its queries again: the only ones in several
            tiles. Each tile begins where those before it ended, or has queries of theirs alone.
        stripe: how wide the corners are. Under padding a query may see nothing in one of several.
    """
    shape = _shape(mask)
    if height is not None:
        return _joined(_tiles(shape, height))
    start = max(shape.cached, shape.prefix)
    if shape.causal and (mask.padding is None or start == 0):
        return _around_corners(shape, start, stripe)
    return _joined(_highest(shape))


def blocks_of(mask: Mask) -> tuple[Tile, ...]:
    """The same in low blocks of queries and no corners: for whoever has all scores of a tile in memory."""
    return _highest(_shape(mask), LOW)


def _shape(mask: Mask) -> Shape:
    assert isinstance(mask.prefix, int)
    assert mask.documents is None
    before, after = mask.reach
    return Shape(
        queries=mask.queries,
        keys=mask.keys,
        cached=mask.cached,
        before=before,
        after=after,
        prefix=mask.prefix,
    )


def _highest(shape: Shape, heights: tuple[int, ...] = HEIGHTS) -> tuple[Tile, ...]:
    finest = area(_tiles(shape, BLOCK))
    choices = (_tiles(shape, height) for height in heights)
    return next(found for found in choices if area(found) <= WASTE * finest)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """All of a mask that its tiles depend on; the names are those of `Mask`."""

    queries: int
    keys: int
    cached: int
    before: int | None
    after: int | None
    prefix: int

    @property
    def causal(self) -> bool:
        """Each query sees all that stands before it and, but for the prefix, nothing that stands behind."""
        seen = self.cached + self.queries
        return (
            self.after == 0 and self.keys >= seen and (self.before is None or self.before >= seen)
        )


@lru_cache(maxsize=64)  # the layers of a model ask for the same ones
def _tiles(shape: Shape, height: int) -> tuple[Tile, ...]:
    return tuple(_tile(shape, first, last) for first, last in pairwise(_cuts(shape, height)))


def _joined(parts: tuple[Tile, ...]) -> tuple[Tile, ...]:
    """Full tiles that lie one below the other as one."""
    found: list[Tile] = []
    for tile in parts:
        if found and tile.full and found[-1].full and tile.keys == found[-1].keys:
            above = found.pop()
            tile = replace(tile, queries=slice(above.queries.start, tile.queries.stop))
        found.append(tile)
    return tuple(found)


def _around_corners(shape: Shape, start: int, stripe: Stripe) -> tuple[Tile, ...]:
    """The keys before `start` are seen by every query; from there on the pattern is a triangle, in such stripes."""
    found = []
    if start:
        queries, keys = slice(0, shape.queries), slice(0, min(start, shape.keys))
        found.append(Tile(queries=queries, keys=keys, full=True))
    first = start - shape.cached  # the query that stands at `start`
    side = max(shape.queries - first, 0)
    for past in range(0, side, max(stripe(side), 1)):
        queries = slice(first + past, shape.queries)
        keys = slice(start + past, start + min(past + stripe(side), side))
        found.append(Tile(queries=queries, keys=keys, full=False, corner=True))
    return tuple(found)


def _cuts(shape: Shape, height: int) -> list[int]:
    """The edges of tiles. Queries in the prefix see nothing beyond it if the pattern is causal, and keep to
    themselves."""
    prefix = min(max(shape.prefix - shape.cached, 0), shape.queries)
    return sorted({*range(0, shape.queries, height), prefix, shape.queries, 0})


def _tile(shape: Shape, first: int, last: int) -> Tile:
    """The tile of the queries [first, last)."""
    before, after, prefix = shape.before, shape.after, shape.prefix
    top, bottom = (
        shape.cached + first,
        shape.cached + last - 1,
    )  # the places of the outermost queries
    start = 0 if before is None or prefix else max(0, top - before)
    stop = shape.keys if after is None else min(shape.keys, max(bottom + after + 1, prefix))
    start = min(start, stop)
    back = before is None or bottom - before <= start
    ahead = after is None or top + after + 1 >= stop
    full = prefix >= stop or (back and ahead)
    return Tile(queries=slice(first, last), keys=slice(start, stop), full=full)


def area(parts: tuple[Tile, ...]) -> int:
    """The number of scores that all these tiles compute."""
    return sum(tile.area for tile in parts)


class Additive:
    """The matrices of a mask's tiles, as numbers to add to the scores: 0, or -inf for what is hidden.

    Where they depend on the distance of key and query alone they are views of a single matrix, which is made once.
    """

    def __init__(self, mask: Mask, parts: tuple[Tile, ...], dtype: torch.dtype) -> None:
        self.mask = mask
        self.dtype = dtype
        self.shows_all = mask.shows_all
        shared = [(mask.cached + t.queries.start, t) for t in parts if self._by_distance(t)]
        self.left = max((top - tile.keys.start for top, tile in shared), default=0)
        right = max((tile.keys.stop - top for top, tile in shared), default=0)
        height = max((tile.height for _, tile in shared), default=0)
        self.distances = self._of_distances(height, self.left + right)
        self.known: dict[int, list[tuple[slice, Tensor]]] = {}  # views of it, by the first query

    def of(self, tile: Tile) -> Tensor | None:
        """(batch or 1, 1, queries or 1, keys) of a tile, or None where nothing is hidden, but for the triangle."""
        if self._by_distance(tile):
            offset = self.left - self.mask.cached - tile.queries.start
            columns = slice(tile.keys.start + offset, tile.keys.stop + offset)
            return self.distances[None, None, : tile.height, columns]
        if not (tile.full or tile.corner):
            return self._numbers(part(self.mask, tile.queries, tile.keys))
        if self.mask.padding is None:
            return None
        return self._numbers(rearrange(self.mask.padding[:, tile.keys], "b keys -> b 1 1 keys"))

    def edges(self, tile: Tile) -> list[tuple[slice, Tensor]]:
        """The columns of a tile in which something is hidden, and their part of the matrix.

        The part is (batch or 1, queries or 1, 1, those keys): the third dimension is that of a group of heads.
        """
        known = self.known.get(tile.queries.start)
        if known is not None:
            return known
        if self._by_distance(tile):
            return self.known.setdefault(tile.queries.start, list(self._edges(tile)))
        matrix = self.of(tile)
        return [] if matrix is None else [(slice(0, tile.width), matrix[:, 0].unsqueeze(2))]

    def _edges(self, tile: Tile) -> Iterator[tuple[slice, Tensor]]:
        matrix = self.of(tile)
        assert matrix is not None
        before, after = self.mask.reach
        top = self.mask.cached + tile.queries.start - tile.keys.start
        bottom = top + tile.height - 1
        # From `left` on nobody has lost sight of a key, and up to `right` everybody sees it.
        left = 0 if before is None else bottom - before
        right = tile.width if after is None else top + after + 1
        if left >= right:
            left, right = tile.width, tile.width
        for columns in (slice(0, max(left, 0)), slice(right, tile.width)):
            if columns.start < columns.stop:
                yield columns, matrix[:, 0, :, columns].unsqueeze(2)

    def blind(self, tile: Tile) -> Tensor | None:
        """(batch or 1, queries or 1, 1, 1) boolean: who sees nothing in a tile, or None where everybody sees a key."""
        if self.shows_all:
            return None
        matrix = self.of(tile)
        return (
            None if matrix is None else matrix.isneginf().all(dim=-1, keepdim=True).transpose(1, 2)
        )

    def _by_distance(self, tile: Tile) -> bool:
        """Whether the distance of a key from a query decides in this tile, and not everything is seen: no padding, and
        no prefix that reaches further than the pattern does."""
        if tile.full or tile.corner or self.mask.padding is not None:
            return False
        before, after = self.mask.reach
        prefix = self.mask.prefix
        assert isinstance(prefix, int)
        if prefix == 0:
            return True
        top = self.mask.cached + tile.queries.start
        return before is None and (after is None or top + after + 1 >= prefix)

    def _of_distances(self, height: int, width: int) -> Tensor:
        """(height, width): row r and column c stand for the distance c - r - left of a key from a query."""
        before, after = self.mask.reach
        hidden = torch.full((height, width), -math.inf, dtype=self.dtype, device=self.mask.device)
        if before is None:
            return hidden.zero_() if after is None else hidden.triu_(self.left + after + 1)
        distances = hidden.tril(self.left - before - 1)
        return distances if after is None else distances.add_(hidden.triu_(self.left + after + 1))

    def _numbers(self, seen: Tensor) -> Tensor:
        numbers = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
        return numbers.masked_fill_(~seen, -math.inf)
