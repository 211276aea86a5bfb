"""What the rows of the table of parameters say beside their sizes: worked by hand from the papers' block diagrams."""

import re
from typing import Any

import msgspec
import pytest

from holotype_spec import complete, load, parameter_table
from holotype_spec.parameters import Parameter, places_each_stack, stack_layers, stacks
from holotype_spec.schema import GatedRelativeBuckets, LayerwiseRelativeBuckets


def names(name: str, **facts: object) -> set[str]:
    """The rows with these facts; numbers of layers as #."""
    rows = parameter_table(load(name))
    found = [row for row in rows if all(getattr(row, key) == fact for key, fact in facts.items())]
    return {re.sub(r"\.\d+\.", ".#.", row.name) for row in found}


def both(*stems: str) -> set[str]:
    return {f"{stem}.{part}" for stem in stems for part in ("weight", "bias")}


# What is written into the residual stream -----------------------------------------------------------------------

# Of a layer before whose blocks the norms stand: what its blocks end with. Behind them: their norms write too.
LAYER = "decoder.layers.#"
GPT2 = {"embeddings.token.weight", "embeddings.position.weight"} | both(
    f"{LAYER}.self_attention.output", f"{LAYER}.feed_forward.down"
)
ENCODER = "encoder.layers.#"
BERT_LAYER = both(
    *(f"{ENCODER}.{part}" for part in ("self_attention.output", "feed_forward.down")),
    *(f"{ENCODER}.{part}" for part in ("self_attention_norm", "feed_forward_norm")),
)
TABLES = {f"embeddings.{table}.weight" for table in ("token", "position", "token_type")}
MLA = {f"{LAYER}.self_attention.output.weight"} | {
    f"{LAYER}.feed_forward.{block}down.weight" for block in ("", "experts.", "shared_experts.")
}
T5 = {
    f"{stack}.layers.#.{block}.weight"
    for stack in ("encoder", "decoder")
    for block in ("self_attention.output", "feed_forward.down")
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", GPT2),
        ("bert-base", TABLES | both("embeddings.norm") | BERT_LAYER),
        (
            "albert-base-v2",
            TABLES | both("embeddings.norm", "embeddings.projection") | BERT_LAYER,
        ),
        ("deepseek-v2", {"embeddings.token.weight"} | MLA),
        (
            "t5-small",
            {"embeddings.token.weight", f"{LAYER}.cross_attention.output.weight"} | T5,
        ),
        ("st-moe-32b", None),
        ("gpt-j-6b", None),
    ],
)
def test_what_a_block_ends_with_is_written_into_the_residual_stream(
    name: str, expected: set[str] | None
) -> None:
    found = names(name, residual=True)
    if expected is not None:
        assert found == expected
    pre_norm = {row for row in found if "norm" in row} if name in ("st-moe-32b", "gpt-j-6b") else ()
    assert not pre_norm
    assert {row for row in found if row.startswith("head.")} == set()


def test_the_positions_of_an_enhanced_mask_decoder_are_added_to_the_stream() -> None:
    # He et al. 2021, section 3.2: absolute positions enter before the softmax layer.
    assert {row for row in names("deberta-base", residual=True) if row.startswith("head.")} == {
        "head.position.weight"
    }


# Roles ----------------------------------------------------------------------------------------------------------


def role(name: str) -> str:
    """From the name alone."""
    stem, _, last = name.rpartition(".")
    if stem.endswith("norm"):
        return "gain" if last == "weight" else "shift"
    if stem.endswith("relative_bias"):
        return "score-bias"
    table = stem.startswith(("embeddings.", "source_embeddings.")) and "projection" not in stem
    if table or stem.endswith((".relative", "head.position")) or last == "segments":
        return "embedding"
    return "bias" if "bias" in last or "gate_" in last else "matrix"


@pytest.mark.parametrize("name", [spec.name for spec in complete()])
def test_a_row_acts_as_its_name_says(name: str) -> None:
    rows = parameter_table(load(name))
    assert {row.name: row.role for row in rows} == {row.name: role(row.name) for row in rows}


@pytest.mark.parametrize("name", [spec.name for spec in complete()])
def test_what_only_pretraining_needs_is_no_part_of_the_backbone(name: str) -> None:
    for row in parameter_table(load(name)):
        assert row.backbone != row.name.startswith(("head.", "next_sentence.")), row.name


# Stacks ---------------------------------------------------------------------------------------------------------


