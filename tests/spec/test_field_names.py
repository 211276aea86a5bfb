"""The table of other projects' names."""

import pytest

from holotype_spec import load, originals
from holotype_spec.field_names import FIELD_NAMES, ours


@pytest.mark.parametrize(
    ("theirs", "field"),
    [
        ("n_layer", "layers"),
        ("num_hidden_layers", "layers"),
        ("block_count", "layers"),
        ("n_query_groups", "kv_heads"),
        ("attention.head_count_kv", "kv_heads"),
        ("rope.freq_base", "architecture.positions.theta"),
        ("nothing", None),
    ],
)
def test_a_name_of_another_project_finds_our_field(theirs: str, field: str | None) -> None:
    assert ours(theirs) == field


@pytest.mark.parametrize("name", originals())
def test_the_table_agrees_with_the_configuration_of_every_family(name: str) -> None:
    theirs = load(name).family.transformers
    for key, path in () if theirs == "none" else theirs.fields.items():
        # Their table of positions may count the rows in front of the first one.
        assert ours(key) == ("max_positions" if path == "position_rows" else path)


def test_no_name_of_one_project_means_two_fields() -> None:
    for project in ("transformers", "gguf", "litgpt"):
        called = [name for row in FIELD_NAMES for name in getattr(row, project)]
        assert len(called) == len(set(called))
