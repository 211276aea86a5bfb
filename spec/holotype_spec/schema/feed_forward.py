"""Feed-forward blocks, dense ones and experts (MoE)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import msgspec

from holotype_spec.schema.mechanism import Mechanism, Probing
from holotype_spec.schema.normalization import Normalization
from holotype_spec.schema.rows import EXPERTS, Parameter, linear, vector
from holotype_spec.schema.sizes import Sizes
from holotype_spec.schema.values import LARGEST, Count, Positive

Activation = Literal["relu", "gelu", "gelu-tanh", "gelu-tanh-rounded", "silu"]
FeedForwardSize = Literal["four-times-hidden-size", "independent"]
BLOCK = "feed-forward"
PROBED_SIZE = 52  # of a probe whose inner size is its own


class FeedForwardMechanism(Mechanism):
    """One block a layer, the same in all layers."""

    size: FeedForwardSize
    activation: Activation
    bias: bool

    @property
    def gated(self) -> bool:
        """Whether the blocks, or those of the experts, are gated."""
        return False

    @property
    def dense_gated(self) -> bool:
        """Whether the blocks that are not made of experts are gated."""
        return self.gated

    def has_experts(self, layer: int) -> bool:
        """Whether the block of a layer, counted from 0, consists of experts."""
        return False

    def has_dense_after(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has a dense block behind its experts (Zoph et al. 2022, appendix C)."""
        return False

    def layers_alike(self, depth: int) -> dict[int, int]:
        """The first layer of each kind in a stack, and how many layers are of that kind."""
        return {0: depth}

    @property
    def corrects_choice(self) -> bool:
        """Whether a number for each expert, set by a rule, is added to what experts are chosen by."""
        return False

    def used(self, parameter: Parameter) -> int:
        """The numbers of a parameter that one token uses."""
        return parameter.size

    def block(
        self, sizes: Sizes, name: str, component: str, size: int, *, gated: bool
    ) -> Iterator[Parameter]:
        """Rows of the table of parameters of one block of the inner size `size`."""
        d = sizes.hidden_size
        if gated:
            yield from linear(f"{name}.gate", size, d, component, bias=self.bias)
        yield from linear(f"{name}.up", size, d, component, bias=self.bias)
        yield from linear(f"{name}.down", d, size, component, bias=self.bias, residual=True)

    def parameters(self, sizes: Sizes, name: str, layer: int) -> Iterator[Parameter]:
        """Rows of the table of parameters of what a layer has."""
        yield from self.block(sizes, name, BLOCK, sizes.ffn_size, gated=self.gated)

    def later_parameters(
        self, sizes: Sizes, name: str, layer: int, norm: Normalization, *, post: bool
    ) -> Iterator[Parameter]:
        """Rows of a second block, and of its norm, which is in the residual stream where `post`."""
        yield from ()

    def buffers(self, sizes: Sizes, name: str, layer: int) -> Iterator[Parameter]:
        """Rows of what a checkpoint holds of a layer, and no gradient sets."""
        yield from ()


class PlainFeedForward(FeedForwardMechanism, tag="plain", tag_field="kind"):
    """down(activation(up(x))) (Vaswani et al. 2017, section 3.3)."""


class GatedFeedForward(FeedForwardMechanism, tag="gated", tag_field="kind"):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020)."""

    @property
    def gated(self) -> bool:
        return True


class RoutingMechanism(Mechanism):
    """The choice of a token's experts; of groups of experts, a probe uses two of four."""

    normalised: bool
    factor: Positive
    groups: Count
    active_groups: Count

    corrected: ClassVar[bool] = (
        False  # by a number an expert, added to the scores for the choice alone
    )

    def probed(self, probing: Probing) -> Self:
        grouped = self.groups > 1
        return msgspec.structs.replace(self, groups=4, active_groups=2) if grouped else self


