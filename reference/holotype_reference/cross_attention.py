"""Attention from a decoder to what the encoder made of the source (Vaswani et al. 2017, section 3.2.3)."""

from __future__ import annotations

from torch import Tensor

from holotype_reference.attention import MultiHeadAttention, Source
from holotype_reference.cache import KeysValues


class CrossAttention(MultiHeadAttention):
    """Queries from the decoder, keys and values from the encoder's output."""

    def forward(self, x: Tensor, source: Source, cache: KeysValues | None) -> Tensor:
        """(batch, length, hidden_size) -> the same.

        The source may be without its vectors when `cache` already holds its keys and values.
        """
        key, value = self.remember(source.encoded, cache)
        return self.attend(self.split(self.query(x)), key, value, source.mask, bias=None)

    def remember(self, source: Tensor | None, cache: KeysValues | None) -> tuple[Tensor, Tensor]:
        """The source's keys and values, computed once."""
        if cache is not None and cache.keys is not None and cache.values is not None:
            return cache.keys, cache.values
        assert source is not None, (
            "the model encodes the source whenever the cache does not hold it"
        )
        key, value = self.split(self.key(source)), self.split(self.value(source))
        return (key, value) if cache is None else cache.extend(key, value)
