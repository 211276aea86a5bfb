"""Layers, and the stack of them: what the blocks of a layer are, how they join, and what all layers share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from holotype_reference.attention import (
    Attention,
    LayerInputs,
    Positions,
    SelfAttention,
    Source,
    WeightedSum,
)
from holotype_reference.basics import norm
from holotype_reference.cache import LayerCache
from holotype_reference.cross_attention import CrossAttention
from holotype_reference.experts import Experts
from holotype_reference.feed_forward import FeedForward
from holotype_reference.inputs import Call
from holotype_reference.latent import LatentAttention
from holotype_reference.masks import Mask
from holotype_reference.mixture import drawn
from holotype_reference.positions import ATTENTION, SHARED
from holotype_reference.positions.log_length import LogLength
from holotype_reference.positions.rope_scaling import score_factor
from holotype_spec import schema


class Layer(nn.Module):
    """Self-attention, cross-attention if it has a source, and a feed-forward block (Vaswani et al. 2017, figure 1).

    The block may be one of experts, perhaps with a dense one after it (Zoph et al. 2022, appendix C).
    """

    def __init__(self, spec: schema.Spec, index: int, *, cross: bool, weigh: WeightedSum) -> None:
        super().__init__()
        self.residual = spec.architecture.residual
        if self.residual == "parallel":
            self.norm = norm(spec)
        self.self_attention = self_attention(spec, weigh=weigh)
        if self.residual != "parallel":
            self.self_attention_norm = norm(spec)
        if cross:
            self.cross_attention = CrossAttention(spec, weigh=weigh)
            self.cross_attention_norm = norm(spec)
        self.feed_forward: FeedForward | Experts
        match spec.architecture.feed_forward:
            case schema.Experts() as kind if spec.has_experts(index):
                self.feed_forward = Experts(spec, kind)
            case kind:
                self.feed_forward = FeedForward(spec)
        if self.residual != "parallel":
            self.feed_forward_norm = norm(spec)
        self.dense_after: FeedForward | None = None
        if kind.has_dense_after(index):
            self.dense_after = FeedForward(spec)
            self.dense_after_norm = norm(spec)
        # √(2 layers) (Zeng et al. 2022, section 2.1); for a decoder the factor of DeepNet is the root of this.
        self.alpha = float((2 * spec.layers) ** 0.5) if self.residual == "deep-norm" else 1.0
        dropout = spec.architecture.dropout
        self.dropout = nn.Dropout(max(dropout.at("residual"), dropout.at("attention-output")))
        self.feed_forward_dropout = nn.Dropout(
            max(dropout.at("residual"), dropout.at("feed-forward-output"))
        )

    def forward(self, x: Tensor, given: LayerInputs, cache: LayerCache | None) -> Tensor:
        """(batch, length, hidden_size) -> the same"""
        own = None if cache is None else cache.self_attention
        attend = partial(self.self_attention, given=given, cache=own)
        if self.residual == "parallel":
            return self.beside(x, attend)
        x = self.add(x, attend, self.self_attention_norm)
        if given.source is not None:
            held = None if cache is None else cache.cross_attention
            attend = partial(self.cross_attention, source=given.source, cache=held)
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


class Stack(nn.Module):
    """Layers one after the other, perhaps a last norm, and what the layers share: masks and positions."""

    def __init__(
        self,
        spec: schema.Spec,
        pattern: schema.Pattern,
        *,
        depth: int,
        cross: bool,
        weigh: WeightedSum,
    ) -> None:
        super().__init__()
        self.pattern = pattern
        self.depth = depth
        described = spec.architecture.positions
        scaling = type(getattr(described, "scaling", None))
        shared = SHARED[scaling if scaling in SHARED else type(described)]
        positions = shared(spec, described, pattern)
        if spec.architecture.attention.scale == "inverse-sqrt-head-dim-log-length":
            positions = LogLength(positions, trained=spec.max_positions)
        self.positions_name = positions.name
        self.add_module(positions.name, positions)
        # Layers that share their parameters are one, run again and again (Lan et al. 2019, section 3.1).
        distinct = 1 if spec.architecture.layer_sharing == "all" else depth
        self.layers = nn.ModuleList()
        for index in range(distinct):
            self.layers.append(Layer(spec, index, cross=cross, weigh=weigh))
        self.final_norm = norm(spec) if spec.architecture.normalization.final else None
        self.dropout = nn.Dropout(spec.architecture.dropout.at("final"))

    def forward(self, x: Tensor, *, inputs: Call, source: Source | None = None) -> Tensor:
        """Vectors (batch, length, hidden_size) of the tokens of `inputs`, whose positions are given -> the same."""
        shared: Positions = getattr(self, self.positions_name)
        given = LayerInputs(mask=self.mask(inputs), positions=shared.at(x, inputs), source=source)
        x = self.through(x, given, inputs)
        if self.final_norm is not None:
            x = self.final_norm(x)
        dropped: Tensor = self.dropout(x)
        return dropped

    def through(self, x: Tensor, given: LayerInputs, inputs: Call) -> Tensor:
        """(batch, length, hidden_size) through all layers -> the same"""
        for index in range(self.depth):
            cache = None if inputs.cache is None else inputs.cache.layers[index]
            x = self.layers[index % len(self.layers)](x, given, cache)
        return x

    def mask(self, inputs: Call) -> Mask:
        """The mask of self-attention: the stack's pattern in each document and the prefix, less the padding."""
        cached, queries = inputs.cached, inputs.token_ids.shape[1]
        pattern, visible = self.pattern, inputs.visible_prefix
        return Mask(
            pattern=drawn(pattern, cached + queries, visible, inputs.backwards)
            if pattern.mixed
            else pattern,
            queries=queries,
            keys=cached + queries,
            cached=cached,
            padding=inputs.padding,
            device=inputs.token_ids.device,
            # A prefix lies in the first chunk, and what is read later sees all that came before.
            prefix=0 if visible is None or cached else visible,
            documents=inputs.documents,
        )


def self_attention(spec: schema.Spec, *, weigh: WeightedSum) -> Attention:
    """The self-attention of a layer."""
    attention, positions = spec.architecture.attention, spec.architecture.positions
    made: Attention
    if isinstance(attention, schema.LatentAttention):
        made = LatentAttention(spec, attention, weigh=weigh)
    elif type(positions) in ATTENTION:
        made = ATTENTION[type(positions)](spec, positions, weigh=weigh)
    else:
        made = SelfAttention(spec, weigh=weigh)
    match positions:
        case schema.Rotary(scaling=schema.YarnScaling() as scaling):
            made.scale *= score_factor(scaling)
    return made
