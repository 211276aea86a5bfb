"""Experts: several feed-forward blocks a layer, of which a router gives each token a few.

    y = Σ g_e(x) expert_e(x), over the chosen e, + shared(x)

Shazeer et al. 2017, section 2, with the router of Lepikhin et al. 2020, section 2.2; the shared ones are Dai et al.
2024, section 3.2. Here all tokens of a batch are one axis, whatever rows they stand in: no token knows of another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from holotype_reference.basics import compute_dtype
from holotype_reference.feed_forward import ACTIVATIONS, FeedForward
from holotype_spec import schema


class Choice(NamedTuple):
    """The experts that a router chooses, and their gates.

    Attributes:
        experts: (tokens, active_experts), the numbers of those that a token uses, the best first.
        gates: (tokens, active_experts), by how much each of them counts, in at least float32.
    """

    experts: Tensor
    gates: Tensor


class Router(nn.Module):
    """Scores s(x) of all experts, the best of them, and gates: factor · s, perhaps normalised to the sum 1 before.

    It computes in at least float32 (Fedus et al. 2021, section 2.4): a rounded score may turn a choice.
    """

    weight: nn.Parameter

    def __init__(self, spec: schema.Spec, kind: schema.Experts) -> None:
        super().__init__()
        self.active, self.routing = kind.active_experts, kind.routing
        self.weight = nn.Parameter(torch.empty(kind.experts, spec.hidden_size))
        if self.routing.corrected:
            # No parameter: what trains the model sets it by a rule (DeepSeek-AI 2024, V3, section 2.1.2).
            self.correction = nn.Buffer(torch.zeros(kind.experts))

    def forward(self, x: Tensor) -> Choice:
        """(tokens, hidden_size) -> a choice for each"""
        scores = self.scores(x)
        experts = self.best(self.preferences(scores))
        return Choice(experts=experts, gates=self.gates(scores, experts))

    def logits(self, x: Tensor) -> Tensor:
        """(tokens, hidden_size) -> (tokens, experts)"""
        wide = compute_dtype(x.dtype)
        return F.linear(x.to(wide), self.weight.to(wide))

    def scores(self, x: Tensor) -> Tensor:
        """softmax(x Wᵀ) over all experts, or sigmoid(x Wᵀ): (tokens, hidden_size) -> (tokens, experts)"""
        match self.routing:
            case schema.SoftmaxRouting():
                return self.logits(x).softmax(dim=-1)
            case schema.SigmoidRouting():
                return self.logits(x).sigmoid()

    def preferences(self, scores: Tensor) -> Tensor:
        """By what experts are chosen: the scores, corrected where they are, -∞ outside of the best groups.

        (tokens, experts) -> the same
        """
        if self.routing.corrected:
            scores = scores + self.correction
        if self.routing.groups == 1:
            return scores
        by_group = rearrange(
            scores, "tokens (groups each) -> tokens groups each", groups=self.routing.groups
        )
        chosen = self.goodness(by_group).topk(self.routing.active_groups, dim=-1).indices
        outside = torch.ones_like(by_group[..., 0], dtype=torch.bool).scatter(-1, chosen, False)
        return by_group.masked_fill(outside[..., None], -torch.inf).flatten(1)

    def goodness(self, by_group: Tensor) -> Tensor:
        """The score of a group: that of its best expert (DeepSeek-AI 2024, V2, section 2.2.2), or the sum of its two
        best (V3, section 2.1.2). (tokens, groups, each) -> (tokens, groups)"""
        match self.routing:
            case schema.SoftmaxRouting():
                return by_group.amax(dim=-1)
            case schema.SigmoidRouting():
                return by_group.topk(min(2, by_group.shape[-1]), dim=-1).values.sum(dim=-1)

    def best(self, preferences: Tensor) -> Tensor:
        """(tokens, experts) -> (tokens, active_experts)"""
        return preferences.topk(self.active, dim=-1).indices

    def gates(self, scores: Tensor, experts: Tensor) -> Tensor:
        """(tokens, experts) at those chosen -> (tokens, active_experts)"""
        gates = scores.gather(-1, experts)
        if self.routing.normalised:
            gates = gates / gates.sum(dim=-1, keepdim=True)
        return self.routing.factor * gates


class Matrices(nn.Module):
    """One matrix for each expert: weight (experts, outputs, inputs), its memory uninitialised."""

    def __init__(self, experts: int, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(experts, outputs)) if bias else None

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, inputs) -> (tokens, outputs)"""
        return F.linear(x, self.weight[expert], None if self.bias is None else self.bias[expert])


