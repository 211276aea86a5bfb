"""Layers, and the stack of them: what the blocks of a layer are, how they join, and what all layers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.attention import Attention, CrossAttention, SelfAttention
from holotype_reference.cache import Cache, LayerCache
from holotype_reference.experts import Experts
from holotype_reference.feed_forward import FeedForward, dense
from holotype_reference.kernels.paths import Path
from holotype_reference.latent import LatentAttention
from holotype_reference.masks import Documents, Mask, Ordered, Prefix, drawn
from holotype_reference.normalization import norm
from holotype_reference.positions.disentangled import DisentangledAttention, RelativeRows
from holotype_reference.positions.distances import Distances
from holotype_reference.positions.log_length import log_length
from holotype_reference.positions.relative_bias import Alibi, RelativeBias
from holotype_reference.positions.rotary import Rotary
from holotype_reference.positions.transformer_xl import RelativeSinusoids, TransformerXLAttention
from holotype_reference.positions.two_dimensional import TwoDimensionalRotary
from holotype_spec import schema

# Of the states below the last layer (batch, length, hidden_size), and this layer with its keys and values made of them,
# what leaves the stack.
MaskDecoder = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What cross-attention looks at.

    Attributes:
        encoded: (batch, source length, hidden_size), or None when the cache holds its keys and values.
        length: how many tokens the source has.
        padding: (batch, source length) boolean, true for a real token, or None when all are.
    """

    encoded: Tensor | None
    length: int
    padding: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all layers of a stack share in one forward pass.

    Attributes:
        mask: which keys the queries of self-attention see.
        turn: rotates queries and keys (batch, heads, length, head_dim) to their positions, or None.
        sharpen: multiplies queries (batch, heads, length, head_dim) by what grows with their positions, or None.
        bias: (1, heads, queries, keys) added to the scores of self-attention, or None.
        distances: of queries and keys, for self-attention whose own matrices meet them, or None.
        source: the encoder's output, in a decoder that has one.
        source_mask: which keys of the source the queries of cross-attention see.
    """

    mask: Mask
    turn: Callable[[Tensor], Tensor] | None
    sharpen: Callable[[Tensor], Tensor] | None
    bias: Tensor | None
    distances: Distances | None
    source: Tensor | None
    source_mask: Mask | None


@dataclass(frozen=True, kw_only=True)
class View:
    """What a caller may say of who sees whom, beside padding.

    Attributes:
        documents: the lengths of packed documents, which do not see each other; None for no packing.
        prefix: so many places at the start are seen by all; None where nothing was said of it.
        right_to_left: of a mixture of masks the one in which each place sees itself and those behind it.
    """

    documents: Documents | None = None
    prefix: Prefix | None = None
    right_to_left: bool = False


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Two streams through the same layers, for an order of prediction (Yang et al. 2019, section 2.3).

    The content stream sees what comes up to its place in the order. The query stream starts from one vector that knows
    no token, asks for the content that comes before, and never for its own: it writes the logits.

    Attributes:
        order: (batch, length), the place of each position in the order, from 0.
        queries: (batch, length, hidden_size), the query stream so far.
    """

    order: Tensor
    queries: Tensor

    def masked(self, shared: Shared) -> tuple[Shared, Shared]:
        """What the layers share as the content stream passes them, and as the query stream does."""
        described = {field.name: getattr(shared.mask, field.name) for field in fields(Mask)}
        content, queries = (
            Ordered(**described, ranks=self.order, own=own) for own in (True, False)
        )
        return replace(shared, mask=content), replace(shared, mask=queries)

    def advanced(self, layer: Callable[..., Tensor], shared: Shared, *, memory: Tensor) -> Streams:
        """Through one layer, which reads the content below it (batch, length, hidden_size)."""
        return replace(self, queries=layer(self.queries, shared, None, memory=memory))


