"""Models of which not everything was disclosed: what is known of them, and what is refused."""

import re
from pathlib import Path

import pytest

from holotype_spec import (
    NoSpec,
    Sketch,
    SpecError,
    UndisclosedValue,
    UnknownSpec,
    costs,
    count_parameters,
    find,
    load,
    parameter_table,
)
from holotype_spec.catalogue import MODELS


def hidden(folder: Path, name: str, *keys: str, family: str = "gpt2") -> str:
    """The family's file with these keys undisclosed in the variant called `name` and in what it shares."""
    text = (MODELS / f"{family}.toml").read_text(encoding="utf-8")
    head, start, text = text.partition("[architecture]\n")
    for key in keys:
        text, changes = re.subn(rf"(?m)^{key} = [^#\n]*", f'{key} = "undisclosed" ', text)
        assert changes, key
    path = folder / f"{'-'.join(keys)}.toml"
    path.write_text(head + start + text, encoding="utf-8")
    return f"{path}:{name}"


def sketched(path: str) -> Sketch:
    found = find(path)
    assert isinstance(found, Sketch)
    return found


def test_an_undisclosed_epsilon_does_not_hinder_the_exact_count(tmp_path: Path) -> None:
    sketch = sketched(hidden(tmp_path, "gpt2", "eps"))
    assert sketch.undisclosed == ("architecture.normalization.eps",)
    assert count_parameters(sketch) == count_parameters(load("gpt2"))
    assert parameter_table(sketch) == parameter_table(load("gpt2"))
    assert costs.flops_per_token(sketch, 1024) == costs.flops_per_token(load("gpt2"), 1024)


@pytest.mark.parametrize(
    "key", ["layers", "hidden_size", "heads", "head_dim", "ffn_size", "vocab_size", "max_positions"]
)
def test_a_number_that_depends_on_an_undisclosed_size_names_it(tmp_path: Path, key: str) -> None:
    sketch = sketched(hidden(tmp_path, "gpt2", key))
    message = f"the parameter count of gpt2 depends on {key}, which is undisclosed"
    with pytest.raises(UndisclosedValue, match=message) as caught:
        count_parameters(sketch)
    assert (caught.value.model, caught.value.field) == ("gpt2", key)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("family", "name", "key", "path"),
    [
        ("gpt2", "gpt2-xl", "tied_embeddings", "architecture.tied_embeddings"),
        ("gpt2", "gpt2-xl", "biases", "architecture.attention.biases"),
        ("gpt2", "gpt2-xl", "residual", "architecture.residual"),
        ("gpt2", "gpt2-xl", "activation", None),
        ("bert", "bert-base-cased", "token_types", "architecture.token_types"),
        ("llama", "llama-7b", "theta", None),
        ("llama", "llama-7b", "final", "architecture.normalization.final"),
    ],
)
def test_the_count_is_known_where_the_field_decides_no_shape(
    tmp_path: Path, family: str, name: str, key: str, path: str | None
) -> None:
    sketch = sketched(hidden(tmp_path, name, key, family=family))
    if path is None:
        assert count_parameters(sketch) == count_parameters(load(name))
        assert key in sketch.undisclosed[0]
    else:
        with pytest.raises(UndisclosedValue, match=f"depends on {path}, which is undisclosed"):
            count_parameters(sketch)


def test_each_question_is_answered_or_refused_by_itself(tmp_path: Path) -> None:
    sketch = sketched(hidden(tmp_path, "llama2-70b", "ffn_size", "vocab_size", family="llama2"))
    assert costs.kv_cache_bytes_per_token(sketch, "bfloat16") == 327_680
    with pytest.raises(UndisclosedValue, match="the memory of llama2-70b depends on vocab_size"):
        costs.memory_bytes(sketch, "bfloat16")
    with pytest.raises(UndisclosedValue, match="the FLOPs a token of llama2-70b depends on"):
        costs.flops_per_token(sketch, 4096)


def test_a_whole_mechanism_can_be_undisclosed(tmp_path: Path) -> None:
    text = (MODELS / "gpt2.toml").read_text(encoding="utf-8")
    start, end = text.index("[architecture.positions]"), text.index("[architecture.normalization]")
    text = text[:start] + text[end:]
    text = text.replace("[architecture]\n", '[architecture]\npositions = "undisclosed"\n')
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    sketch = sketched(f"{path}:gpt2")
    assert sketch.undisclosed == ("architecture.positions",)
    with pytest.raises(UndisclosedValue, match=r"depends on architecture\.positions"):
        count_parameters(sketch)
    assert sketch.facts()["architecture"]["positions"] == "undisclosed"


def test_what_is_known_can_be_read_and_what_is_not_refuses(tmp_path: Path) -> None:
    known = sketched(hidden(tmp_path, "gpt2", "heads")).known
    assert (known.layers, known.architecture.residual) == (12, "pre-norm")
    assert repr(known.heads) == "undisclosed"
    for read in (
        lambda: known.heads + 1,
        lambda: known.heads == 12,
        lambda: bool(known.heads),
        lambda: isinstance(known.heads, int),
        lambda: f"{known.heads}",
        lambda: known.heads.real,
        lambda: range(known.heads),
        lambda: known.heads in (1, 2),
        lambda: known.position_rows + known.heads,
    ):
        with pytest.raises(UndisclosedValue, match="the heads of gpt2 is undisclosed"):
            read()


def test_loading_a_sketch_as_a_spec_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    path = hidden(tmp_path, "gpt2", "heads", "eps")
    with pytest.raises(NoSpec, match="gpt2 has no complete spec: heads is undisclosed, and 1 more"):
        load(path)
    assert issubclass(NoSpec, UnknownSpec)


@pytest.mark.parametrize("key", ["url", "name", "published", "checkpoint"])
def test_names_and_sources_cannot_be_undisclosed(tmp_path: Path, key: str) -> None:
    text = (MODELS / "mistral.toml").read_text(encoding="utf-8")
    text = re.sub(rf'\b{key} = "[^"]*"', f'{key} = ["undisclosed"]', text)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        find(str(path))


def test_a_value_beside_an_undisclosed_one_is_still_checked(tmp_path: Path) -> None:
    path = Path(hidden(tmp_path, "gpt2", "heads").partition(":")[0])
    text = path.read_text(encoding="utf-8").replace("layers = 12 ", "layers = 0 ")
    path.write_text(text.replace("kv_heads = 12", "kv_heads = 12.5"), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        find(f"{path}:gpt2")
    assert [error.key for error in caught.value.errors] == [
        "variants[gpt2].layers",
        "variants[gpt2].kv_heads",
    ]


def test_rules_that_read_an_undisclosed_value_are_left_out_and_others_hold(tmp_path: Path) -> None:
    path = Path(hidden(tmp_path, "gpt2", "heads").partition(":")[0])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("ffn_size = 3072", "ffn_size = 3073"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"ffn_size = 3073: expected 4 \* hidden_size") as caught:
        find(f"{path}:gpt2")
    assert len(caught.value.errors) == 1
