"""The names of our fields in other projects: one table, so that a reader of theirs finds ours.

Keys of Hugging Face `transformers` are those of its configuration classes, GGUF's those of its metadata
(after the name of the architecture: "llama.block_count"), LitGPT's those of its `Config`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple


class FieldNames(NamedTuple):
    """One field of ours, by its path in a `Spec`, and its names elsewhere."""

    field: str
    transformers: tuple[str, ...] = ()
    gguf: tuple[str, ...] = ()
    litgpt: tuple[str, ...] = ()


FIELD_NAMES = (
    FieldNames(
        "layers",
        transformers=(
            "num_hidden_layers",
            "n_layer",
            "n_layers",
            "num_layers",
            "num_decoder_layers",
            "decoder_layers",
        ),
        gguf=("block_count",),
        litgpt=("n_layer",),
    ),
    FieldNames("encoder_depth", transformers=("encoder_layers",)),
    FieldNames(
        "hidden_size",
        transformers=("hidden_size", "n_embd", "n_embed", "d_model", "dim", "emb_dim"),
        gguf=("embedding_length",),
        litgpt=("n_embd",),
    ),
    FieldNames("embedding_size", transformers=("embedding_size", "word_embed_proj_dim")),
    FieldNames(
        "heads",
        transformers=(
            "num_attention_heads",
            "n_head",
            "n_heads",
            "num_heads",
            "encoder_attention_heads",
            "decoder_attention_heads",
        ),
        gguf=("attention.head_count",),
        litgpt=("n_head",),
    ),
    FieldNames(
        "kv_heads",
        transformers=("num_key_value_heads",),
        gguf=("attention.head_count_kv",),
        litgpt=("n_query_groups",),
    ),
    FieldNames(
        "head_dim",
        transformers=("head_dim", "d_kv", "d_head"),
        gguf=("attention.key_length", "attention.value_length"),
        litgpt=("head_size",),
    ),
    FieldNames(
        "ffn_size",
        transformers=(
            "intermediate_size",
            "n_inner",
            "d_ff",
            "hidden_dim",
            "ffn_dim",
            "d_inner",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
        ),
        gguf=("feed_forward_length",),
        litgpt=("intermediate_size",),
    ),
    FieldNames(
        "vocab_size", transformers=("vocab_size",), gguf=("vocab_size",), litgpt=("vocab_size",)
    ),
    FieldNames(
        "max_positions",
        transformers=("max_position_embeddings", "n_positions", "n_ctx"),
        gguf=("context_length",),
        litgpt=("block_size",),
    ),
    FieldNames(
        "architecture.attention.pattern.window",
        transformers=("sliding_window",),
        gguf=("attention.sliding_window",),
        litgpt=("sliding_window_size",),
    ),
    FieldNames(
        "architecture.positions.theta",
        transformers=("rope_parameters.rope_theta", "rope_theta"),
        gguf=("rope.freq_base",),
        litgpt=("rope_base",),
    ),
    FieldNames(
        "architecture.positions.scaling.factor",
        transformers=("rope_parameters.factor", "rope_scaling.factor"),
        gguf=("rope.scaling.factor",),
        litgpt=("rope_adjustments.factor",),
    ),
    FieldNames(
        "architecture.positions.scaling.low_freq_factor",
        transformers=("rope_parameters.low_freq_factor", "rope_scaling.low_freq_factor"),
        litgpt=("rope_adjustments.low_freq_factor",),
    ),
    FieldNames(
        "architecture.positions.scaling.high_freq_factor",
        transformers=("rope_parameters.high_freq_factor", "rope_scaling.high_freq_factor"),
        litgpt=("rope_adjustments.high_freq_factor",),
    ),
    FieldNames(
        "architecture.positions.scaling.original_max_positions",
        transformers=(
            "rope_parameters.original_max_position_embeddings",
            "rope_scaling.original_max_position_embeddings",
        ),
        gguf=("rope.scaling.original_context_length",),
        litgpt=("rope_adjustments.original_max_seq_len",),
    ),
    FieldNames(
        "architecture.positions.scaling.beta_fast",
        transformers=("rope_parameters.beta_fast", "rope_scaling.beta_fast"),
        gguf=("rope.scaling.yarn_beta_fast",),
    ),
    FieldNames(
        "architecture.positions.scaling.beta_slow",
        transformers=("rope_parameters.beta_slow", "rope_scaling.beta_slow"),
        gguf=("rope.scaling.yarn_beta_slow",),
    ),
    FieldNames(
        "architecture.positions.scaling.mscale",
        transformers=("rope_parameters.mscale", "rope_scaling.mscale"),
    ),
    FieldNames(
        "architecture.positions.scaling.mscale_all_dim",
        transformers=("rope_parameters.mscale_all_dim", "rope_scaling.mscale_all_dim"),
    ),
    FieldNames(
        "architecture.positions.fraction",
        transformers=("rope_parameters.partial_rotary_factor", "partial_rotary_factor"),
        litgpt=("rotary_percentage",),
    ),
    FieldNames(
        "rotary_dim",
        transformers=("rotary_dim", "qk_rope_head_dim"),
        gguf=("rope.dimension_count",),
        litgpt=("latent_attention.qk_rope_head_dim",),
    ),
    FieldNames(
        "nope_head_dim",
        transformers=("qk_nope_head_dim",),
        litgpt=("latent_attention.qk_nope_head_dim",),
    ),
    FieldNames(
        "architecture.attention.value_head_dim",
        transformers=("v_head_dim",),
        litgpt=("latent_attention.v_head_dim",),
    ),
    FieldNames(
        "architecture.attention.query_rank",
        transformers=("q_lora_rank",),
        gguf=("attention.q_lora_rank",),
        litgpt=("latent_attention.q_lora_rank",),
    ),
    FieldNames(
        "architecture.attention.kv_rank",
        transformers=("kv_lora_rank",),
        gguf=("attention.kv_lora_rank",),
        litgpt=("latent_attention.kv_lora_rank",),
    ),
    FieldNames(
        "architecture.feed_forward.experts",
        transformers=("num_local_experts", "n_routed_experts", "num_experts"),
        gguf=("expert_count",),
        litgpt=("n_expert",),
    ),
    FieldNames(
        "architecture.feed_forward.active_experts",
        transformers=("num_experts_per_tok",),
        gguf=("expert_used_count",),
        litgpt=("n_expert_per_token",),
    ),
    FieldNames(
        "architecture.feed_forward.shared_experts",
        transformers=("n_shared_experts",),
        gguf=("expert_shared_count",),
        litgpt=("n_shared_expert",),
    ),
    FieldNames(
        "architecture.feed_forward.expert_size",
        transformers=("moe_intermediate_size",),
        gguf=("expert_feed_forward_length",),
        litgpt=("moe_intermediate_size",),
    ),
    FieldNames(
        "architecture.feed_forward.first_layer",
        transformers=("first_k_dense_replace",),
        gguf=("leading_dense_block_count",),
        litgpt=("first_k_dense_replace",),
    ),
    FieldNames(
        "architecture.feed_forward.routing.normalised",
        transformers=("norm_topk_prob",),
        gguf=("expert_weights_norm",),
        litgpt=("norm_topk_prob",),
    ),
    FieldNames(
        "architecture.feed_forward.routing.factor",
        transformers=("routed_scaling_factor",),
        gguf=("expert_weights_scale",),
        litgpt=("routed_scaling_factor",),
    ),
    FieldNames(
        "architecture.feed_forward.routing.groups",
        transformers=("n_group",),
        gguf=("expert_group_count",),
        litgpt=("n_expert_groups",),
    ),
    FieldNames(
        "architecture.feed_forward.routing.active_groups",
        transformers=("topk_group",),
        gguf=("expert_group_used_count",),
        litgpt=("n_topk_groups",),
    ),
    FieldNames(
        "architecture.head.depth",
        transformers=("num_nextn_predict_layers",),
        gguf=("nextn_predict_layers",),
    ),
    FieldNames(
        "architecture.positions.buckets",
        transformers=("relative_attention_num_buckets",),
        gguf=("attention.relative_buckets_count",),
    ),
    FieldNames(
        "architecture.positions.max_distance",
        transformers=("relative_attention_max_distance", "max_relative_positions"),
    ),
    FieldNames(
        "architecture.normalization.eps",
        transformers=("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
        gguf=("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"),
        litgpt=("norm_eps",),
    ),
    FieldNames(
        "architecture.feed_forward.activation",
        transformers=(
            "hidden_act",
            "activation_function",
            "activation",
            "feed_forward_proj",
            "ff_activation",
        ),
    ),
    FieldNames("architecture.feed_forward.bias", transformers=("mlp_bias", "enable_bias")),
    FieldNames(
        "architecture.decoder_start_id",
        transformers=("decoder_start_token_id",),
        gguf=("decoder_start_token_id",),
    ),
    FieldNames(
        "architecture.padding_id",
        transformers=("pad_token_id",),
        gguf=("tokenizer.ggml.padding_token_id",),
    ),
    FieldNames("architecture.token_types", transformers=("type_vocab_size",)),
    FieldNames("architecture.tied_embeddings", transformers=("tie_word_embeddings",)),
    FieldNames(
        "architecture.dropout.rate",
        transformers=(
            "dropout_rate",
            "dropout",
            "hidden_dropout_prob",
            "hidden_dropout",
            "attention_probs_dropout_prob",
            "attention_dropout",
            "activation_dropout",
            "resid_pdrop",
            "embd_pdrop",
            "attn_pdrop",
        ),
    ),
)


def ours(name: str) -> str | None:
    """The path of our field that another project calls `name`, or None."""
    return _by_name().get(name)


@cache
def _by_name() -> dict[str, str]:
    return {
        name: row.field
        for row in FIELD_NAMES
        for name in (*row.transformers, *row.gguf, *row.litgpt)
    }