class Layer(nn.Module):
    """Self-attention, cross-attention if it has a source, and a feed-forward block (Vaswani et al. 2017, figure 1).

    The block may be one of experts, perhaps with a dense one after it (Zoph et al. 2022, appendix C).
    """

    def __init__(self, spec: schema.Spec, index: int, *, cross: bool, path: Path) -> None:
        super().__init__()
        if spec.architecture.residual == "parallel":
            self.norm = norm(spec)
        self.self_attention = own_attention(spec, path=path)
        if spec.architecture.residual != "parallel":
            self.self_attention_norm = norm(spec)
        if cross:
            self.cross_attention = CrossAttention(spec, path=path)
            self.cross_attention_norm = norm(spec)
        self.feed_forward = feed_forward(spec, index)
        if spec.architecture.residual != "parallel":
            self.feed_forward_norm = norm(spec)
        self.dense_after: FeedForward | None = None
        match spec.architecture.feed_forward:
            case schema.Experts(dense_after=True) if spec.has_experts(index):
                self.dense_after = dense(spec)
                self.dense_after_norm = norm(spec)
        self.residual = spec.architecture.residual
        self.alpha = residual_scale(spec)
        dropout = spec.architecture.dropout
        self.dropout = nn.Dropout(max(dropout.at("residual"), dropout.at("attention-output")))
        self.feed_forward_dropout = nn.Dropout(
            max(dropout.at("residual"), dropout.at("feed-forward-output"))
        )

    def forward(
        self, x: Tensor, shared: Shared, cache: LayerCache | None, memory: Tensor | None = None
    ) -> Tensor:
        """(batch, length, hidden_size) -> the same. Self-attention reads `memory`, like x, where it is given: only
        post-norm layers, which read the stream as it is, can be given another one."""
        own = None if cache is None else cache.self_attention
        held = None if cache is None else cache.cross_attention
        attend = partial(
            self.self_attention,
            mask=shared.mask,
            turn=shared.turn,
            sharpen=shared.sharpen,
            bias=shared.bias,
            cache=own,
            distances=shared.distances,
            memory=memory,
        )
        if self.residual == "parallel":
            return self.beside(x, attend)
        x = self.add(x, attend, self.self_attention_norm)
        if shared.source_mask is not None:
            attend = partial(
                self.cross_attention, source=shared.source, mask=shared.source_mask, cache=held
            )
            x = self.add(x, attend, self.cross_attention_norm)
        x = self.add(x, self.feed_forward, self.feed_forward_norm)
        if self.dense_after is None:
            return x
        return self.add(x, self.dense_after, self.dense_after_norm)

    def beside(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """Both blocks read the same vectors, and the stream takes up their sum (Wang & Komatsuzaki 2021, the GPT-J
        release; Chowdhery et al. 2022, section 2)."""
        read = self.norm(x)
        y: Tensor = (
            x + self.dropout(attend(read)) + self.feed_forward_dropout(self.feed_forward(read))
        )
        return y

    def add(self, x: Tensor, block: Callable[[Tensor], Tensor], its_norm: nn.Module) -> Tensor:
        """The residual connection, the norm before the block (Radford et al. 2019, section 2.3) or after both (Vaswani
        et al. 2017, section 3.1), perhaps with the stream scaled (Wang et al. 2022, DeepNet, section 3)."""
        writes = block is self.feed_forward or block is self.dense_after
        dropout = self.feed_forward_dropout if writes else self.dropout
        match self.residual:
            case "pre-norm":
                y: Tensor = x + dropout(block(its_norm(x)))
            case "post-norm":
                y = its_norm(x + dropout(block(x)))
            case "deep-norm":
                y = its_norm(self.alpha * x + dropout(block(x)))
            case other:
                raise ValueError(f"the reference has no residual form {other!r}")
        return y


def feed_forward(spec: schema.Spec, index: int) -> FeedForward | Experts:
    """The feed-forward block of the layer with this number."""
    match spec.architecture.feed_forward:
        case schema.Experts() as kind if spec.has_experts(index):
            return Experts(spec, kind)
        case _:
            return dense(spec)


def residual_scale(spec: schema.Spec) -> float:
    """What a residual connection multiplies the stream by: √(2 layers) under "deep-norm" (Zeng et al. 2022, section
    2.1; the form is that of Wang et al. 2022, DeepNet, section 3, whose factor for a decoder is the root of this)."""
    return float((2 * spec.layers) ** 0.5) if spec.architecture.residual == "deep-norm" else 1.0


def own_attention(spec: schema.Spec, *, path: Path) -> Attention:
    """The self-attention of a layer."""
    match spec.architecture.attention:
        case schema.LatentAttention() as kind:
            return LatentAttention(spec, kind, path=path)
        case schema.MultiHeadAttention():
            return self_attention(spec, path=path)


class Stack(nn.Module):
    """Layers one after the other, perhaps a last norm, and what the layers share: masks, rotations, biases."""

    def __init__(
        self, spec: schema.Spec, pattern: schema.Pattern, *, depth: int, cross: bool, path: Path
    ) -> None:
        super().__init__()
        self.pattern = pattern
        self.depth = depth
        self.rotary = rotary(spec)
        self.log_length = log_length(spec)
        self.relative_bias = relative_bias(spec, pattern)
        self.relative = relative_rows(spec)
        # Layers that share their parameters are one, run again and again (Lan et al. 2019, section 3.1).
        distinct = 1 if spec.architecture.layer_sharing == "all" else depth
        self.layers = nn.ModuleList(
            Layer(spec, index, cross=cross, path=path) for index in range(distinct)
        )
        self.final_norm = norm(spec) if spec.architecture.normalization.final else None
        self.dropout = nn.Dropout(spec.architecture.dropout.at("final"))

    def forward(
        self,
        x: Tensor,
        *,
        positions: Tensor,
        padding: Tensor | None,
        source: Source | None,
        cache: Cache | None,
        view: View,
        decoder: MaskDecoder | None = None,
        token_types: Tensor | None = None,
        streams: Streams | None = None,
    ) -> Tensor:
        """Vectors (batch, length, hidden_size) at positions (batch or 1, length), padding (batch, cached + length),
        token types (batch, length) that attention compares -> (batch, length, hidden_size). A `decoder` runs the last
        layer in its own way; of two `streams` the queries' leaves the stack."""
        cached = 0 if cache is None else cache.length
        context = self.context(x, padding, cache, view.documents)
        shared = self.shared(x, positions, padding, source, cached, view, context)
        if self.relative is not None:
            shared = replace(shared, distances=self.distances(x, cached, token_types))
        shared, asking = (shared, None) if streams is None else streams.masked(shared)
        for index in range(self.depth):
            layer = self.layers[index % len(self.layers)]
            if streams is not None and asking is not None:
                streams = streams.advanced(layer, asking, memory=x)
            if decoder is not None and index == self.depth - 1:
                x = decoder(x, partial(layer, shared=shared, cache=None, memory=x))
            else:
                x = layer(x, shared, None if cache is None else cache.layers[index])
        x = x if streams is None else streams.queries
        if self.final_norm is not None:
            x = self.final_norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped

    def shared(
        self,
        x: Tensor,
        positions: Tensor,
        padding: Tensor | None,
        source: Source | None,
        cached: int,
        view: View,
        context: Tensor | None,
    ) -> Shared:
        queries = x.shape[1]
        bias = self.bias(queries, cached, x.device)
        return Shared(
            mask=self.mask(queries, cached, padding, x.device, view),
            turn=self.turn(positions, x.dtype, context),
            sharpen=self.sharpen(positions, x.dtype),
            bias=None if bias is None else bias.to(x.dtype),
            distances=None,
            source=None if source is None else source.encoded,
            source_mask=None if source is None else self.source_mask(queries, source, x.device),
        )

    def mask(
        self,
        queries: int,
        cached: int,
        padding: Tensor | None,
        device: torch.device,
        view: View,
    ) -> Mask:
        """What self-attention sees: the stack's pattern in each document and the prefix, less the padding."""
        keys = cached + queries
        return Mask(
            pattern=drawn(self.pattern, keys, view.prefix, view.right_to_left),
            queries=queries,
            keys=keys,
            cached=cached,
            padding=padding,
            device=device,
            # A prefix lies in the first chunk, and what is read later sees all that came before.
            prefix=0 if view.prefix is None or cached else view.prefix,
            documents=view.documents,
        )

    def source_mask(self, queries: int, source: Source, device: torch.device) -> Mask:
        """What cross-attention sees: the whole source, less its padding."""
        return Mask(
            pattern=schema.Bidirectional(),
            queries=queries,
            keys=source.length,
            cached=0,
            padding=source.padding,
            device=device,
        )

    def turn(
        self, positions: Tensor, dtype: torch.dtype, context: Tensor | None
    ) -> Callable[[Tensor], Tensor] | None:
        """The rotation of queries and keys to `positions` (batch or 1, length)."""
        if self.rotary is None:
            return None
        return partial(self.rotary.rotate, turns=self.rotary.turns(positions, dtype, context))

    def context(
        self,
        x: Tensor,
        padding: Tensor | None,
        cache: Cache | None,
        documents: Documents | None,
    ) -> Tensor | None:
        """How many real tokens each token is read together with, (batch, length or 1), if theta grows with them.

        The first call with a cache decides for all later ones.
        """
        if self.rotary is None or not self.rotary.grows:
            return None
        if cache is not None and cache.context is not None:
            return cache.context
        found = real_tokens(x, padding, documents)
        if cache is not None:
            cache.context = found
        return found

    def sharpen(self, positions: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
        """What makes scores grow with the `positions` (batch or 1, length) of their queries."""
        if self.log_length is None:
            return None
        return partial(self.log_length.sharpen, factors=self.log_length.factors(positions, dtype))

    def bias(self, queries: int, cached: int, device: torch.device) -> Tensor | None:
        """The bias of each distance, (1, heads, queries, cached + queries). It counts tokens, padding too."""
        if self.relative_bias is None:
            return None
        keys = torch.arange(cached + queries, device=device)
        bias: Tensor = self.relative_bias(keys[cached:], keys)
        return bias

    def distances(self, x: Tensor, cached: int, token_types: Tensor | None) -> Distances:
        """The distance of each of cached + length keys, and which are of other types. It counts tokens, padding too."""
        assert self.relative is not None
        keys = torch.arange(cached + x.shape[1], device=x.device)
        found: Distances = self.relative.distances(keys[cached:], keys, x)
        if token_types is None:
            return found
        types = rearrange(token_types, "batch i -> batch i 1")
        return replace(found, apart=(types != types.mT).long())


def real_tokens(x: Tensor, padding: Tensor | None, documents: Documents | None) -> Tensor:
    """How many real tokens each row of `x` (batch, length, hidden_size) has, (batch, 1), or each of the documents
    packed into it, (batch, length)."""
    real = x.new_ones(x.shape[:2], dtype=torch.bool) if padding is None else padding
    if documents is None:
        return real.sum(dim=-1, keepdim=True)
    rows = documents if len(documents) == len(real) else documents * len(real)
    return torch.stack(
        [
            torch.cat([part.sum().expand(len(part)) for part in row.split(list(lengths))])
            for row, lengths in zip(real, rows, strict=True)
        ]
    )


def rotary(spec: schema.Spec) -> Rotary | None:
    """The rotation of a spec, if it has one."""
    match spec.architecture.positions:
        case schema.Rotary(theta=theta, pairing=pairing, scaling=scaling):
            return Rotary(spec.rotary_dim, theta=theta, pairing=pairing, scaling=scaling)
        case schema.TwoDimensionalRotary(theta=theta):
            return TwoDimensionalRotary(spec.head_dim, theta=theta)
        case _:
            return None


def relative_bias(spec: schema.Spec, pattern: schema.Pattern) -> RelativeBias | Alibi | None:
    """What one stack adds to its scores for each distance, if anything."""
    match spec.architecture.positions:
        case schema.Alibi():
            return Alibi(spec.heads)
        case schema.RelativeBuckets(buckets=buckets, max_distance=max_distance):
            return RelativeBias(
                buckets,
                spec.heads,
                max_distance=max_distance,
                bidirectional=isinstance(pattern, schema.Bidirectional),
            )
        case _:
            return None


def self_attention(spec: schema.Spec, *, path: Path) -> SelfAttention:
    """The self-attention of a spec's layers."""
    match spec.architecture.positions:
        case schema.Disentangled() as described:
            return DisentangledAttention(spec, described, path=path)
        case schema.TransformerXLPositions() as described:
            return TransformerXLAttention(spec, described, path=path)
        case _:
            return SelfAttention(spec, path=path)


def relative_rows(spec: schema.Spec) -> RelativeRows | RelativeSinusoids | None:
    """What the layers of a stack share to be told of distances, if anything."""
    match spec.architecture.positions:
        case schema.Disentangled() as described:
            return RelativeRows(spec, described)
        case schema.TransformerXLPositions() as described:
            return RelativeSinusoids(spec, described)
        case _:
            return None
