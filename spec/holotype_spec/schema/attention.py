"""Attention: how its queries, keys and values are made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import msgspec

from holotype_spec.schema.mechanism import Mechanism, Probing
from holotype_spec.schema.normalization import Normalization
from holotype_spec.schema.patterns import Pattern
from holotype_spec.schema.positions import Positions
from holotype_spec.schema.rows import Parameter, linear
from holotype_spec.schema.sizes import Sizes
from holotype_spec.schema.values import Count

SELF = "self-attention"


# "inverse-sqrt-head-dim-log-length": also times log(i + 1) / log(max_positions) for a query at a position i beyond
# those trained (Su 2021, kexue.fm 8823; the Qwen release, use_logn_attn).
Scale = Literal[
    "inverse-sqrt-head-dim",
    "inverse-sqrt-head-dim-log-length",
    "inverse-sqrt-three-head-dims",
    "none",
]
Projection = Literal["query", "key", "value", "output"]


class AttentionMechanism(Mechanism):
    """Attention whose heads are as wide as the spec's sizes say."""

    pattern: Pattern
    scale: Scale
    biases: tuple[Projection, ...]

    wide_probe: ClassVar[bool] = False  # several pairs of dimensions must turn in a probe
    probed_hidden_size: ClassVar[int] = 36  # where heads · head_dim is another number

    @property
    def grows_with_position(self) -> bool:
        """Whether scores are multiplied by a logarithm of the position, beyond those trained."""
        return self.scale == "inverse-sqrt-head-dim-log-length"

    def rotary_dim(self, positions: Positions, head_dim: int) -> int:
        """Dimensions of a head that turn with the position; 0 without rotary positions."""
        return positions.rotary_dim(head_dim)

    def value_size(self, head_dim: int) -> int:
        """Numbers in a value head."""
        return head_dim

    def cached_values(self, sizes: Sizes) -> int:
        """Numbers that a layer keeps of a token in the KV cache."""
        return 2 * sizes.kv_heads * sizes.head_dim

    def parameters(
        self, sizes: Sizes, name: str, component: str, norm: Normalization, positions: Positions
    ) -> Iterator[Parameter]:
        """Rows of the table of parameters; positions have theirs among them in self-attention alone."""
        raise NotImplementedError

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, pattern=self.pattern.probed(probing))


class MultiHeadAttention(AttentionMechanism, tag="multi-head", tag_field="kind"):
    """Multi-head attention, its query, key and value heads grouped or not (Ainslie et al. 2023).

    `pattern` is that of the stack that writes the logits. The encoder of an encoder-decoder is bidirectional
    and its cross-attention sees the whole source: that is what the structure means.
    """

    head_dim: Literal["hidden-size-over-heads", "independent"]

    def parameters(
        self, sizes: Sizes, name: str, component: str, norm: Normalization, positions: Positions
    ) -> Iterator[Parameter]:
        d, heads = sizes.hidden_size, sizes.heads * sizes.head_dim
        shared = sizes.kv_heads * sizes.head_dim
        if component == SELF:
            yield from positions.query_parameters(sizes, name)
        for part, width in (("query", heads), ("key", shared), ("value", shared)):
            yield from linear(f"{name}.{part}", width, d, component, bias=part in self.biases)
        biased = "output" in self.biases
        yield from linear(f"{name}.output", d, heads, component, bias=biased, residual=True)
        if component == SELF:
            yield from positions.score_parameters(sizes, name)


class LatentAttention(AttentionMechanism, tag="latent", tag_field="kind"):
    """Keys and values made from one short vector a token, which alone is cached (DeepSeek-AI 2024, V2, section 2.1).

    That vector has `kv_rank` numbers, is normalised, and two matrices make the keys and the values of all heads
    from it. A query head and its key have `head_dim` numbers (that of the spec's sizes), of which the last
    `rope_head_dim` carry the rotary positions: those of the keys are made from the residual stream, and all heads
    share them. A value head has `value_head_dim` numbers. Queries pass through a vector of `query_rank` numbers,
    normalised too, or are made directly where it is "none".
    """

    head_dim: Literal["independent"]
    query_rank: Count | Literal["none"]
    kv_rank: Count
    rope_head_dim: Count
    value_head_dim: Count

    wide_probe: ClassVar[bool] = True
    # A multiple of the heads, as the published classes ask although nothing divides it.
    probed_hidden_size: ClassVar[int] = 40

    def rotary_dim(self, positions: Positions, head_dim: int) -> int:
        return positions.rotary_dim(self.rope_head_dim)

    def value_size(self, head_dim: int) -> int:
        return self.value_head_dim

    def cached_values(self, sizes: Sizes) -> int:
        return self.kv_rank + self.rope_head_dim

    def parameters(
        self, sizes: Sizes, name: str, component: str, norm: Normalization, positions: Positions
    ) -> Iterator[Parameter]:
        d, heads, rank = sizes.hidden_size, sizes.heads, self.kv_rank
        query, value = heads * sizes.head_dim, heads * self.value_head_dim

        def matrix(part: str, outputs: int, inputs: int) -> Iterator[Parameter]:
            bias, residual = part in self.biases, part == "output"
            name_ = f"{name}.{part}"
            return linear(name_, outputs, inputs, component, bias=bias, residual=residual)

        if self.query_rank == "none":
            yield from matrix("query", query, d)
        else:
            yield from matrix("query_latent", self.query_rank, d)
            yield from norm.parameters(f"{name}.query_norm", self.query_rank, component)
            yield from matrix("query", query, self.query_rank)
        turning = self.rotary_dim(positions, sizes.head_dim)
        yield from matrix("latent", rank, d)
        yield from matrix("rotary_key", self.rope_head_dim, d)
        yield from norm.parameters(f"{name}.latent_norm", rank, component)
        yield from matrix("key", heads * (sizes.head_dim - turning), rank)
        yield from matrix("value", value, rank)
        yield from matrix("output", d, value)

    def probed(self, probing: Probing) -> Self:
        """Of the 16 dimensions of a query's head 10 turn."""
        rank: int | Literal["none"] = "none" if self.query_rank == "none" else 21
        pattern = self.pattern.probed(probing)
        return msgspec.structs.replace(
            self, pattern=pattern, query_rank=rank, kv_rank=12, rope_head_dim=10, value_head_dim=9
        )


Attention = MultiHeadAttention | LatentAttention
