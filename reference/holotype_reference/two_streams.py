"""Two streams through the same layers, for an order of prediction (Yang et al. 2019, XLNet, section 2.3).

The content stream sees what comes up to its place in the order. The query stream starts from one vector that knows no
token, asks for the content that comes before, and never for its own: it writes the logits.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from einops import rearrange
from torch import Tensor

from holotype_reference.attention import LayerInputs, WeightedSum
from holotype_reference.basics import Table
from holotype_reference.embeddings import Embeddings
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_reference.memory import with_memory
from holotype_reference.stack import Layer, Stack
from holotype_spec import schema


@dataclass(frozen=True, kw_only=True)
class Ordered(Mask):
    """The mask of tokens that are predicted in an order of their own.

    Attributes:
        ranks: (batch, keys), the place of each position in that order.
        own: whether a query sees its own place too, as the content stream does and the query stream does not.
    """

    ranks: Tensor
    own: bool

    def allowed(self, queries: slice | None = None, keys: slice | None = None) -> Tensor:
        """(batch, 1, queries, keys) boolean: those that come earlier in the order, and perhaps itself."""
        queries, keys = queries or slice(0, self.queries), keys or slice(0, self.keys)
        of_queries = rearrange(self.ranks[:, queries], "batch i -> batch 1 i 1")
        of_keys = rearrange(self.ranks[:, keys], "batch j -> batch 1 1 j")
        return of_keys <= of_queries if self.own else of_keys < of_queries


class QueryEmbeddings(Embeddings):
    """Embeddings with the vector from which the query stream starts at every place."""

    def __init__(self, spec: schema.Spec) -> None:
        super().__init__(spec)
        self.query_stream = Table(1, spec.hidden_size)

    def questions(self, batch: int, length: int) -> Tensor:
        """(batch, length, hidden_size): where the query stream starts, which knows no token."""
        started: Tensor = self.dropout(self.query_stream.weight.expand(batch, length, -1))
        return started


class TwoStreamStack(Stack):
    """A stack that is passed by one stream or, where an order of prediction is given, by two."""

    def __init__(
        self,
        spec: schema.Spec,
        pattern: schema.Pattern,
        embeddings: QueryEmbeddings,
        *,
        weigh: WeightedSum,
    ) -> None:
        super().__init__(spec, pattern, depth=spec.layers, cross=False, weigh=weigh)
        self.start = (embeddings,)  # in a tuple, so that they are no part of this module

    def through(self, x: Tensor, given: LayerInputs, inputs: Call) -> Tensor:
        if inputs.order is None:
            return super().through(x, given, inputs)
        content, asking = self.masked(given, inputs.order)
        queries = self.started(x, inputs)
        for index in range(self.depth):
            layer = self.layers[index % len(self.layers)]
            assert isinstance(layer, Layer)
            queries = self.asked(layer, queries, asking, x)
            x = layer(x, content, None if inputs.cache is None else inputs.cache.layers[index])
        return queries

    def started(self, x: Tensor, inputs: Call) -> Tensor:
        """The query stream (batch, length, hidden_size) below the first layer, where the content stream is `x`."""
        (embeddings,) = self.start
        return embeddings.questions(*x.shape[:2])

    def masked(self, given: LayerInputs, order: Tensor) -> tuple[LayerInputs, LayerInputs]:
        """The inputs of the layers as the content stream passes them, and as the query stream does."""
        described = {field.name: getattr(given.mask, field.name) for field in fields(Mask)}
        content, queries = (Ordered(**described, ranks=order, own=own) for own in (True, False))
        return replace(given, mask=content), replace(given, mask=queries)

    def asked(self, layer: Layer, queries: Tensor, given: LayerInputs, content: Tensor) -> Tensor:
        """The query stream (batch, length, hidden_size) through one layer, which reads the content below it."""
        y: Tensor = layer(queries, with_memory(given, content), None)
        return y
