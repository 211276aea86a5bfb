"""The KV cache of incremental decoding: the keys and values of every layer, as far as they have been computed.

A cache starts empty (`Model.new_cache`), is handed to `Model.forward` with the next tokens, any number of them, and is
extended in place. Extending makes new tensors and never writes into old ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from holotype_reference.masks import Prefix


@dataclass
class KeysValues:
    """The keys and values of one attention block: (batch, kv_heads, cached, head_dim) each, or None while empty.

    Keys are stored as they are used: rotary positions have already turned them. Latent attention keeps its latent
    vectors (batch, 1, cached, kv_rank) as keys and its rotary keys (batch, 1, cached, rope_head_dim) as values, and
    makes the keys and values of all heads from them.
    """

    keys: Tensor | None = None
    values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append along the length, and return everything."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat([self.keys, keys], dim=2)
            values = torch.cat([self.values, values], dim=2)
        self.keys, self.values = keys, values
        return keys, values

    @property
    def length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]


@dataclass
class LayerCache:
    """One decoder layer: what its self-attention has seen, and the source as its cross-attention sees it."""

    self_attention: KeysValues = field(default_factory=KeysValues)
    cross_attention: KeysValues = field(default_factory=KeysValues)


@dataclass
class Cache:
    """All layers of the stack that writes the logits, and the source's padding.

    Attributes:
        layers: one entry a layer.
        source_ids: (batch, source length) the source whose keys and values are held, or None.
        source_padding: (batch, source length) boolean, true for a real token, or None when all are.
        context: (batch or 1, 1) how many tokens the first call read, where theta grows with them; else None. Keys stay
            turned as they are, so that all later calls must turn like the first one (the Qwen release,
            _ntk_alpha_cached_list).
        prefix: how many places at the start are seen by all, as it was said when the cache began.
    """

    layers: list[LayerCache]
    source_ids: Tensor | None = None
    source_padding: Tensor | None = None
    context: Tensor | None = None
    prefix: Prefix | None = None

    @classmethod
    def empty(cls, layers: int) -> Cache:
        return cls(layers=[LayerCache() for _ in range(layers)])

    @property
    def length(self) -> int:
        """The tokens that the cache holds."""
        return self.layers[0].self_attention.length

    def remember(self, prefix: Prefix | None) -> Prefix | None:
        """The prefix with which the cache began; that of the first call is kept."""
        if not self.length:
            self.prefix = prefix
        return self.prefix
