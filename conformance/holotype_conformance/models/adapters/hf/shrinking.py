"""Any configuration of Hugging Face `transformers` made small, by what its fields are customarily called.

Nothing here knows a class by name: a field is known by its own name, whichever class has it. What is not known keeps
the default of its class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from holotype_spec.field_names import FIELD_NAMES
from holotype_spec.schema import Spec

WIDE_OPEN = 4096  # a window that no probe reaches: a generic spec promises the whole past


class Sizes(NamedTuple):
    """The arguments of one attempt at a small model."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    ffn_size: int
    max_positions: int
    vocab_size: int
    dropout: float


# Beside the names of `FIELD_NAMES`, which are those of models in the catalogue.
MORE_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("encoder_layers", "decoder_layers", "num_encoder_layers", "num_blocks"),
    "hidden_size": (
        "n_embed",
        "emb_dim",
        "embedding_dim",
        "embedding_size",
        "attention_hidden_size",
        "input_embedding_size",
        "output_embedding_size",
        "hidden_size_per_layer_input",
        "lru_width",
        "pronunciation_embed_dim",
        "shape_embed_dim",
        "backbone_hidden_size",
    ),
    "heads": (
        "mamba_n_heads",
        "mamba_num_heads",
        "n_mamba_heads",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "num_encoder_attention_heads",
        "num_decoder_attention_heads",
        "swa_num_attention_heads",
        "attention_heads",
    ),
    "kv_heads": ("num_kv_heads", "swa_num_key_value_heads", "num_query_groups"),
    "head_dim": (
        "d_head",
        "dim_head",
        "attention_head_size",
        "swa_head_dim",
        "global_head_dim",
        "kv_channels",
        "rotary_dim",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "mamba_d_head",
        "mamba_head_dim",
        "mamba_headdim",
        "v_head_dim",
        "query_pre_attn_scalar",
    ),
    "ffn_size": (
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "ffn_hidden_size",
        "feed_forward_size",
        "expert_ffn_hidden_size",
        "d_inner",
        "dff",
        "dim_ff",
        "moe_intermediate_size",
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_experts_intermediate_size",
        "intermediate_size_mlp",
        "dense_intermediate_size",
    ),
    "max_positions": ("max_seq_len", "model_max_length", "context_length", "max_target_positions"),
    "vocab_size": (
        "decoder_vocab_size",
        "vocab_size_per_layer_input",
        "unpadded_vocab_size",
        "pronunciation_vocab_size",
        "shape_vocab_size",
    ),
}

# What has no counterpart in a generic spec, and is as large as it need be to be there at all.
SMALL: dict[str, int] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "state_size": 8,
    "ssm_state_size": 8,
    "mamba_d_state": 8,
    "mamba_dt_rank": 4,
    "mamba_n_groups": 1,
    "n_groups": 1,
    "expand": 1,
    "mamba_expand": 1,
    "mamba_ngroups": 1,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "sliding_window": WIDE_OPEN,
    "window_size": WIDE_OPEN,
    "local_attention": WIDE_OPEN,
    "attention_window_size": WIDE_OPEN,
    "attention_chunk_size": WIDE_OPEN,
}

# What some classes leave to be filled in, and cannot be built without.
FILLED_IN: dict[str, Any] = {
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "axial_pos_embds": False,  # tables as large as the longest input, of which none is meant here
    "hash_seed": 0,  # else an evaluation draws random numbers, as documented
}

# The padding token of the generic specs is 0; other tokens with a meaning of their own must exist, and no more.
SPECIAL_IDS = {
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "sep_token_id": 1,
    "cls_token_id": 1,
    "mask_token_id": 1,
    "image_token_id": 1,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}


def attempts(spec: Spec) -> Iterator[Sizes]:
    """Sizes to try, the spec's own first; then rounder ones, because some classes bear no others."""
    shapes = [
        (spec.heads, spec.kv_heads, spec.head_dim, spec.ffn_size),
        (4, 4, 8, 64),
        (4, 2, 16, 64),
        (4, 4, 32, 128),
        (8, 8, 64, 256),
    ]
    rate = spec.architecture.dropout.rate
    least = max(
        spec.layers, 2
    )  # a single one may lack the attention that a hybrid's cache asks for
    for layers, dropout in ((least, rate), (least, 0), (4, rate)):
        for heads, kv_heads, head_dim, ffn_size in shapes:
            yield Sizes(
                layers=layers,
                heads=heads,
                kv_heads=kv_heads,
                head_dim=head_dim,
                hidden_size=heads * head_dim,
                ffn_size=ffn_size,
                max_positions=spec.max_positions + 2,  # some tables have rows before the first
                vocab_size=spec.vocab_size,
                dropout=dropout,
            )


def small(defaults: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The arguments that make a configuration with these defaults small."""
    named = _by_name()
    told: dict[str, Any] = {}
    for key, value in defaults.items():
        if key in SPECIAL_IDS:
            told[key] = SPECIAL_IDS[key]
        elif "dropout" in key or key.endswith("pdrop"):
            told |= {key: sizes.dropout} if isinstance(value, float | int) else {}
        elif key in FILLED_IN:
            told[key] = FILLED_IN[key]
        elif key in SMALL:
            told |= {key: SMALL[key]} if value is not None else {}
        elif key in named and _tells_a_size(key, value):
            told[key] = getattr(sizes, named[key])
    return told | _lists(defaults, sizes.layers)


def _tells_a_size(key: str, value: object) -> bool:
    """A width that is None follows from others and is left to, and one that is 0 is not there."""
    never_follows = key in ("num_key_value_heads", "head_dim", "moe_intermediate_size")
    return (
        value != 0 and not isinstance(value, bool | list) and (value is not None or never_follows)
    )


def _by_name() -> dict[str, str]:
    known = {
        name: row.field
        for row in FIELD_NAMES
        if row.field in Sizes._fields
        for name in row.transformers
    }
    return known | {name: field for field, names in MORE_NAMES.items() for name in names}


def _lists(defaults: dict[str, Any], layers: int) -> dict[str, Any]:
    """A list with an entry a layer, cut to so many, each kind of layer in turn."""
    counts = [defaults.get(name) for name in _by_name() if _by_name()[name] == "layers"]
    found = {}
    for key, value in defaults.items():
        if isinstance(value, list) and len(value) in counts:
            kinds = list(dict.fromkeys(map(str, value)))
            one_of_each = [next(each for each in value if str(each) == kind) for kind in kinds]
            found[key] = [one_of_each[layer % len(kinds)] for layer in range(layers)]
    if "attention_types" in defaults:  # [[kinds, how often they are repeated], …]
        kinds = [kind for group, _ in defaults["attention_types"] for kind in group]
        found["attention_types"] = [[[kinds[layer % len(kinds)] for layer in range(layers)], 1]]
    if defaults.get("languages") and "default_language" in defaults:
        found["default_language"] = defaults["languages"][0]
    return found
