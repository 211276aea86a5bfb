"""The GPT class of litgpt 0.5.13, as LLaMA and as Mistral, its cache included.

pip install litgpt==0.5.13
holotype check examples/peers/litgpt_adapter.py:Adapter --spec llama2-70b
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from litgpt.model import GPT, Config, build_mask_cache
from torch import nn

from holotype_conformance.models.candidate import Candidate, Capability, Inputs, Outputs
from holotype_reference.weights import Weights
from holotype_spec.schema import SlidingWindow, Spec

# Published module names -> theirs, outside and inside a layer; queries, keys and values are one matrix.
OUTSIDE = {"model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f"}
INSIDE = {
    "input_layernorm": "norm_1",
    "post_attention_layernorm": "norm_2",
    "self_attn.o_proj": "attn.proj",
    "mlp.gate_proj": "mlp.fc_1",
    "mlp.up_proj": "mlp.fc_2",
    "mlp.down_proj": "mlp.proj",
}


class Adapter(Candidate):
    """Rotary decoders with RMS norms and a gated feed-forward."""

    title = "GPT of litgpt"
    absent: Mapping[Capability, str] = {
        "attention-mask": "its forward takes no mask",
        "position-ids": "its input_pos are slots of the cache",
    }

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        attention = spec.architecture.attention
        windowed = isinstance(attention.pattern, SlidingWindow)
        return GPT(
            Config(
                block_size=spec.max_positions,
                n_layer=spec.layers,
                n_embd=spec.hidden_size,
                vocab_size=spec.vocab_size,
                padded_vocab_size=spec.vocab_size,
                n_head=spec.heads,
                n_query_groups=spec.kv_heads,
                head_size=spec.head_dim,
                intermediate_size=spec.ffn_size,
                norm_class_name="RMSNorm",
                norm_eps=spec.architecture.normalization.eps,
                mlp_class_name="LLaMAMLP",
                parallel_residual=False,
                bias=False,
                rope_base=spec.architecture.positions.theta,
                rotary_percentage=1.0,
                sliding_window_size=attention.pattern.window if windowed else None,
            )
        )

    def load(self, model: nn.Module, weights: Weights) -> None:
        published = weights.published()
        theirs = {"lm_head.weight": published["lm_head.weight"]}
        for name, module in OUTSIDE.items():
            theirs[f"{module}.weight"] = published[f"{name}.weight"]
        for layer in range(weights.spec.layers):
            before, after = f"model.layers.{layer}", f"transformer.h.{layer}"
            for name, module in INSIDE.items():
                theirs[f"{after}.{module}.weight"] = published[f"{before}.{name}.weight"]
            parts = [published[f"{before}.self_attn.{x}_proj.weight"] for x in "qkv"]
            theirs[f"{after}.attn.qkv.weight"] = torch.cat(parts)
        model.load_state_dict(theirs)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return Outputs(logits=model(inputs.token_ids))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        """Their cache lives in the model: hang this one in, and take it out again afterwards."""
        batch, length = inputs.token_ids.shape
        attentions = [block.attn for block in model.transformer.h]
        if cache is None:
            model.set_kv_cache(batch, dtype=model.lm_head.weight.dtype)
            cache = 0, [attention.kv_cache for attention in attentions]
        start, layers = cache
        model.mask_cache = build_mask_cache(model.max_seq_length)
        for attention, layer in zip(attentions, layers, strict=True):
            attention.kv_cache = layer
        try:
            logits = model(inputs.token_ids, torch.arange(start, start + length))
        finally:
            model.clear_kv_cache()
        return Outputs(logits=logits, cache=(start + length, layers))
