"""What a model reads in one call."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from holotype_reference.cache import Cache
from holotype_reference.masks import Documents, Prefix


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The arguments of `Model.forward`, of which most calls give the first two.

    Attributes:
        token_ids: (batch, length) whole numbers; the decoder's input of an encoder-decoder.
        attention_mask: (batch, cached + length), 1 for a real token and 0 for padding; None when all are real. What
            a model returns at padding is finite and means nothing.
        position_ids: (batch or 1, length). By default positions count all tokens from 0, padding and the cache
            included: under left padding give absolute positions here. Where a token has two, (batch or 1, 2,
            length); by default they are those of `holotype_reference.positions.two_dimensional.spans`.
        token_types: (batch, length), by default all 0.
        source_ids: (batch, source length), the encoder's input. With a cache that holds a source it may be left
            out, and is not encoded again.
        source_mask: (batch, source length), as attention_mask; the first one holds for the life of a cache.
        cache: from `Model.new_cache`; these tokens follow those that it holds, and it is extended by them.
        documents: the lengths of documents packed into a row, one after the other: a tuple for each row, or one for
            all. No document sees another, and unless position_ids are given the positions start again with each:
            it gives what it gives alone. Not with a cache, nor for an encoder-decoder.
        prefix: so many places at the start of a row, padding included, are seen by all of its tokens: one number
            for each row, or one for all. For models with a visible prefix, by default an empty one; and for a
            mixture of masks, where it is the first of two segments, 0 means left to right, and by default all is
            seen. A cache begins with the whole prefix and remembers it.
        right_to_left: of a mixture of masks the one in which each token sees itself and those behind it.
        order: (batch, length) the place of each position, from 0, in the order in which tokens are predicted: the
            logits of a position are then made of those before it in the order, and of no token at the first one,
            whose logits say nothing. Without it everything is seen. Not with documents.
    """

    token_ids: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    token_types: Tensor | None = None
    source_ids: Tensor | None = None
    source_mask: Tensor | None = None
    cache: Cache | None = None
    documents: Documents | None = None
    prefix: Prefix | None = None
    right_to_left: bool = False
    order: Tensor | None = None

    @property
    def cached(self) -> int:
        """How many tokens stand in the cache before these."""
        return 0 if self.cache is None else self.cache.length

    @property
    def padding(self) -> Tensor | None:
        """The attention mask as booleans, true for a real token."""
        return None if self.attention_mask is None else self.attention_mask != 0


def restarted(documents: Documents, device: torch.device) -> Tensor:
    """(batch or 1, length): positions that start again with each of the packed documents."""
    rows = [[place for length in row for place in range(length)] for row in documents]
    return torch.tensor(rows, device=device)


def check_ids(name: str, ids: Tensor) -> tuple[int, int]:
    """The batch and the length of token ids or positions.

    Raises:
        ValueError: they are not whole numbers of the shape (batch, length), at least one token long.
    """
    whole = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    if ids.dim() != 2 or ids.shape[1] == 0 or not whole:
        raise ValueError(
            f"{name} must be whole numbers of shape (batch, length), at least one token long, "
            f"not {ids.dtype} of shape {tuple(ids.shape)}"
        )
    return ids.shape[0], ids.shape[1]