def test_a_row_of_bias_stands_where_the_paper_has_one() -> None:
    assert not {row for row in names("llama-7b") if row.endswith(".bias")}
    qkv = both(*(f"{LAYER}.self_attention.{part}" for part in ("query", "key", "value")))
    assert qkv <= names("qwen2-7b")
    assert f"{LAYER}.self_attention.output.bias" not in names("qwen2-7b")
    deberta = names("deberta-base")
    assert f"{ENCODER}.self_attention.position_query.bias" in deberta  # their pos_q_proj has one
    assert f"{ENCODER}.self_attention.position_key.bias" not in deberta  # and their pos_proj none


def test_the_stacks_stand_in_the_order_of_the_data_each_with_its_layers() -> None:
    assert [stacks(load(name)) for name in ("bert-base", "gpt2", "t5-small")] == [
        ("encoder",),
        ("decoder",),
        ("encoder", "decoder"),
    ]
    alexa = load("alexatm-20b")
    assert [stack_layers(alexa, stack) for stack in stacks(alexa)] == [46, 32]


@pytest.mark.parametrize(
    ("name", "places"),
    [("bart-base", True), ("alexatm-20b", True), ("t5-small", False), ("gpt2", False), ("bert-base", False)],
)  # fmt: skip
def test_only_an_encoder_beside_a_decoder_adds_rows_of_its_own(name: str, places: bool) -> None:
    assert places_each_stack(load(name)) is places
    assert places == any(row.startswith("source_embeddings.") for row in names(name))


def test_a_norm_of_the_embeddings_alone_is_a_row_of_the_source_too() -> None:
    t5 = load("t5-small")
    normalization = msgspec.structs.replace(t5.architecture.normalization, embedding=True)
    architecture = msgspec.structs.replace(t5.architecture, normalization=normalization)
    assert places_each_stack(msgspec.structs.replace(t5, architecture=architecture))
    architecture = msgspec.structs.replace(t5.architecture, token_types=1)
    typed = msgspec.structs.replace(t5, architecture=architecture)
    assert places_each_stack(typed)
    types = {row.name for row in parameter_table(typed) if "token_type" in row.name}
    assert types == {"source_embeddings.token_type.weight"}  # segments are a matter of the source


# Positions that no complete model of the catalogue has -----------------------------------------------------------


def positioned(positions: Any) -> dict[str, Any]:
    """BERT base, two layers deep, with other positions: name -> row."""
    bert = load("bert-base")
    architecture = msgspec.structs.replace(bert.architecture, positions=positions)
    spec = msgspec.structs.replace(bert, architecture=architecture, layers=2)
    return {row.name: row for row in parameter_table(spec)}


def test_gates_of_distances_are_two_vectors_and_a_number_a_head_in_each_layer() -> None:
    # Chi et al. 2021, section 3.3: u and v of the size of a head, w a number; the biases are shared by the layers.
    rows = positioned(GatedRelativeBuckets(buckets=32, max_distance=128))
    shapes = {"gate_update": (64,), "gate_reset": (64,), "gate_weight": (12,)}
    for layer in range(2):
        for part, shape in shapes.items():
            row = rows[f"encoder.layers.{layer}.self_attention.{part}"]
            assert (row.shape, row.role, row.component) == (shape, "bias", "relative positions")
    assert rows["encoder.relative_bias.weight"].shape == (32, 12)
    assert sum("gate_" in name for name in rows) == 6
    assert "embeddings.position.weight" not in rows


def test_biases_of_distances_in_each_layer_are_as_many_tables_as_layers() -> None:
    rows = positioned(LayerwiseRelativeBuckets(buckets=32, max_distance=128))
    tables = {name: row for name, row in rows.items() if "relative_bias" in name}
    assert list(tables) == [
        f"encoder.layers.{layer}.self_attention.relative_bias.weight" for layer in range(2)
    ]
    for row in tables.values():
        assert (row.shape, row.role) == ((32, 12), "score-bias")
        assert row.component == "relative position biases"


def test_two_positions_of_a_token_are_two_tables_with_a_row_for_the_start() -> None:
    # Du et al. 2021, section 2.1: a token has a place in the text and one in the span that is filled in.
    rows = {row.name: row for row in parameter_table(load("glm-10b"))}
    for table in ("position", "block_position"):
        row = rows[f"embeddings.{table}.weight"]
        assert (row.shape, row.role, row.residual) == ((1024 + 1, 4096), "embedding", True)


def test_a_row_must_say_which_it_is_by_name() -> None:
    with pytest.raises(TypeError):
        Parameter("a", (1,), "bias", "b")  # type: ignore[misc]
