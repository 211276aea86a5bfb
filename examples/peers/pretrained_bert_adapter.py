"""BERT and GPT-2 of pytorch-pretrained-bert 0.6.2, the code of 2019 that became transformers.

pip install pytorch-pretrained-bert==0.6.2
holotype check examples/peers/pretrained_bert_adapter.py:Bert --spec bert-base-uncased
holotype check examples/peers/pretrained_bert_adapter.py:GPT2 --spec gpt2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_pretrained_bert.modeling import BertConfig, BertForPreTraining
from pytorch_pretrained_bert.modeling_gpt2 import GPT2Config, GPT2LMHeadModel
from torch import nn

from holotype_conformance.models.candidate import Candidate, Capability, Inputs, Outputs
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec


class Bert(Candidate):
    """Their `BertForPreTraining`, which also judges pairs of sentences."""

    title = "BertForPreTraining of pytorch-pretrained-bert"
    absent: Mapping[Capability, str] = {"position-ids": "its forward counts positions itself"}

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        rate = spec.architecture.dropout.rate
        return BertForPreTraining(  # the epsilon of its norms is fixed at 1e-12, BERT's own
            BertConfig(
                spec.vocab_size,
                hidden_size=spec.hidden_size,
                num_hidden_layers=spec.layers,
                num_attention_heads=spec.heads,
                intermediate_size=spec.ffn_size,
                hidden_act="gelu",
                hidden_dropout_prob=rate,
                attention_probs_dropout_prob=rate,
                max_position_embeddings=spec.max_positions,
                type_vocab_size=spec.architecture.token_types,
            )
        )

    def load(self, model: nn.Module, weights: Weights) -> None:
        published = weights.published()
        published.pop("cls.predictions.decoder.bias", None)  # the later name of predictions.bias
        model.load_state_dict(published)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        logits, pairs = model(inputs.token_ids, inputs.token_types, inputs.attention_mask)
        return Outputs(logits=logits, next_sentence=pairs)


class GPT2(Candidate):
    """Their `GPT2LMHeadModel`, its cache included. It has no dropout at all."""

    title = "GPT2LMHeadModel of pytorch-pretrained-bert"
    absent: Mapping[Capability, str] = {"attention-mask": "its forward takes no mask"}

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        return GPT2LMHeadModel(
            GPT2Config(
                spec.vocab_size,
                n_positions=spec.max_positions,
                n_ctx=spec.max_positions,
                n_embd=spec.hidden_size,
                n_layer=spec.layers,
                n_head=spec.heads,
                layer_norm_epsilon=spec.architecture.normalization.eps,
            )
        )

    def load(self, model: nn.Module, weights: Weights) -> None:
        published = weights.published()
        published["lm_head.decoder.weight"] = published.pop("lm_head.weight")
        masks = {name: mask for name, mask in model.named_buffers() if name.endswith("attn.bias")}
        model.load_state_dict(published | masks)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return self.forward_cached(model, inputs, None)

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        logits, cache = model(inputs.token_ids, inputs.position_ids, past=cache)
        return Outputs(logits=logits, cache=cache)
