"""The inputs of one call: a batch, and what only a model of ours takes with it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from holotype_reference.cache import Cache
from holotype_reference.masks import Documents, Prefix


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One batch, as tensors, of which most models take the first two.

    Attributes:
        token_ids: (batch, length) int64; the decoder's input of an encoder-decoder.
        attention_mask: (batch, length) int64, 1 for a real token and 0 for padding; None when all are real. With a
            cache it covers what the cache holds too: (batch, cached + length). Outputs at padding mean nothing.
        position_ids: (batch or 1, length) int64, or None to let the model count: from 0, padding and the cache
            included, so that under left padding absolute positions are given. Where the spec gives a token two,
            (batch or 1, 2, length): the place in the text and the place within its span.
        token_types: (batch, length) int64, or None for zeros.
        source_ids: (batch, source length) int64, the encoder's input of an encoder-decoder, else None. With a cache
            that holds a source it may be left out, and is not encoded again.
        source_mask: (batch, source length) int64, as attention_mask; the first one holds for the life of a cache.
        prefix: (batch,) int64, so many places at the start of a row, padding included, are seen by all of it: of specs
            with a visible prefix, where None is an empty one, and of mixtures of masks, where it is the first of two
            segments, 0 reads from left to right, and None shows everything. A cache begins with the whole prefix.
        right_to_left: (batch,) ones, or None. Only for mixtures of masks: each token sees itself and those behind it.
        order: (batch, length) int64, the place of each position, from 0, in the order in which a permuted model
            predicts: its logits are made of those before it, at the first one of none. None shows everything.
    """

    token_ids: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    token_types: Tensor | None = None
    source_ids: Tensor | None = None
    source_mask: Tensor | None = None
    prefix: Tensor | None = None
    right_to_left: Tensor | None = None
    order: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are given, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Call(Inputs):
    """The arguments of `Model.forward`: a batch, and what only a model of the reference takes.

    Attributes:
        visible_prefix: `prefix` as masks hold it, one number for each row or one for all; a cache remembers it.
        backwards: whether `right_to_left` was given.
        cache: from `Model.new_cache`; these tokens follow those that it holds, and it is extended by them.
        documents: the lengths of documents packed into a row, one after the other: a tuple for each row, or one for
            all. No document sees another, and unless position_ids are given the positions start again with each:
            it gives what it gives alone. Not with a cache, an order, nor for an encoder-decoder.
    """

    visible_prefix: Prefix | None = None
    backwards: bool = False
    cache: Cache | None = None
    documents: Documents | None = None

    @property
    def cached(self) -> int:
        """The number of tokens in the cache before these."""
        return 0 if self.cache is None else self.cache.length

    @property
    def padding(self) -> Tensor | None:
        """The attention mask as booleans, true for a real token."""
        return None if self.attention_mask is None else self.attention_mask != 0


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
