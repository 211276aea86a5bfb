"""The source of an encoder-decoder (Vaswani et al. 2017, section 3.1)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from holotype_reference.attention import Source
from holotype_reference.embeddings import Embeddings, Placement
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_reference.stack import Stack
from holotype_spec import schema


class SourceReader(nn.Module):
    """The part of a model that reads its source: once for each source, however often a cache is read."""

    embeddings: Embeddings
    source_embeddings: Placement | None
    encoder: Stack

    def positions(self, inputs: Call, cached: int) -> Tensor:
        """(batch or 1, length): where the tokens stand."""
        raise NotImplementedError

    def source(self, inputs: Call) -> Source | None:
        """The source encoded, or, from the second call with a cache, what is known of it."""
        cache, ids, encoded = inputs.cache, inputs.source_ids, None
        if cache is not None and cache.source_ids is not None:
            ids, padding = cache.source_ids, cache.source_padding
        elif ids is not None:
            read = Call(token_ids=ids, attention_mask=inputs.source_mask)
            encoded, padding = self.encode(read), read.padding
            if cache is not None:
                cache.source_ids, cache.source_padding = ids.clone(), padding
        else:
            return None
        mask = Mask(
            pattern=schema.Bidirectional(),
            queries=inputs.token_ids.shape[1],
            keys=ids.shape[1],
            cached=0,
            padding=padding,
            device=inputs.token_ids.device,
        )
        return Source(encoded=encoded, mask=mask)

    def encode(self, inputs: Call) -> Tensor:
        """(batch, source length) -> (batch, source length, hidden_size)"""
        positions = self.positions(inputs, 0)
        own = self.source_embeddings
        tokens = (inputs.token_ids, positions, None)
        embedded: Tensor = (
            self.embeddings(*tokens) if own is None else self.embeddings(*tokens, own)
        )
        x: Tensor = self.encoder(embedded, inputs=replace(inputs, position_ids=positions))
        return x
