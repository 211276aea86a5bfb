"""What each layer does to every token by itself, experts among it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from holotype_spec.schema.values import LARGEST, Count, Positive, Strict

Activation = Literal["relu", "gelu", "gelu-tanh", "gelu-tanh-rounded", "silu"]
FeedForwardSize = Literal["four-times-hidden-size", "independent"]


class PlainFeedForward(Strict, tag="plain", tag_field="kind"):
    """down(activation(up(x))) (Vaswani et al. 2017, section 3.3)."""

    size: FeedForwardSize
    activation: Activation
    bias: bool


class GatedFeedForward(Strict, tag="gated", tag_field="kind"):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020)."""

    size: FeedForwardSize
    activation: Activation
    bias: bool


class SoftmaxRouting(Strict, tag="softmax", tag_field="kind"):
    """Experts are chosen by the softmax of x Wᵀ over all of them (Shazeer et al. 2017; Lepikhin et al. 2020).

    The scores of the chosen ones are their gates: as they are, or `normalised` to the sum 1, then times `factor`.
    Of `groups` of experts only those in the `active_groups` best count, a group being as good as its best expert
    (DeepSeek-AI 2024, V2, section 2.2.2).
    """

    normalised: bool
    factor: Positive
    groups: Count
    active_groups: Count


class SigmoidRouting(Strict, tag="sigmoid", tag_field="kind"):
    """Experts are chosen by sigmoid(x Wᵀ) plus a bias an expert that balances their load (DeepSeek-AI 2024, V3, 2.1.2).

    The biases are set by a rule and not by gradients, so they are no parameters, and only the choice looks at
    them. The rest is as in softmax routing, but that a group is as good as the sum of its two best experts.
    """

    normalised: bool
    factor: Positive
    groups: Count
    active_groups: Count


Routing = SoftmaxRouting | SigmoidRouting
Block = Literal["plain", "gated"]


class Experts(Strict, tag="experts", tag_field="kind"):
    """Several feed-forward blocks a layer, of which each token uses a few (Shazeer et al. 2017; Lepikhin et al. 2020).

    Layers `first_layer`, `first_layer` + `every`, … (from 0) have `experts` blocks of the kind `expert` and of the
    inner size `expert_size`, and a router that gives each token `active_experts` of them; beside these each token
    uses all `shared_experts` (Dai et al. 2024, section 3.2). The other layers have one block of the kind `dense` and
    of the size ffn_size; it is "none" where there are no others, and ffn_size is the size of an expert then. With
    `dense_after` such a block, with a norm and a residual connection of its own, also follows each layer of
    experts (Zoph et al. 2022, appendix C).

    In training an expert takes at most `capacity` times its even share of a batch's tokens (Fedus et al. 2021,
    section 2.2), or whatever comes where it is "none".
    """

    size: Literal["independent"]
    activation: Activation
    bias: bool
    dense: Block | Literal["none"]
    dense_after: bool
    expert: Block
    experts: Count
    active_experts: Count
    shared_experts: Annotated[
        int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")
    ]
    expert_size: Count
    first_layer: Annotated[
        int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")
    ]
    every: Count
    routing: Routing
    capacity: Positive | Literal["none"]


FeedForward = PlainFeedForward | GatedFeedForward | Experts