class Blocks(nn.Module):
    """The feed-forward blocks themselves, all of one size; plain or gated as in `holotype_reference.feed_forward`."""

    def __init__(self, spec: schema.Spec, kind: schema.Experts) -> None:
        super().__init__()
        experts, hidden_size, size = kind.experts, spec.hidden_size, kind.expert_size
        self.gate = (
            Matrices(experts, hidden_size, size, bias=kind.bias) if kind.expert == "gated" else None
        )
        self.up = Matrices(experts, hidden_size, size, bias=kind.bias)
        self.down = Matrices(experts, size, hidden_size, bias=kind.bias)
        self.number = experts
        self.activation = kind.activation
        self.dropout = nn.Dropout(spec.architecture.dropout.at("feed-forward"))

    def activate(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](x)

    def inner(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, hidden_size) -> (tokens, expert_size)"""
        up: Tensor = self.up(x, expert)
        return self.activate(up) if self.gate is None else self.activate(self.gate(x, expert)) * up

    def forward(self, x: Tensor, choice: Choice) -> Tensor:
        """Each expert reads the tokens that chose it: (tokens, hidden_size) -> the same

        What it says is rounded to the dtype of the model before it is added up, as in the released codes.
        """
        y = torch.zeros_like(x)
        for expert in range(self.number):
            tokens, rank = (choice.experts == expert).nonzero(as_tuple=True)
            said = self.down(self.dropout(self.inner(x[tokens], expert)), expert)
            y = y.index_add(0, tokens, (choice.gates[tokens, rank, None] * said).to(x.dtype))
        return y


class Experts(nn.Module):
    """A router, its experts, and those that all tokens share, computed as one block as wide as all of them."""

    def __init__(self, spec: schema.Spec, kind: schema.Experts) -> None:
        super().__init__()
        self.router = Router(spec, kind)
        self.experts = Blocks(spec, kind)
        self.shared_experts = (
            FeedForward(spec, kind.shared_experts * kind.expert_size, gated=kind.expert == "gated")
            if kind.shared_experts
            else None
        )
        self.capacity = kind.capacity

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> the same"""
        tokens = x.flatten(0, 1)
        y: Tensor = self.experts(tokens, self.choice(tokens)).view_as(x)
        return y if self.shared_experts is None else y + self.shared_experts(x)

    def choice(self, x: Tensor) -> Choice:
        """The router's choice for all tokens (tokens, hidden_size), in training within the capacity."""
        choice: Choice = self.router(x)
        if self.training and self.capacity != "none":
            return self.within(self.capacity, choice)
        return choice

    def within(self, capacity: float, choice: Choice) -> Choice:
        """The choice without what is over an expert's capacity: the gates of that are 0.

        An expert takes ``capacity · tokens / experts`` (Fedus et al. 2021, section 2.2): first from the tokens whose
        first choice it is, in their order, then from those whose second it is (Lepikhin et al. 2020, algorithm 1).
        """
        room = int(capacity * len(choice.experts) / self.experts.number)
        in_turn = rearrange(choice.experts, "tokens rank -> (rank tokens)")
        arrived = F.one_hot(in_turn, self.experts.number).cumsum(dim=0)
        place = rearrange(
            arrived.gather(1, in_turn[:, None]),
            "(rank tokens) 1 -> tokens rank",
            rank=self.router.active,
        )
        return choice._replace(gates=choice.gates.masked_fill(place > room, 0.0))
