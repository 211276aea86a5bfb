"""LlamaCausalLM of curated-transformers 2.0.1, on its own attention and on torch's.

pip install curated-transformers==2.0.1
holotype check examples/peers/curated_adapter.py:Adapter --spec llama2-70b
"""

from __future__ import annotations

from typing import Any

import torch
from curated_transformers.layers import AttentionMask
from curated_transformers.layers.activations import Activation
from curated_transformers.layers.attention import enable_torch_sdp
from curated_transformers.models import LlamaCausalLM
from curated_transformers.models.llama.config import LlamaConfig
from torch import nn

from holotype_conformance.models.candidate import Candidate, Inputs, Outputs
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec


class Adapter(Candidate):
    """Its cache grows by joining, and its mask covers what the cache holds."""

    title = "LlamaCausalLM of curated-transformers"
    paths = ("own", "sdpa")

    def build(self, spec: Spec, path: str = "own") -> nn.Module:
        model = LlamaCausalLM(
            LlamaConfig(
                activation=Activation.SiLU,
                hidden_width=spec.hidden_size,
                intermediate_width=spec.ffn_size,
                n_hidden_layers=spec.layers,
                n_query_heads=spec.heads,
                n_key_value_heads=spec.kv_heads,
                n_pieces=spec.vocab_size,
                rms_norm_eps=spec.architecture.normalization.eps,
                rotary_embedding_base=spec.architecture.positions.theta,
                rotary_embedding_fraction=1.0,
                dtype=torch.get_default_dtype(),
            )
        )
        model.sdpa = path == "sdpa"
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        model.load_state_dict(model.state_dict_from_hf(weights.published()))

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return self.run(model, inputs, None, store_cache=False)

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        return self.run(model, inputs, cache, store_cache=True)

    def run(self, model: nn.Module, inputs: Inputs, cache: Any, *, store_cache: bool) -> Outputs:
        """One call; they want a mask always, (batch, cached + length)."""
        batch, length = inputs.token_ids.shape
        held = cache[0].key.shape[2] if cache else 0
        mask = inputs.attention_mask
        mask = torch.ones(batch, held + length) if mask is None else mask
        with enable_torch_sdp(model.sdpa):
            returned = model(
                inputs.token_ids,
                AttentionMask(mask.bool()),
                cache=cache,
                positions=inputs.position_ids,
                store_cache=store_cache,
            )
        return Outputs(logits=returned.logits, cache=returned.cache)