class SoftmaxRouting(RoutingMechanism, tag="softmax", tag_field="kind"):
    """Experts are chosen by the softmax of x Wᵀ over all of them (Shazeer et al. 2017; Lepikhin et al. 2020).

    The scores of the chosen ones are their gates: as they are, or `normalised` to the sum 1, then times `factor`.
    Of `groups` of experts only those in the `active_groups` best count, a group being as good as its best expert
    (DeepSeek-AI 2024, V2, section 2.2.2).
    """


class SigmoidRouting(RoutingMechanism, tag="sigmoid", tag_field="kind"):
    """Experts are chosen by sigmoid(x Wᵀ) plus a bias an expert that balances their load (DeepSeek-AI 2024, V3, 2.1.2).

    The biases are set by a rule and not by gradients, so they are no parameters, and only the choice looks at
    them. The rest is as in softmax routing, but that a group is as good as the sum of its two best experts.
    """

    corrected: ClassVar[bool] = True


Routing = SoftmaxRouting | SigmoidRouting
Block = Literal["plain", "gated"]


class Experts(FeedForwardMechanism, tag="experts", tag_field="kind"):
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

    @property
    def gated(self) -> bool:
        return self.expert == "gated"

    @property
    def dense_gated(self) -> bool:
        return self.dense == "gated"

    def has_experts(self, layer: int) -> bool:
        return layer >= self.first_layer and (layer - self.first_layer) % self.every == 0

    def has_dense_after(self, layer: int) -> bool:
        return self.dense_after and self.has_experts(layer)

    def layers_alike(self, depth: int) -> dict[int, int]:
        kinds = [self.has_experts(layer) for layer in range(depth)]
        return {kinds.index(kind): kinds.count(kind) for kind in sorted({*kinds})}

    @property
    def corrects_choice(self) -> bool:
        return self.routing.corrected

    def used(self, parameter: Parameter) -> int:
        if parameter.component != EXPERTS:
            return parameter.size
        return parameter.size // self.experts * self.active_experts

    def parameters(self, sizes: Sizes, name: str, layer: int) -> Iterator[Parameter]:
        if not self.has_experts(layer):
            yield from self.block(sizes, name, BLOCK, sizes.ffn_size, gated=self.dense_gated)
            return
        gated, size = self.gated, self.expert_size
        yield from linear(f"{name}.router", self.experts, sizes.hidden_size, "router", bias=False)
        for each in self.block(sizes, f"{name}.experts", EXPERTS, size, gated=gated):
            yield msgspec.structs.replace(each, shape=(self.experts, *each.shape))
        if self.shared_experts:
            # One block as wide as all of them computes their sum.
            size *= self.shared_experts
            shared = f"{name}.shared_experts"
            yield from self.block(sizes, shared, "shared experts", size, gated=gated)

    def later_parameters(
        self, sizes: Sizes, name: str, layer: int, norm: Normalization, *, post: bool
    ) -> Iterator[Parameter]:
        if self.has_dense_after(layer):
            block = f"{name}.dense_after"
            yield from self.block(sizes, block, BLOCK, sizes.ffn_size, gated=self.dense_gated)
            norm_name, d = f"{name}.dense_after_norm", sizes.hidden_size
            yield from norm.parameters(norm_name, d, "norms", residual=post)

    def buffers(self, sizes: Sizes, name: str, layer: int) -> Iterator[Parameter]:
        if self.corrects_choice and self.has_experts(layer):
            correction = f"{name}.router.correction"
            yield vector(correction, (self.experts,), "choice-bias", "router")

    def probed(self, probing: Probing) -> Self:
        """Experts of a size of their own where other layers have one block, and both kinds of layers within two."""
        return msgspec.structs.replace(
            self,
            experts=8 if self.routing.groups > 1 else 7,
            active_experts=min(self.active_experts, 3),
            expert_size=PROBED_SIZE if self.dense == "none" else 28,
            first_layer=min(self.first_layer, 1),
            routing=self.routing.probed(probing),
        )


FeedForward = PlainFeedForward | GatedFeedForward | Experts
