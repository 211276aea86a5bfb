"""Who sees whom, and how heads are made."""

from __future__ import annotations

from typing import Literal

from holotype_spec.schema.values import Count, Rate, Strict


class Bidirectional(Strict, tag="bidirectional", tag_field="kind"):
    """Every position attends to every position (Devlin et al. 2018, section 3)."""


class Causal(Strict, tag="causal", tag_field="kind"):
    """Position i attends to the keys 0 … i (Vaswani et al. 2017, section 3.1)."""


class SlidingWindow(Strict, tag="sliding-window", tag_field="kind"):
    """Position i attends to the ``window`` keys i-window+1 … i (Jiang et al. 2023, section 2)."""

    window: Count


class Permutation(Strict, tag="permutation", tag_field="kind"):
    """Each position sees those before it in an order drawn anew for each text (Yang et al. 2019, section 2.2).

    Two streams run through the same layers (section 2.3). The content stream starts from the token and sees
    itself; the query stream starts from one trained vector, sees the content before it but never its own,
    and writes the logits in pretraining. Without an order everything is seen, by the content stream alone.
    """


class MixtureOfMasks(Strict, tag="mixture", tag_field="kind"):
    """Each batch has one of four masks, in these shares (Dong et al. 2019, sections 2.2 and 2.3).

    All positions; those up to and from each one; or, of two segments, the first one whole and the second
    one up to each of its positions.
    """

    bidirectional: Rate
    left_to_right: Rate
    right_to_left: Rate
    sequence_to_sequence: Rate


class PrefixCausal(Strict, tag="prefix-causal", tag_field="kind"):
    """Position i attends to the keys 0 … i and to all of the prefix, which is the text given (Du et al. 2021, 2.1).

    How long the prefix is belongs to the input: in training it is what was not cut out, in use the prompt.
    """


class AlternatingBanded(Strict, tag="alternating-banded", tag_field="kind"):
    """Causal layers and causal layers of a band take turns (Brown et al. 2020, section 2.1; Child et al. 2019).

    In a layer of the second sort position i attends to the `window` keys i-window+1 … i. Layer 0 is of the sort
    that comes `first`.
    """

    first: Literal["dense", "banded"]
    window: Count


Pattern = (
    Bidirectional
    | Causal
    | SlidingWindow
    | AlternatingBanded
    | Permutation
    | MixtureOfMasks
    | PrefixCausal
)


# "inverse-sqrt-head-dim-log-length": also times log(i + 1) / log(max_positions) for a query at a position i beyond
# those trained (Su 2021, kexue.fm 8823; the Qwen release, use_logn_attn).
Scale = Literal[
    "inverse-sqrt-head-dim",
    "inverse-sqrt-head-dim-log-length",
    "inverse-sqrt-three-head-dims",
    "none",
]
Projection = Literal["query", "key", "value", "output"]


class MultiHeadAttention(Strict, tag="multi-head", tag_field="kind"):
    """Multi-head attention, its query, key and value heads grouped or not (Ainslie et al. 2023).

    `pattern` is that of the stack that writes the logits. The encoder of an encoder-decoder is bidirectional
    and its cross-attention sees the whole source: that is what the structure means.
    """

    pattern: Pattern
    scale: Scale
    biases: tuple[Projection, ...]
    head_dim: Literal["hidden-size-over-heads", "independent"]


class LatentAttention(Strict, tag="latent", tag_field="kind"):
    """Keys and values made from one short vector a token, which alone is cached (DeepSeek-AI 2024, V2, section 2.1).

    That vector has `kv_rank` numbers, is normalised, and two matrices make the keys and the values of all heads
    from it. A query head and its key have `head_dim` numbers (that of the spec's sizes), of which the last
    `rope_head_dim` carry the rotary positions: those of the keys are made from the residual stream, and all heads
    share them. A value head has `value_head_dim` numbers. Queries pass through a vector of `query_rank` numbers,
    normalised too, or are made directly where it is "none".
    """

    pattern: Pattern
    scale: Scale
    biases: tuple[Projection, ...]
    head_dim: Literal["independent"]
    query_rank: Count | Literal["none"]
    kv_rank: Count
    rope_head_dim: Count
    value_head_dim: Count


Attention = MultiHeadAttention | LatentAttention
