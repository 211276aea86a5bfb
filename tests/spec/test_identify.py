"""Which spec a configuration of another project is: round trips, published files, differences and damaged files."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holotype_conformance.commands.identify import identify_file
from holotype_spec import complete, load
from holotype_spec.catalogue import line_of_descent
from holotype_spec.field_names import FIELD_NAMES
from holotype_spec.gguf_header import GGUFError, Length, read_header
from holotype_spec.identify import (
    configuration,
    defaults_version,
    identify,
    of_configuration,
    value_of,
)
from holotype_spec.schema import Spec

DESCRIBED = [spec for spec in complete() if spec.family.transformers != "none"]

# As published at https://huggingface.co/openai-community/gpt2 and …/meta-llama/Llama-3.1-8B, the keys that matter.
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_first_dropout": 0.1,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
LLAMA31 = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}


# As published at https://huggingface.co/huggyllama/llama-13b, …/mistralai/Mixtral-8x7B-v0.1 and …/google-t5/t5-large:
# none of them states every size, and each class takes the missing one from others.
LLAMA_13B = {
    "hidden_act": "silu",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
MIXTRAL = {
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mixtral",
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
T5_LARGE = {
    "d_ff": 4096,
    "d_kv": 64,
    "d_model": 1024,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 16,
    "num_layers": 24,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "vocab_size": 32128,
}


# As published at https://huggingface.co/bigscience/bloom-560m, which calls the hidden size n_embed.
BLOOM_560M = {
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "layer_norm_epsilon": 1e-05,
    "model_type": "bloom",
    "n_embed": 1024,
    "n_inner": None,
    "n_layer": 24,
    "num_attention_heads": 16,
    "pad_token_id": 3,
    "vocab_size": 250880,
}


def nested(told: dict[str, Any], model_type: str) -> dict[str, Any]:
    """Dotted keys as the tables of a file, which has no tuples."""
    config: dict[str, Any] = {"model_type": model_type}
    for key, value in told.items():
        *outer, last = key.split(".")
        node = config
        for part in outer:
            node = node.setdefault(part, {})
        node[last] = value
    found: dict[str, Any] = json.loads(json.dumps(config))
    return found


def config_class(spec: Spec) -> str:
    assert spec.family.transformers != "none"
    return spec.family.transformers.config_class


@pytest.mark.parametrize("spec", DESCRIBED, ids=[spec.name for spec in DESCRIBED])
@pytest.mark.slow
def test_what_a_spec_tells_its_class_is_identified_as_that_spec_and_all_its_equals(
    spec: Spec,
) -> None:
    config = nested(configuration(spec), config_class(spec).removesuffix("Config").lower())
    equals = {
        other.name
        for other in DESCRIBED
        if config_class(other) == config_class(spec) and configuration(other) == configuration(spec)
    }
    assert set(of_configuration(config, "it").names) == equals
    assert spec.name in equals


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (GPT2, "gpt2"),
        (LLAMA31, "llama3.1-8b"),
        (LLAMA_13B, "llama-13b"),
        (LLAMA_13B | {"num_key_value_heads": None}, "llama-13b"),
        (MIXTRAL, "mixtral-8x7b"),
        (MIXTRAL | {"head_dim": None}, "mixtral-8x7b"),
        (T5_LARGE, "t5-large"),
        (BLOOM_560M, "bloom-560m"),
    ],
)
def test_a_published_configuration_is_its_spec(config: dict[str, Any], name: str) -> None:
    first, *others = of_configuration(config, "it").names
    assert first == name
    assert all(name in line_of_descent(load(other)) for other in others)


def test_the_text_part_of_a_model_of_several_inputs_is_what_counts() -> None:
    config = {"model_type": "seeing", "text_config": LLAMA31, "vision_config": {"layers": 3}}
    assert of_configuration(config, "it").names[:1] == ("llama3.1-8b",)


def test_the_names_of_today_and_of_yesterday_say_the_same() -> None:
    today = {key: value for key, value in LLAMA31.items() if not key.startswith("rope_")}
    scaling: Any = LLAMA31["rope_scaling"]
    today["rope_parameters"] = {**scaling, "rope_theta": 500000.0}
    yesterday = LLAMA31 | {
        "rope_scaling": {**{k: v for k, v in scaling.items() if k != "rope_type"}, "type": "llama3"}
    }
    for config in (today, yesterday):
        assert of_configuration(config, "it").names[:1] == ("llama3.1-8b",)


def test_each_difference_names_the_field_both_values_and_what_it_does() -> None:
    found = of_configuration(LLAMA31 | {"vocab_size": 128000, "rope_theta": 10000.0}, "it")
    assert found.names == ()
    assert found.nearest.spec.name == "llama3.1-8b"
    told = {each.field: each for each in found.nearest.differences}
    assert set(told) == {"vocab_size", "architecture.positions.theta"}
    vocabulary = told["vocab_size"]
    assert (vocabulary.theirs, vocabulary.ours) == (128000, 128256)
    # Two matrices, 256 rows of 4096 less in each.
    assert vocabulary.effect == f"{-2 * 256 * 4096:+,} parameters"
    assert "other outputs" in told["architecture.positions.theta"].effect


def test_a_key_that_the_class_has_and_no_spec_tells_it_is_a_difference_unless_it_is_the_default() -> (
    None
):
    found = of_configuration(GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "it")
    assert [each.key for each in found.nearest.differences] == ["scale_attn_by_inverse_layer_idx"]
    assert of_configuration(GPT2 | {"scale_attn_by_inverse_layer_idx": False}, "it").names


def test_what_is_left_out_is_reported_and_compared_by_the_default_of_transformers() -> None:
    found = of_configuration(GPT2, "it")
    assert ("tie_word_embeddings", True) in [(e.key, e.default) for e in found.nearest.not_stated]
    # Their default for a feed-forward is 11008, and LLaMA 3.1 has another.
    short = {key: value for key, value in LLAMA31.items() if key != "intermediate_size"}
    [difference] = of_configuration(short, "it").nearest.differences
    assert (difference.key, difference.theirs, difference.stated) == (
        "intermediate_size",
        11008,
        False,
    )


def test_a_size_that_follows_from_others_is_reported_with_the_number_that_follows() -> None:
    silent = of_configuration(LLAMA_13B, "it").nearest.not_stated
    assert ("num_key_value_heads", 40) in [(each.key, each.default) for each in silent]


@pytest.mark.parametrize("heads", [-12, 0, "twelve", 1.5, 10**30, math.inf, True])
def test_a_size_that_no_model_can_have_is_not_told_to_change_nothing(heads: Any) -> None:
    [difference] = of_configuration(GPT2 | {"n_head": heads}, "it").nearest.differences
    assert difference.effect == "no model has such a size"


def test_an_unknown_kind_is_said_to_be_and_the_nearest_named() -> None:
    found = of_configuration(LLAMA31 | {"model_type": "alpacoid"}, "it")
    assert not found.known_model
    assert found.names == ()
    assert found.nearest.spec.name == "llama3.1-8b"


@pytest.mark.slow
def test_the_defaults_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    from holotype_conformance.models.adapters.hf.defaults import defaults
    from holotype_spec.identify import DEFAULTS

    shipped = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    if shipped["version"] != transformers.__version__:
        pytest.skip(f"the file is of transformers {shipped['version']}")
    assert defaults() == shipped


# GGUF ---------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, value: Any) -> bytes:
    head = text(key)
    if isinstance(value, str):
        return head + struct.pack("<I", 8) + text(value)
    if isinstance(value, list):
        return head + struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    if isinstance(value, float):
        return head + struct.pack("<If", 6, value)
    return head + struct.pack("<II", 4, value)


def gguf(path: Path, pairs: dict[str, Any], version: int = 3) -> Path:
    body = b"".join(pair(key, value) for key, value in pairs.items())
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs)) + body)
    return path


LLAMA2_HEADER = {
    "general.architecture": "llama",
    "tokenizer.ggml.tokens": ["a"] * 32_000,
    "llama.block_count": 80,
    "llama.embedding_length": 8192,
    "llama.feed_forward_length": 28_672,
    "llama.attention.head_count": 64,
    "llama.attention.head_count_kv": 8,
    "llama.context_length": 4096,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10_000.0,
}


def test_the_header_of_a_gguf_file_is_read_and_its_arrays_are_counted(tmp_path: Path) -> None:
    header = read_header(gguf(tmp_path / "it.gguf", LLAMA2_HEADER))
    assert header["llama.block_count"] == 80
    assert header["general.architecture"] == "llama"
    assert header["tokenizer.ggml.tokens"] == Length(32_000)


def test_a_gguf_file_is_identified_by_what_it_states(tmp_path: Path) -> None:
    found = identify(gguf(tmp_path / "it.gguf", LLAMA2_HEADER))
    assert (found.format, found.names[0]) == ("GGUF", "llama2-70b")
    assert all("llama2-70b" in line_of_descent(load(other)) for other in found.names[1:])
    assert "architecture.tied_embeddings" not in [e.field for e in found.nearest.not_stated]
    longer = identify(
        gguf(tmp_path / "long.gguf", LLAMA2_HEADER | {"llama.context_length": 32_768})
    )
    assert longer.names == ()
    assert [each.field for each in longer.nearest.differences] == ["max_positions"]


@pytest.mark.parametrize(
    "left_out",
    ["block_count", "embedding_length", "attention.head_count", "feed_forward_length", ""],
)
def test_a_gguf_header_that_leaves_sizes_out_is_of_no_spec(left_out: str, tmp_path: Path) -> None:
    header = {k: v for k, v in LLAMA2_HEADER.items() if k != f"llama.{left_out}"}
    if not left_out:
        header = {"general.architecture": "llama"}
    found = identify(gguf(tmp_path / "it.gguf", header))
    assert (found.names, found.known_model, found.nearest.differences) == ((), True, ())


@pytest.mark.parametrize("spec", DESCRIBED, ids=[spec.name for spec in DESCRIBED])
@pytest.mark.slow
def test_no_gguf_header_of_a_spec_contradicts_it(spec: Spec, tmp_path: Path) -> None:
    model = config_class(spec).removesuffix("Config").lower()
    pairs: dict[str, Any] = {"general.architecture": model}
    for row in FIELD_NAMES:
        value, known = value_of(spec, row.field)
        if known and row.gguf and isinstance(value, int | float) and not isinstance(value, bool):
            norm = "rms" in row.gguf[0] and type(spec.architecture.normalization).__name__
            name = row.gguf[1] if norm == "LayerNorm" else row.gguf[0]
            pairs[name if name.startswith("tokenizer") else f"{model}.{name}"] = value
    assert spec.name in identify(gguf(tmp_path / "it.gguf", pairs)).names


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF", "breaks off within the first 24 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1; expected 2 or 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 5), "breaks off: at byte 24 it promises 8 more"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60), "breaks off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 99), "type 99"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1 << 60),
            "breaks off",
        ),
    ],
)
def test_a_damaged_header_is_told(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "it.gguf"
    path.write_bytes(content)
    with pytest.raises(GGUFError, match=said):
        read_header(path)
    result = run(path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr.replace("\n", " ")


# The command --------------------------------------------------------------------------------------------------


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(identify_file, [str(path), *arguments])


def written(folder: Path, config: Any) -> Path:
    (folder / "config.json").write_text(
        config if isinstance(config, str) else json.dumps(config), encoding="utf-8"
    )
    return folder


def test_a_folder_stands_for_the_configuration_in_it(tmp_path: Path) -> None:
    result = run(written(tmp_path, GPT2))
    assert result.exit_code == 0
    assert result.output.startswith("gpt2 (transformers, gpt2)\n")
    assert f"tie_word_embeddings: transformers {defaults_version()} takes true" in result.output


def test_what_is_no_spec_exits_1_and_shows_the_differences_in_eighty_columns(
    tmp_path: Path,
) -> None:
    result = run(written(tmp_path, GPT2 | {"n_embd": 800, "n_layer": 13}))
    assert result.exit_code == 1
    assert "no spec of the catalogue (transformers, gpt2); the nearest is gpt2" in result.output
    assert "n_embd (hidden_size): the file says 800, the spec 768;" in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    facts = json.loads(run(tmp_path, "--json").output)
    assert facts["identified"] == []
    assert [each["field"] for each in facts["differences"]] == ["layers", "hidden_size"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "neither JSON nor GGUF"),
        ("[]", "holds a list; expected a JSON object"),
        ("{}", "has no model_type"),
        ('{"model_type": 3}', "has no model_type"),
        ("[" * 100_000, "neither JSON nor GGUF"),
    ],
)
def test_what_is_no_configuration_exits_2_and_says_what_was_expected(
    config: str, said: str, tmp_path: Path
) -> None:
    result = run(written(tmp_path, config))
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")


def test_a_file_that_is_not_there_or_too_large_exits_2(tmp_path: Path) -> None:
    assert run(tmp_path / "nothing.json").exit_code == 2
    assert "cannot be read" in run(tmp_path).stderr
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)  # a hole; nobody must read it
    assert "is larger than 4 MB" in run(tmp_path / "huge.json").stderr


@pytest.mark.slow
def test_identifying_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from holotype_spec.identify import identify;"
        f"print(identify(Path({str(written(tmp_path, GPT2))!r})).names[0]);"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "gpt2\n[]\n"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(changes=st.dictionaries(st.sampled_from([*LLAMA31, "text_config", "torch"]), ANYTHING))
@pytest.mark.slow
def test_no_value_of_a_key_is_a_crash(changes: dict[str, Any], tmp_path: Path) -> None:
    result = run(written(tmp_path, json.dumps(LLAMA31 | changes)))
    assert result.exit_code in (0, 1, 2), result.exception
    assert isinstance(result.exception, SystemExit | None)


@QUICK
@given(at=st.integers(0, 700), junk=st.binary(min_size=1, max_size=9))
@pytest.mark.slow
def test_no_damage_to_a_header_is_a_crash(at: int, junk: bytes, tmp_path: Path) -> None:
    path = gguf(tmp_path / "it.gguf", LLAMA2_HEADER | {"tokenizer.ggml.tokens": ["a", "b"]})
    content = path.read_bytes()
    path.write_bytes(content[:at] + junk + content[at + len(junk) :])
    result = run(path)
    assert result.exit_code in (0, 1, 2), result.exception
    assert isinstance(result.exception, SystemExit | None)


def test_a_spec_of_the_catalogue_never_changes_by_being_compared() -> None:
    before = load("llama3.1-8b")
    of_configuration(LLAMA31 | {"hidden_size": 1}, "it")
    assert load("llama3.1-8b") == before
