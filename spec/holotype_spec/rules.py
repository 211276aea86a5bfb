"""Rules between the fields of a spec, beyond the type of each.

The rules read plain trees rather than `Spec` objects, so that they also run on a file that is wrong
elsewhere and all its mistakes can be reported at once: a rule whose fields are missing or malformed is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Tree = Mapping[str, Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`holds` of the values at the paths `reads`; the last of these is the key that an error names.

    `expected` and `mend` are format strings over the values, each called by the last part of its path.
    """

    reads: tuple[str, ...]
    holds: Callable[..., bool]
    expected: str
    mend: str


STRUCTURE = "architecture.structure"
HEAD = "architecture.head.kind"
PATTERN = "architecture.attention.pattern.kind"
# Properties of a `Spec`.
WORKED_OUT = (
    "position_rows",
    "rotary_dim",
    "nope_head_dim",
    "embedding_size",
    "encoder_depth",
)
MIXTURE = "architecture.attention.pattern"
PAIR_TASKS = {
    "next-sentence": "next-sentence-prediction",
    "sentence-order": "sentence-order-prediction",
}

BLOCKS = "architecture.feed_forward"
ROUTING = f"{BLOCKS}.routing"

RULES = (
    Rule(
        reads=("head_dim", "architecture.attention.rope_head_dim"),
        holds=lambda head_dim, rope_head_dim: rope_head_dim < head_dim and rope_head_dim % 2 == 0,
        expected="an even number below head_dim ({head_dim})",
        mend="it is that part of a query's head that turns with the position, in pairs",
    ),
    Rule(
        reads=("architecture.attention.kind", "architecture.positions.fraction"),
        holds=lambda kind, fraction: kind != "latent" or fraction == 1,
        expected="1.0 in latent attention",
        mend="its rope_head_dim says how much of a head turns",
    ),
    Rule(
        reads=("architecture.attention.kind", "architecture.positions.kind"),
        holds=lambda attention, positions: attention != "latent" or positions == "rotary",
        expected='"rotary" in latent attention',
        mend="a part of its queries and keys is there for nothing else",
    ),
    Rule(
        reads=(f"{BLOCKS}.dense", f"{BLOCKS}.dense_after"),
        holds=lambda dense, dense_after: dense != "none" or not dense_after,
        expected='false where dense is "none"',
        mend="say of which kind the block behind the experts is",
    ),
    Rule(
        reads=(f"{BLOCKS}.experts", f"{BLOCKS}.active_experts"),
        holds=lambda experts, active_experts: active_experts <= experts,
        expected="at most the experts ({experts})",
        mend="a token uses so many of them",
    ),
    Rule(
        reads=(f"{BLOCKS}.first_layer", f"{BLOCKS}.every", f"{BLOCKS}.dense"),
        holds=lambda first_layer, every, dense: (
            (first_layer == 0 and every == 1) == (dense == "none")
        ),
        expected='"none" exactly where all layers have experts (first_layer 0, every 1)',
        mend="it is the block of the other layers",
    ),
    Rule(
        reads=(f"{BLOCKS}.dense", "ffn_size", f"{BLOCKS}.expert_size"),
        holds=lambda dense, ffn_size, expert_size: dense != "none" or expert_size == ffn_size,
        expected="ffn_size ({ffn_size}) where all layers have experts",
        mend="correct one of the two",
    ),
    Rule(
        reads=("layers", f"{BLOCKS}.first_layer"),
        holds=lambda layers, first_layer: first_layer < layers,
        expected="less than layers ({layers})",
        mend="it is the first layer with experts, counted from 0",
    ),
    Rule(
        reads=(f"{BLOCKS}.experts", f"{ROUTING}.groups"),
        holds=lambda experts, groups: experts % groups == 0,
        expected="a divisor of experts ({experts}), 1 without groups",
        mend="groups of experts are equally large",
    ),
    Rule(
        reads=(f"{ROUTING}.groups", f"{ROUTING}.active_groups"),
        holds=lambda groups, active_groups: active_groups <= groups,
        expected="at most the groups ({groups})",
        mend="experts are chosen from so many of them",
    ),
    Rule(
        reads=(
            "architecture.positions.scaling.beta_fast",
            "architecture.positions.scaling.beta_slow",
        ),
        holds=lambda beta_fast, beta_slow: beta_slow < beta_fast,
        expected="less than beta_fast ({beta_fast})",
        mend="pairs that turn more often than the one are fast, less often than the other slow",
    ),
    Rule(
        reads=("architecture.objective", HEAD),
        holds=lambda objective, kind: (
            ("multi-token-prediction" in objective) == (kind == "multi-token")
        ),
        expected='"multi-token" exactly where the objective has "multi-token-prediction"',
        mend="correct the head or the objective",
    ),
    Rule(
        reads=("heads", "kv_heads"),
        holds=lambda heads, kv_heads: heads % kv_heads == 0,
        expected="a divisor of heads ({heads})",
        mend="as many query heads share each key-value head",
    ),
    Rule(
        reads=("architecture.attention.head_dim", "hidden_size", "heads", "head_dim"),
        holds=lambda kind, hidden_size, heads, head_dim: (
            kind == "independent" or heads * head_dim == hidden_size
        ),
        expected="hidden_size / heads ({hidden_size} / {heads})",
        mend='correct one of the three, or write architecture.attention.head_dim = "independent"',
    ),
    Rule(
        reads=("architecture.feed_forward.size", "hidden_size", "ffn_size"),
        holds=lambda kind, hidden_size, ffn_size: (
            kind == "independent" or ffn_size == 4 * hidden_size
        ),
        expected="4 * hidden_size (4 * {hidden_size})",
        mend='correct it, or write architecture.feed_forward.size = "independent"',
    ),
    Rule(
        reads=("architecture.positions.fraction", "head_dim"),
        holds=lambda fraction, head_dim: (head_dim * fraction) % 2 == 0,
        expected="an even number of dimensions that turn ({fraction} of them)",
        mend="rotary positions turn the dimensions of a head in pairs",
    ),
    Rule(
        reads=(
            "architecture.positions.scaling.low_freq_factor",
            "architecture.positions.scaling.high_freq_factor",
        ),
        holds=lambda low_freq_factor, high_freq_factor: low_freq_factor < high_freq_factor,
        expected="more than low_freq_factor ({low_freq_factor})",
        mend="pairs that turn more often than the one and less often than the other go over between",
    ),
    Rule(
        reads=("architecture.positions.buckets", "architecture.positions.max_distance"),
        holds=lambda buckets, max_distance: max_distance > buckets // 2,
        expected="more than half the buckets ({buckets} / 2)",
        mend="the other half is spread over the distances from there to max_distance",
    ),
    Rule(
        reads=(STRUCTURE, PATTERN),
        holds=lambda structure, kind: (
            (structure == "encoder") == (kind in ("bidirectional", "permutation", "mixture"))
        ),
        expected='"bidirectional", "permutation" or "mixture" in an encoder, "causal" or "sliding-window" in a decoder'
        " (this is: {structure})",
        mend="the pattern is that of the stack that writes the logits",
    ),
    Rule(
        reads=(STRUCTURE, HEAD),
        holds=lambda structure, kind: (
            structure == "encoder" or kind in ("language-model", "multi-token")
        ),
        expected='"language-model" or "multi-token" in a decoder (this is: {structure})',
        mend="correct the head or the structure",
    ),
    Rule(
        reads=("architecture.residual", "architecture.normalization.final"),
        holds=lambda residual, final: not (residual in ("post-norm", "deep-norm") and final),
        expected="false under {residual}",
        mend="every block ends in a norm already",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.objective"),
        holds=lambda structure, objective: ("causal-lm" in objective) <= (structure == "decoder"),
        expected='no "causal-lm" but in a decoder (this is: {structure})',
        mend="correct the objective or the structure",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.objective"),
        holds=lambda structure, objective: ("masked-lm" in objective) <= (structure == "encoder"),
        expected='no "masked-lm" but in an encoder (this is: {structure})',
        mend="correct the objective or the structure",
    ),
    Rule(
        reads=("architecture.objective", "architecture.head.sentence_pair"),
        holds=lambda objective, sentence_pair: (
            {"next-sentence-prediction", "sentence-order-prediction"} & set(objective)
            == {PAIR_TASKS.get(sentence_pair)} - {None}
        ),
        expected='"next-sentence" or "sentence-order" exactly where the objective has their prediction',
        mend="correct the head or the objective",
    ),
    Rule(
        reads=("architecture.objective", PATTERN),
        holds=lambda objective, kind: ("permutation-lm" in objective) == (kind == "permutation"),
        expected='"permutation" exactly where the objective has "permutation-lm"',
        mend="correct the pattern or the objective",
    ),
    Rule(
        reads=(
            f"{MIXTURE}.bidirectional",
            f"{MIXTURE}.left_to_right",
            f"{MIXTURE}.right_to_left",
            f"{MIXTURE}.sequence_to_sequence",
        ),
        holds=lambda *shares: math.isclose(sum(shares), 1, abs_tol=1e-6),
        expected="four shares that sum to 1",
        mend="correct one of them",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.encoder_layers"),
        holds=lambda structure, layers: (structure == "encoder-decoder") == (layers != "none"),
        expected='a number or "as-decoder" in an encoder-decoder, "none" elsewhere (this is: {structure})',
        mend="the layers of the stack that writes the logits are called layers",
    ),
    Rule(
        reads=("architecture.positions.terms",),
        holds=lambda terms: 0 < len(set(terms)) == len(terms),
        expected="one or two terms, each once",
        mend="delete the repetition, or name one",
    ),
    Rule(
        reads=("architecture.objective",),
        holds=lambda objective: len(set(objective)) == len(objective),
        expected="each objective once",
        mend="delete the repetition",
    ),
    Rule(
        reads=(STRUCTURE, "architecture.decoder_start_id"),
        holds=lambda structure, start: (structure == "encoder-decoder") == (start != "none"),
        expected='a token id in an encoder-decoder, "none" elsewhere (this is: {structure})',
        mend="it is the token that a decoder with a source reads first",
    ),
    Rule(
        reads=("vocab_size", "architecture.decoder_start_id"),
        holds=lambda vocab_size, start: isinstance(start, str) or start < vocab_size,
        expected="less than vocab_size ({vocab_size})",
        mend="it is one of the tokens",
    ),
    Rule(
        reads=("vocab_size", "architecture.padding_id"),
        holds=lambda vocab_size, padding: padding == "none" or padding < vocab_size,
        expected="less than vocab_size ({vocab_size})",
        mend="it is one of the tokens",
    ),
    Rule(
        reads=("architecture.dropout.rate", "architecture.dropout.sites"),
        holds=lambda rate, sites: (rate > 0) == (len(sites) > 0),
        expected="sites exactly where the rate is above 0 (it is {rate})",
        mend="correct the rate or the sites",
    ),
    Rule(
        reads=("architecture.dropout.sites",),
        holds=lambda sites: len(set(sites)) == len(sites),
        expected="each site once",
        mend="delete the repetition",
    ),
    Rule(
        reads=("architecture.dropout.sites",),
        holds=lambda sites: not {"residual", "feed-forward-output"} <= set(sites),
        expected='no "feed-forward-output" beside "residual", which has it in it',
        mend="delete one of the two",
    ),
    Rule(
        reads=("architecture.dropout.sites",),
        holds=lambda sites: not {"residual", "attention-output"} <= set(sites),
        expected='no "attention-output" beside "residual", which has it in it',
        mend="delete one of the two",
    ),
    Rule(
        reads=("architecture.attention.biases",),
        holds=lambda biases: len(set(biases)) == len(biases),
        expected="each projection once",
        mend="delete the repetition",
    ),
)
