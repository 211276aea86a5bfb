"""Exact parameter counts: against totals known elsewhere, hand-worked components, and transformers itself."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from holotype_spec import Spec, complete, count_parameters, load, originals, parameter_table

# Counted on the released weights by others (transformers' model cards and `num_parameters`).
TOTALS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "bert-base-uncased": 110_106_428,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "llama-7b": 6_738_415_616,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "mistral-7b-v0.1": 7_241_732_096,
    "distilbert-base-uncased": 66_985_530,
    "roberta-base": 124_697_433,
    "roberta-large": 355_412_057,
    "gpt-1": 116_534_784,
    "opt-125m": 125_239_296,
    "opt-1.3b": 1_315_758_080,
    "opt-2.7b": 2_651_596_800,
    "opt-6.7b": 6_658_473_984,
    "opt-13b": 12_853_473_280,
    "opt-30b": 29_974_540_288,
    "t5-v1_1-small": 76_961_152,
    "t5-v1_1-base": 247_577_856,
    "t5-v1_1-large": 783_150_080,
    "flan-t5-xl": 2_849_757_184,
    "t0-11b": 11_135_332_352,
    "mt5-small": 300_176_768,
    "mt5-base": 582_401_280,
    "mt5-large": 1_229_581_312,
    "mt5-xl": 3_742_619_648,
    "mt5-xxl": 12_921_057_280,
    "llama3.1-8b": 8_030_261_248,
    "llama3.1-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "mistral-7b-v0.3": 7_248_023_552,
    "codellama-7b": 6_738_546_688,
    "codellama-34b": 33_743_970_304,
    "yi-6b": 6_061_035_520,
    "yi-34b": 34_388_917_248,
    "deepseek-llm-7b": 6_910_365_696,
    "bloom-560m": 559_214_592,
    "bloom-1b1": 1_065_314_304,
    "bloom-1b7": 1_722_408_960,
    "bloom-3b": 3_002_557_440,
    "bloom-7b1": 7_069_016_064,
    "bloom-176b": 176_247_271_424,
    "opt-350m": 331_196_416,
    "codellama-70b": 68_976_910_336,
    "baichuan-7b": 7_000_559_616,
    "baichuan-13b": 13_264_901_120,
    "qwen-7b": 7_721_324_544,
    "qwen-14b": 14_167_290_880,
    "qwen-72b": 72_287_920_128,
    "chatglm-6b": 6_173_286_400,
    "chatglm2-6b": 6_243_584_000,
    "chatglm3-6b": 6_243_584_000,
    "glm-4-9b": 9_399_951_360,
    "yi-9b": 8_829_407_232,
    "gpt-j-6b": 6_050_882_784,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v2-lite": 15_706_484_224,
    "qwen1.5-1.8b": 1_836_828_672,
    "qwen1.5-4b": 3_950_369_280,
    "qwen1.5-110b": 111_209_914_368,
    "qwen2-0.5b": 494_032_768,
    "qwen2-7b": 7_615_616_512,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-72b": 72_706_203_648,
}


@pytest.mark.parametrize(("name", "total"), TOTALS.items())
def test_the_total_is_that_of_the_released_weights(name: str, total: int) -> None:
    assert count_parameters(load(name)).total == total


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("bert-base-uncased", 109_482_240),
        ("bert-large-uncased", 335_141_888),
        ("bert-base-cased", 108_310_272),
        ("bert-large-cased", 333_579_264),
        ("gpt2", 124_439_808),
        # AlbertModel, ElectraModel, DebertaModel, XLNetModel of transformers.
        ("albert-base-v2", 11_683_584),
        ("albert-xxlarge-v2", 222_595_584),
        ("electra-base-discriminator", 108_891_648),
        ("electra-large-discriminator", 334_092_288),
        ("deberta-base", 138_601_728),
        ("xlnet-base-cased", 116_718_336),
    ],
)
def test_the_backbone_leaves_out_what_only_the_heads_own(name: str, backbone: int) -> None:
    assert count_parameters(load(name)).backbone == backbone


def test_an_untied_output_matrix_belongs_to_the_head() -> None:
    counts = count_parameters(load("llama-7b"))
    assert counts.components["head"] == 32_000 * 4096
    assert counts.backbone == counts.total - 32_000 * 4096


def test_the_components_of_gpt2_are_those_worked_by_hand() -> None:
    d = 768
    assert count_parameters(load("gpt2")).components == {
        "token embeddings": 50_257 * d,
        "position embeddings": 1024 * d,
        "self-attention": 12 * (4 * d * d + 4 * d),
        "norms": 12 * 4 * d + 2 * d,
        "feed-forward": 12 * (8 * d * d + 5 * d),
    }


def test_the_components_of_llama2_70b_are_those_worked_by_hand() -> None:
    d, kv, f = 8192, 8 * 128, 28_672
    assert count_parameters(load("llama2-70b")).components == {
        "token embeddings": 32_000 * d,
        "self-attention": 80 * (2 * d * d + 2 * d * kv),
        "norms": 80 * 2 * d + d,
        "feed-forward": 80 * 3 * d * f,
        "head": 32_000 * d,
    }


def test_a_token_more_costs_alpaca_a_row_of_each_of_its_two_tables() -> None:
    more = count_parameters(load("alpaca-7b")).total - count_parameters(load("llama-7b")).total
    assert more == 2 * 4096


def test_a_token_of_mixtral_uses_two_of_eight_experts_and_all_else() -> None:
    counts = count_parameters(load("mixtral-8x7b"))
    expert = 3 * 4096 * 14_336
    assert counts.components["experts"] == 32 * 8 * expert
    assert counts.active == counts.total - 32 * 6 * expert


def test_only_experts_are_ever_left_idle() -> None:
    for spec in map(load, originals()):
        counts = count_parameters(spec)
        assert (counts.active < counts.total) == ("experts" in counts.components)


def test_the_components_of_deepseek_v3_are_those_worked_by_hand() -> None:
    d, heads, expert = 7168, 128, 3 * 7168 * 2048
    queries = d * 1536 + 1536 + 1536 * heads * (128 + 64)
    keys_values = d * (512 + 64) + 512 + 512 * heads * (128 + 128)
    attention = queries + keys_values + heads * 128 * d
    counts = count_parameters(load("deepseek-v3"))
    assert counts.components == {
        "token embeddings": 129_280 * d,
        "self-attention": 61 * attention,
        "norms": (61 * 2 + 1) * d,
        "feed-forward": 3 * 3 * d * 18_432,
        "router": 58 * 256 * d,
        "experts": 58 * 256 * expert,
        "shared experts": 58 * expert,
        "head": 129_280 * d,
    }
    # A module for the token after the next one: three norms, a matrix from two vectors to one, and a layer.
    layer = attention + 2 * d + 256 * d + 257 * expert
    assert counts.apart == {"multi-token prediction": 3 * d + 2 * d * d + layer}
    assert counts.active == counts.total - 58 * 248 * expert


def test_the_components_of_t5_3b_are_those_worked_by_hand() -> None:
    d, inner = 1024, 32 * 128
    assert count_parameters(load("t5-3b")).components == {
        "token embeddings": 32_128 * d,
        "relative position biases": 2 * 32 * 32,
        "self-attention": 2 * 24 * 4 * d * inner,
        "cross-attention": 24 * 4 * d * inner,
        "norms": (24 * 2 + 1) * d + (24 * 3 + 1) * d,
        "feed-forward": 2 * 24 * 2 * d * 16_384,
    }


def test_the_components_of_bert_base_are_those_worked_by_hand() -> None:
    d = 768
    assert count_parameters(load("bert-base")).components == {
        "token embeddings": 30_522 * d,
        "position embeddings": 512 * d,
        "token-type embeddings": 2 * d,
        "norms": 2 * d + 12 * 4 * d,
        "self-attention": 12 * (4 * d * d + 4 * d),
        "feed-forward": 12 * (8 * d * d + 5 * d),
        "pooler": d * d + d,
        "head": (2 * d + 2) + (d * d + d) + 2 * d + 30_522,
    }


def test_the_components_of_albert_base_are_those_worked_by_hand() -> None:
    d, e = 768, 128
    assert count_parameters(load("albert-base-v2")).components == {
        "token embeddings": 30_000 * e,
        "position embeddings": 512 * e,
        "token-type embeddings": 2 * e,
        "embedding projection": d * e + d,
        "norms": 2 * e + 4 * d,
        "self-attention": 4 * d * d + 4 * d,
        "feed-forward": 8 * d * d + 5 * d,
        "pooler": d * d + d,
        "head": (2 * d + 2) + (d * e + e) + 2 * e + 30_000,
    }


def test_the_components_of_transformer_base_are_those_worked_by_hand() -> None:
    d, f = 512, 2048
    assert count_parameters(load("transformer-base")).components == {
        "token embeddings": 37_000 * d,
        "self-attention": 12 * 4 * d * d,
        "cross-attention": 6 * 4 * d * d,
        "norms": (6 * 2 + 6 * 3) * 2 * d,
        "feed-forward": 12 * (2 * d * f + f + d),
    }


def test_the_components_of_st_moe_are_those_worked_by_hand() -> None:
    d, f, inner = 5120, 20_480, 64 * 128
    counts = count_parameters(load("st-moe-32b"))
    assert counts.components == {
        "token embeddings": 32_128 * d,
        "relative position biases": 2 * 32 * 64,
        "self-attention": 48 * 4 * d * inner,
        "cross-attention": 24 * 4 * d * inner,
        "norms": (24 * 2 + 6 + 1) * d + (24 * 3 + 6 + 1) * d,
        "router": 12 * 64 * d,
        "experts": 12 * 64 * 3 * d * f,
        # The layers without experts, and a block behind each layer of experts.
        "feed-forward": (36 + 12) * 3 * d * f,
        "head": 32_128 * d,
    }
    assert counts.total - counts.active == 12 * 62 * 3 * d * f


def test_the_stacks_of_alexatm_are_counted_apart() -> None:
    d = 4096
    components = count_parameters(load("alexatm-20b")).components
    assert components["self-attention"] == (46 + 32) * (4 * d * d + 4 * d)
    assert components["cross-attention"] == 32 * (4 * d * d + 4 * d)
    assert components["token-type embeddings"] == 2 * d
    assert components["position embeddings"] == 2 * 1026 * d


def test_the_components_of_xlnet_base_are_those_worked_by_hand() -> None:
    d = 768
    assert count_parameters(load("xlnet-base-cased")).components == {
        "token embeddings": 32_000 * d,
        "query stream": d,
        "self-attention": 12 * 4 * d * d,
        "relative positions": 12 * (d * d + 3 * d + 2 * d),
        "norms": 12 * 4 * d,
        "feed-forward": 12 * (8 * d * d + 5 * d),
        "head": 32_000,
    }


def test_the_depth_of_a_model_that_shares_its_layers_does_not_change_its_count() -> None:
    deep = load("albert-xlarge-v2")
    assert count_parameters(deep) == count_parameters(msgspec.structs.replace(deep, layers=12))


@pytest.mark.parametrize("name", [spec.name for spec in complete()])
def test_the_counts_are_the_sums_over_the_table(name: str) -> None:
    spec = load(name)
    table = parameter_table(spec)
    counts = count_parameters(spec)
    assert counts.total == sum(parameter.size for parameter in table)
    assert counts.backbone == sum(parameter.size for parameter in table if parameter.backbone)
    assert len({parameter.name for parameter in table}) == len(table)


def has_shapes_of_its_own(spec: Spec) -> bool:
    parent = spec.derives_from and load(spec.derives_from)
    return not parent or count_parameters(spec) != count_parameters(parent)


WITH_CLASS = [
    spec.name
    for spec in complete()
    if spec.family.transformers != "none" and has_shapes_of_its_own(spec)
]

# transformers ----------------------------------------------------------------------------------------------


def _configuration(spec: Spec) -> dict[str, Any]:
    told = spec.family.transformers
    assert told != "none"
    values = {key: _field(spec, path) for key, path in told.fields.items()} | told.constants
    values |= dict.fromkeys(told.absent)
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *tables, last = key.split(".")
        table = nested
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return nested


def _field(spec: Spec, path: str) -> Any:
    value: Any = spec
    for name in path.split("."):
        value = getattr(value, name)
    return value


# transformers 5 ties these whatever the configuration says; its loading of the published files unties them.
FORCED = ("t5-v1_1", "mt5")

# What their class leaves out: the absolute positions that only the mask decoder of DeBERTa adds.
LEFT_OUT = {"deberta": ("head.position.weight",)}


def _left_out(spec: Spec) -> int:
    names = LEFT_OUT.get(spec.family.name, ())
    return sum(parameter.size for parameter in parameter_table(spec) if parameter.name in names)


def _built(spec: Spec) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    told = spec.family.transformers
    assert told != "none"
    config = getattr(transformers, told.config_class)(**_configuration(spec))
    with torch.device("meta"):
        model = getattr(transformers, told.model_class)(config)
    if spec.family.name in FORCED:
        assert model.lm_head.weight is model.shared.weight, "no longer forced: delete the exception"
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


@pytest.mark.parametrize("name", WITH_CLASS)
@pytest.mark.parametrize("scale", ["full", "probe"])
@pytest.mark.slow
def test_the_class_of_transformers_has_as_many_parameters(name: str, scale: str) -> None:
    spec = load(name) if scale == "full" else load(name).probe()
    model = _built(spec)
    # Module.parameters() gives a tied parameter once, and no buffers.
    theirs = sum(p.numel() for p in model.parameters())
    assert theirs == count_parameters(spec).total - _left_out(spec)


def _components_of_theirs(model: Any) -> Iterator[tuple[str, int]]:
    marks = (
        ("norms", ("word_embeddings_layernorm",)),
        (
            "embedding projection",
            ("embedding_hidden_mapping_in", "embeddings_project", "project_in"),
        ),
        ("head", ("project_out",)),
        ("query stream", ("mask_emb",)),
        ("relative position embeddings", ("rel_embeddings",)),
        (
            "relative positions",
            ("pos_proj", "pos_q_proj", "rel_attn.r", "seg_embed"),
        ),
        ("self-attention", ("q_a_layernorm", "kv_a_layernorm")),
        ("router", ("mlp.gate.weight",)),
        ("shared experts", ("shared_experts",)),
        ("experts", ("mlp.experts",)),
        ("token-type embeddings", ("token_type_embeddings",)),
        (
            "position embeddings",
            ("position_embeddings", "wpe", "positions_embed", "embed_positions"),
        ),
        (
            "token embeddings",
            (
                "word_embedding",
                "wte",
                "embed_tokens",
                "tokens_embed",
                "shared",
                ".embeddings.weight",
            ),
        ),
        ("relative position biases", ("relative_attention_bias",)),
        ("head", ("cls.", "lm_head", "vocab_", "predictions", "sop_", "pred_layer", "lm_loss")),
        ("pooler", ("pooler",)),
        ("norms", ("LayerNorm", "layer_norm", "layernorm", "ln_", "norm.weight")),
        ("cross-attention", ("EncDecAttention", "encoder_attn")),
        ("self-attention", ("attention", "attn", "SelfAttention")),
        (
            "feed-forward",
            ("mlp", "intermediate", "DenseReluDense", "output.dense", "ffn", "fc1", "fc2", ".ff."),
        ),
    )
    for name, parameter in model.named_parameters():
        component = next(
            component for component, parts in marks if any(part in name for part in parts)
        )
        yield component, parameter.numel()


@pytest.mark.parametrize("name", WITH_CLASS)
@pytest.mark.slow
def test_each_component_is_as_large_as_in_transformers(name: str) -> None:
    spec = load(name)
    theirs: dict[str, int] = {}
    for component, size in _components_of_theirs(_built(spec)):
        theirs[component] = theirs.get(component, 0) + size
    theirs["head"] = theirs.get("head", 0) + _left_out(spec)
    assert theirs == {"head": 0} | count_parameters(spec).components


@pytest.mark.parametrize(
    ("name", "config_class"),
    [
        ("gpt2", "GPT2Config"),
        ("bert-base-uncased", "BertConfig"),
        ("t5-small", "T5Config"),
        ("llama-7b", "LlamaConfig"),
    ],
)
@pytest.mark.slow
def test_the_values_are_the_defaults_of_the_configuration_made_for_that_model(
    name: str, config_class: str
) -> None:
    transformers = pytest.importorskip("transformers")
    default = getattr(transformers, config_class)()
    ids = ("bos_token_id", "eos_token_id")  # a probe's vocabulary has not the released ones
    told = _configuration(load(name))
    # Absent from their configuration unless given; their code for "absent" is the size worked out.
    derived = {"n_inner": 4 * 768, "decoder_start_token_id": 0, "tie_word_embeddings": None}
    for key, value in told.items():
        if key in ids or key in derived:
            continue
        theirs = getattr(default, key)
        if key == "rope_parameters":
            assert {part: theirs[part] for part in value} == value
        else:
            assert theirs == value, key
