"""Experts: which of its blocks a token goes through, and what they say together.

In evaluation none is left out: a capacity is for training.
"""

from __future__ import annotations

import numpy as np

from holotype_reference.oracle.basics import Array, Scope
from holotype_reference.oracle.feed_forward import feed_forward
from holotype_spec.schema import Experts, SigmoidRouting, Spec


def experts(spec: Spec, p: Scope, x: Array) -> Array:
    """Σ gate_e expert_e(x) over a token's experts e (Shazeer et al. 2017, equation 1), and what all tokens share
    (Dai et al. 2024, equation 9), one token after the other."""
    described = spec.architecture.feed_forward
    assert isinstance(described, Experts)
    y = np.zeros_like(x)
    for token in np.ndindex(x.shape[:-1]):
        for expert, gate in gates(described, p / "router", x[token]).items():
            y[token] += gate * feed_forward(spec, _nth(p / "experts", expert), x[token])
    return y + feed_forward(spec, p / "shared_experts", x) if described.shared_experts else y


def gates(described: Experts, p: Scope, x: Array) -> dict[int, float]:
    """The experts that a token's vector x (hidden_size) chooses, and by how much each of them counts.

    The softmax over all (Lepikhin et al. 2020, section 2.2), or logistic functions and a bias an expert that only the
    choice looks at (DeepSeek-AI 2024, V3, equations 13 to 16).
    """
    routing = described.routing
    logits = p["weight"] @ x
    if isinstance(routing, SigmoidRouting):
        scores = 1 / (1 + np.exp(-logits))
        wanted = scores + p["correction"]
    else:
        scores = np.exp(logits - logits.max())
        wanted = scores = scores / scores.sum()
    open_to_it = _in_the_best_groups(described, wanted)
    chosen = sorted(open_to_it, key=lambda expert: -wanted[expert])[: described.active_experts]
    total = sum(scores[expert] for expert in chosen) if routing.normalised else 1.0
    return {expert: routing.factor * float(scores[expert] / total) for expert in chosen}


def _in_the_best_groups(described: Experts, wanted: Array) -> list[int]:
    """The experts of the best groups. A group is as good as its best expert (DeepSeek-AI 2024, V2, section 2.2.2), and
    under logistic scores as its two best together (V3, section 2.1.2)."""
    routing, size = described.routing, described.experts // described.routing.groups
    counted = 2 if isinstance(routing, SigmoidRouting) else 1
    groups = [range(first, first + size) for first in range(0, described.experts, size)]

    def good(group: range) -> float:
        return float(sum(sorted(wanted[list(group)])[-counted:]))

    best = sorted(groups, key=good)[-routing.active_groups :]
    return [expert for group in best for expert in group]


def _nth(p: Scope, number: int) -> Scope:
    """The matrices of one expert."""
    names = [f"{part}.{what}" for part in ("gate", "up", "down") for what in ("weight", "bias")]
    return Scope({name: p[name][number] for name in names if name in p})
