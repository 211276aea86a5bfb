"""Published names and layouts: complete both ways, equal to those of `transformers`, and strict."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import holotype_spec
from holotype_reference import oracle
from holotype_reference.support import supported
from holotype_reference.weights import Weights, random_weights
from holotype_reference.weights.checkpoints import (
    CheckpointError,
    canonical,
    load_safetensors,
    published,
    save_safetensors,
)
from holotype_spec.schema import Spec
from holotype_spec.tensors import tensor_table

pytestmark = pytest.mark.slow

ModelMaker = Callable[..., torch.nn.Module]
ONE_A_FAMILY = [
    "gpt2",
    "bert-base-uncased",
    "t5-small",
    "llama2-70b",
    "mistral-7b-v0.1",
    "mixtral-8x7b",
]
IDS = [[5, 3, 1, 8]]
NAMED = [
    spec.name
    for spec in map(holotype_spec.load, supported())
    if spec.family.checkpoint != "none" and spec.derives_from is None
]


def probe(name: str) -> Spec:
    return holotype_spec.probe(holotype_spec.load(name))


def tiny_checkpoint(name: str) -> tuple[Spec, Weights, dict[str, Tensor]]:
    spec = probe(name)
    weights = random_weights(spec, 1)
    return spec, weights, weights.published()


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# Both ways ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_canonical_is_the_inverse_of_published(name: str) -> None:
    spec, weights, checkpoint = tiny_checkpoint(name)
    found = canonical(spec, checkpoint)
    assert_equal(found, weights)
    assert found.spec is spec


@pytest.mark.parametrize("name", NAMED)
def test_published_names_and_shapes_are_those_of_transformers_at_full_size(
    name: str, their_model: ModelMaker, filed: Callable[..., dict[str, Tensor]]
) -> None:
    spec = holotype_spec.load(name)
    rows = tensor_table(spec)
    weights = {row.name: torch.empty(row.shape, device="meta") for row in rows}
    model = their_model(spec, device="meta")
    passed_over = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    theirs = {n: t.shape for n, t in filed(model, model.state_dict()).items()}
    assert theirs == {
        n: t.shape
        for n, t in published(spec, weights).items()
        if n in theirs or not any(re.search(pattern, n) for pattern in passed_over)
    }


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_second_names_of_tied_tensors_are_the_same_tensor_and_not_a_copy(name: str) -> None:
    spec, _, checkpoint = tiny_checkpoint(name)
    embedding = random_weights(spec, 1)["embeddings.token.weight"]
    copies = [n for n, t in checkpoint.items() if t.shape == embedding.shape and t.equal(embedding)]
    assert len({checkpoint[n].data_ptr() for n in copies}) == 1
    assert (len(copies) > 1) == spec.architecture.tied_embeddings


def test_queries_keys_and_values_of_bloom_stand_together_head_by_head() -> None:
    spec, weights, checkpoint = tiny_checkpoint("bloom-560m")
    fused = checkpoint["transformer.h.1.self_attention.query_key_value.weight"]
    assert fused.shape == (3 * spec.hidden_size, spec.hidden_size)
    d, layer = spec.head_dim, "decoder.layers.1.self_attention"
    for head in range(spec.heads):
        for index, part in enumerate(("query", "key", "value")):
            start = (3 * head + index) * d
            own = weights[f"{layer}.{part}.weight"][head * d : (head + 1) * d]
            assert torch.equal(fused[start : start + d], own)


def test_mixtral_stores_the_gate_of_an_expert_as_w1_its_up_as_w3_and_its_down_as_w2() -> None:
    _, weights, checkpoint = tiny_checkpoint("mixtral-8x7b")
    for part, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        ours = weights[f"decoder.layers.1.feed_forward.experts.{part}.weight"]
        for expert in (0, 6):
            found = checkpoint[f"model.layers.1.block_sparse_moe.experts.{expert}.{theirs}.weight"]
            assert torch.equal(found, ours[expert])


def test_gpt2_stores_inputs_first_and_query_key_value_side_by_side() -> None:
    spec, weights, checkpoint = tiny_checkpoint("gpt2")
    fused = checkpoint["transformer.h.1.attn.c_attn.weight"]
    d = spec.hidden_size
    assert fused.shape == (d, 3 * d)
    for column, part in enumerate(("query", "key", "value")):
        matrix = weights[f"decoder.layers.1.self_attention.{part}.weight"]
        assert fused[3, column * d + 7] == matrix[7, 3]
        assert torch.equal(fused[:, column * d : (column + 1) * d], matrix.T)
    up = checkpoint["transformer.h.0.mlp.c_fc.weight"]
    assert torch.equal(up, weights["decoder.layers.0.feed_forward.up.weight"].T)


def test_parts_of_a_fused_matrix_are_independent_of_each_other() -> None:
    spec, weights, checkpoint = tiny_checkpoint("gpt2")
    found = canonical(spec, checkpoint)
    found["decoder.layers.0.self_attention.query.bias"].zero_()
    key = "decoder.layers.0.self_attention.key.bias"
    assert torch.equal(found[key], weights[key])
    assert torch.equal(
        checkpoint["transformer.h.0.attn.c_attn.bias"][: spec.hidden_size],
        weights["decoder.layers.0.self_attention.query.bias"],
    )


# Older files --------------------------------------------------------------------------------------


def test_gpt2_files_of_the_bare_model_with_their_mask_buffers_are_read() -> None:
    spec, weights, checkpoint = tiny_checkpoint("gpt2")
    bare = {
        n.removeprefix("transformer."): t for n, t in checkpoint.items() if n != "lm_head.weight"
    }
    for layer in range(spec.layers):
        bare[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 41, 41).tril()
        bare[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    assert_equal(canonical(spec, bare), weights)


def test_bert_files_that_say_gamma_and_beta_are_read() -> None:
    spec, weights, checkpoint = tiny_checkpoint("bert-base-uncased")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t
        for n, t in checkpoint.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(41)[None]
    assert sum("gamma" in n for n in old) == 6
    assert_equal(canonical(spec, old), weights)


def test_t5_files_with_the_unused_table_of_cross_attention_are_read() -> None:
    spec, weights, checkpoint = tiny_checkpoint("t5-small")
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    assert_equal(canonical(spec, checkpoint | {unused: torch.zeros(8, 5)}), weights)


def test_llama_files_with_rotary_frequencies_are_read() -> None:
    spec, weights, checkpoint = tiny_checkpoint("llama-7b")
    buffer = {"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    assert_equal(canonical(spec, checkpoint | buffer), weights)


def test_a_tied_tensor_may_be_there_under_its_second_name_only() -> None:
    spec, weights, checkpoint = tiny_checkpoint("t5-small")
    for name in ("shared.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        del checkpoint[name]
    assert_equal(canonical(spec, checkpoint), weights)


def test_an_untied_head_is_a_tensor_of_its_own() -> None:
    spec = probe("gpt2")
    architecture = msgspec.structs.replace(spec.architecture, tied_embeddings=False)
    untied = msgspec.structs.replace(spec, architecture=architecture)
    weights = random_weights(untied, 0)
    checkpoint = weights.published()
    assert torch.equal(checkpoint["lm_head.weight"], weights["head.output.weight"])
    assert not torch.equal(checkpoint["lm_head.weight"], checkpoint["transformer.wte.weight"])
    assert_equal(canonical(untied, checkpoint), weights)


# What is wrong ------------------------------------------------------------------------------------


def test_every_missing_unexpected_and_misshaped_name_is_listed_at_once() -> None:
    spec, _, checkpoint = tiny_checkpoint("gpt2")
    del checkpoint["transformer.h.0.ln_1.bias"], checkpoint["transformer.h.1.mlp.c_fc.weight"]
    checkpoint["transformer.h.7.ln_1.bias"] = torch.zeros(40)
    checkpoint["score.weight"] = torch.zeros(2, 40)
    checkpoint["transformer.ln_f.weight"] = torch.zeros(41)
    # The right numbers, the wrong way round.
    fused = "transformer.h.0.attn.c_attn.weight"
    checkpoint[fused] = checkpoint[fused].T
    with pytest.raises(CheckpointError) as error:
        canonical(spec, checkpoint)
    assert sorted(str(error.value).splitlines()[1:]) == [
        "  missing transformer.h.0.ln_1.bias",
        "  missing transformer.h.1.mlp.c_fc.weight",
        "  transformer.h.0.attn.c_attn.weight has the shape (120, 40), expected (40, 120)",
        "  transformer.ln_f.weight has the shape (41,), expected (40,)",
        "  unexpected score.weight",
        "  unexpected transformer.h.7.ln_1.bias",
    ]


def test_incomplete_weights_are_not_published() -> None:
    spec, weights, _ = tiny_checkpoint("gpt2")
    del weights["decoder.final_norm.bias"]
    weights["decoder.final_norm.gain"] = torch.zeros(40)
    weights["embeddings.position.weight"] = torch.zeros(40, 41)
    with pytest.raises(CheckpointError) as error:
        published(spec, weights)
    assert sorted(str(error.value).splitlines()[1:]) == [
        "  embeddings.position.weight has the shape (40, 41), expected (41, 40)",
        "  missing decoder.final_norm.bias",
        "  unexpected decoder.final_norm.gain",
    ]


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "t5-small"])
def test_each_part_that_is_taken_away_is_missed(name: str) -> None:
    spec, weights, checkpoint = tiny_checkpoint(name)
    tied = {n for n, t in checkpoint.items() for m, u in checkpoint.items() if n != m and t is u}
    assert tied
    for missing in checkpoint.keys() - tied:
        rest = {n: t for n, t in checkpoint.items() if n != missing}
        with pytest.raises(CheckpointError, match=f"missing {missing}"):
            canonical(spec, rest)
    for missing in weights:
        with pytest.raises(CheckpointError, match=f"missing {missing}"):
            published(spec, {n: t for n, t in weights.items() if n != missing})


@pytest.mark.parametrize(
    ("name", "second", "first"),
    [
        ("gpt2", "lm_head.weight", "transformer.wte.weight"),
        ("bert-base-uncased", "cls.predictions.decoder.bias", "cls.predictions.bias"),
        ("t5-small", "encoder.embed_tokens.weight", "shared.weight"),
    ],
)
def test_tied_tensors_that_differ_are_an_error(name: str, second: str, first: str) -> None:
    spec, _, checkpoint = tiny_checkpoint(name)
    checkpoint[second] = checkpoint[second] + 1
    with pytest.raises(CheckpointError, match=f"{second} is tied to {first} and differs"):
        canonical(spec, checkpoint)


def test_two_spellings_of_a_name_in_one_file_are_an_error() -> None:
    spec, _, checkpoint = tiny_checkpoint("gpt2")
    checkpoint["wpe.weight"] = checkpoint["transformer.wpe.weight"]
    with pytest.raises(
        CheckpointError, match=r"transformer\.wpe\.weight is there under two spellings"
    ):
        canonical(spec, checkpoint)


def test_a_checkpoint_of_another_family_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"missing model\.embed_tokens\.weight"):
        canonical(probe("llama-7b"), random_weights(probe("gpt2"), 0).published())


def test_a_family_without_a_table_is_an_error_that_lists_those_with_one() -> None:
    spec = probe("gpt2")
    unknown = msgspec.structs.replace(
        spec, family=msgspec.structs.replace(spec.family, checkpoint="gpt5")
    )
    with pytest.raises(
        CheckpointError, match=r"'gpt5'; there is \['albert', .*'llama', .*'t5', .*\]"
    ):
        published(unknown, random_weights(spec, 0))


def test_a_parameter_without_a_published_name_is_an_error() -> None:
    spec = probe("llama-7b")
    attention = msgspec.structs.replace(spec.architecture.attention, biases=("output",))
    biased = msgspec.structs.replace(
        spec, architecture=msgspec.structs.replace(spec.architecture, attention=attention)
    )
    with pytest.raises(CheckpointError, match=r"no place for .*0\.self_attention\.output\.bias"):
        published(biased, random_weights(biased, 0))


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_a_saved_file_loads_as_it_was(name: str, tmp_path: Path) -> None:
    spec, weights, _ = tiny_checkpoint(name)
    save_safetensors(tmp_path / "model.safetensors", spec, weights)
    assert_equal(load_safetensors(tmp_path / "model.safetensors", spec), weights)
    assert_equal(load_safetensors(tmp_path, spec), weights)


def test_a_saved_file_holds_tied_tensors_once(tmp_path: Path) -> None:
    spec, weights, checkpoint = tiny_checkpoint("bert-base-uncased")
    save_safetensors(tmp_path / "a.safetensors", spec, weights)
    assert checkpoint.keys() - load_file(tmp_path / "a.safetensors").keys() == {
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    }


def test_views_and_parameters_that_need_gradients_can_be_saved(tmp_path: Path) -> None:
    spec, weights, _ = tiny_checkpoint("llama-7b")
    views = {n: torch.stack([t, t], dim=-1)[..., 0].requires_grad_() for n, t in weights.items()}
    save_safetensors(tmp_path / "a.safetensors", spec, views)
    assert_equal(load_safetensors(tmp_path / "a.safetensors", spec), weights)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
@pytest.mark.parametrize("max_shard_size", ["100KB", "5GB"])
def test_checkpoints_that_transformers_saves_are_read(
    name: str,
    max_shard_size: str,
    their_model: ModelMaker,
    read_by: Callable[..., None],
    tmp_path: Path,
) -> None:
    spec, weights, checkpoint = tiny_checkpoint(name)
    theirs = their_model(spec)
    read_by(theirs, checkpoint)
    theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / "model.safetensors").exists() == (max_shard_size == "5GB")
    assert_equal(load_safetensors(tmp_path, spec), weights)


@pytest.mark.parametrize("name", ONE_A_FAMILY)
def test_checkpoints_that_we_save_are_read_by_transformers(
    name: str, their_model: ModelMaker, filed: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    spec, weights, checkpoint = tiny_checkpoint(name)
    model = their_model(spec)
    model.config.save_pretrained(tmp_path)
    save_safetensors(tmp_path / "model.safetensors", spec, weights)
    theirs = type(model).from_pretrained(tmp_path, dtype=torch.float64)
    found = filed(theirs, theirs.state_dict())
    assert_equal(dict(sorted(found.items())), dict(sorted(checkpoint.items())))


def sharded(folder: Path, checkpoint: dict[str, Tensor]) -> dict[str, str]:
    places = {}
    for number, half in enumerate((list(checkpoint)[::2], list(checkpoint)[1::2])):
        file = f"model-{number}.safetensors"
        save_file({n: checkpoint[n].contiguous() for n in half}, folder / file)
        places |= dict.fromkeys(half, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return places


def test_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    spec, _, checkpoint = tiny_checkpoint("llama-7b")
    sharded(tmp_path, checkpoint)
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"names model-1\.safetensors, which is not there"):
        load_safetensors(tmp_path, spec)


def test_an_index_that_promises_what_a_shard_does_not_hold_is_an_error(tmp_path: Path) -> None:
    spec, _, checkpoint = tiny_checkpoint("llama-7b")
    places = sharded(tmp_path, checkpoint)
    other = {
        "model-0.safetensors": "model-1.safetensors",
        "model-1.safetensors": "model-0.safetensors",
    }
    places["lm_head.weight"] = other[places["lm_head.weight"]]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(
        CheckpointError, match=r"model-\d\.safetensors does not hold lm_head\.weight"
    ):
        load_safetensors(tmp_path, spec)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {"a": 1}}', '{"weight_map": []}'])
def test_an_unreadable_index_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="no readable weight_map"):
        load_safetensors(tmp_path, probe("llama-7b"))


def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    spec, weights, _ = tiny_checkpoint("llama-7b")
    save_safetensors(tmp_path / "a.safetensors", spec, weights)
    inner = tmp_path / "inner"
    inner.mkdir()
    index = {"weight_map": {"lm_head.weight": "../a.safetensors"}}
    (inner / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="expected a file beside it"):
        load_safetensors(inner, spec)


def test_a_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    spec, weights, _ = tiny_checkpoint("gpt2")
    torch.save(dict(weights), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled checkpoints .* are not read"):
        load_safetensors(tmp_path / "pytorch_model.bin", spec)
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor"):
        load_safetensors(tmp_path, spec)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load_safetensors(tmp_path / "nowhere", probe("gpt2"))


def test_the_file_of_another_model_is_named_in_the_error(tmp_path: Path) -> None:
    spec, weights, _ = tiny_checkpoint("gpt2")
    save_safetensors(tmp_path / "gpt2.safetensors", spec, weights)
    deeper = holotype_spec.probe(holotype_spec.load("gpt2"), layers=3)
    with pytest.raises(
        CheckpointError, match=r"gpt2\.safetensors: .*(.|\n)*missing transformer\.h\.2"
    ):
        load_safetensors(tmp_path / "gpt2.safetensors", deeper)


def test_loaded_weights_compute_what_the_saved_ones_did(tmp_path: Path) -> None:
    spec, weights, _ = tiny_checkpoint("gpt2")
    save_safetensors(tmp_path / "a.safetensors", spec, weights)
    loaded = load_safetensors(tmp_path / "a.safetensors", spec)
    before, after = (oracle.logits(spec, w, IDS).logits for w in (weights, loaded))
    assert (before == after).all()
