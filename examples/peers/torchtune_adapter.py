"""The LLaMA 2 builder of torchtune 0.6.1, with its own converter of published weights.

pip install torchtune==0.6.1 torchao==0.10.0
holotype check examples/peers/torchtune_adapter.py:Adapter --spec llama2-70b
"""

from __future__ import annotations

import torch
from torch import nn
from torchtune.models.convert_weights import hf_to_tune
from torchtune.models.llama2._component_builders import llama2

from holotype_conformance.models.candidate import Candidate, Inputs, Outputs
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec


class Adapter(Candidate):
    """Their rotary pairs are interleaved: the converter reorders the rows of queries and keys."""

    title = "llama2 of torchtune"

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        return llama2(
            spec.vocab_size,
            spec.layers,
            spec.heads,
            spec.kv_heads,
            spec.hidden_size,
            spec.max_positions,
            intermediate_dim=spec.ffn_size,
            norm_eps=spec.architecture.normalization.eps,
            rope_base=spec.architecture.positions.theta,
        )

    def load(self, model: nn.Module, weights: Weights) -> None:
        sizes = weights.spec.heads, weights.spec.kv_heads, weights.spec.hidden_size
        model.load_state_dict(hf_to_tune(weights.published(), *sizes))

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        """A mask of theirs is (batch, query, key) and stands in for the causal one, so it holds both."""
        mask = None
        if inputs.attention_mask is not None:
            length = inputs.token_ids.shape[1]
            causal = torch.ones(length, length, dtype=torch.bool).tril()
            mask = causal & inputs.attention_mask[:, None, :].bool()
        return Outputs(logits=model(inputs.token_ids, mask=mask, input_pos=inputs.position_ids))
