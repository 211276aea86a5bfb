"""What the layers of a stack share of the distances, where queries and keys meet them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Distances:
    """What the layers of a stack are told of the distances.

    Attributes:
        rows: (batch or 1, rows, hidden_size), a vector for each distance that there is, or for several.
        index: (queries, keys), which of the rows is that of a query and a key.
        apart: (batch, queries, keys) whole numbers, 1 for a key of another segment than the query's and 0 for one of
            the same; None when all are of one.
    """

    rows: Tensor
    index: Tensor
    apart: Tensor | None = None

    def pick(self, products: Tensor) -> Tensor:
        """Of products with every row (batch or 1, heads, queries, rows) those with its own row for each query and key:
        (batch or 1, heads, queries, keys)."""
        return products.gather(-1, self.index.expand(*products.shape[:2], *self.index.shape))


def added(bias: Tensor | None, term: Tensor) -> Tensor:
    """The sum, the one that may be missing being zero."""
    return term if bias is None else bias + term
