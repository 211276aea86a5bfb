"""Variants that derive from other models: what they inherit, and the lines of descent that end nowhere."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from holotype_spec import Spec, SpecError, find, line_of_descent, load
from holotype_spec.catalogue import MODELS

HEAD = """
[family]
name = "{family}"
title = "Mine"
sources = [{{ id = "me", title = "My notes", url = "https://example.org" }}]
"""
CHILD = """
[[variants]]
name = "{name}"
derives_from = "{parent}"
parameters = {{ published = "7B", source = "me" }}
"""


def written(folder: Path, *children: tuple[str, str], more: str = "", name: str = "mine") -> str:
    text = HEAD.format(family=name)
    text += "".join(CHILD.format(name=child, parent=parent) for child, parent in children) + more
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(path: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        find(path)
    return [str(error).removeprefix(f"{Path(path).resolve()}: ") for error in caught.value.errors]


def test_a_descendant_is_its_parent_but_for_what_it_says(tmp_path: Path) -> None:
    more = "vocab_size = 32_001\n[variants.architecture.normalization]\neps = 1e-5\n"
    child, parent = load(written(tmp_path, ("mine", "llama-7b"), more=more)), load("llama-7b")
    assert (child.name, child.derives_from, child.family.title) == ("mine", "llama-7b", "Mine")
    assert (child.vocab_size, child.layers, child.ffn_size) == (32_001, 32, 11_008)
    assert child.architecture.normalization.eps == 1e-5
    assert child.architecture.normalization.final == parent.architecture.normalization.final
    assert child.architecture.positions == parent.architecture.positions
    assert child.family.transformers == parent.family.transformers
    assert child.family.checkpoint == parent.family.checkpoint
    assert child.aliases == ()


def test_a_descendant_inherits_through_its_parent_and_the_line_names_both(tmp_path: Path) -> None:
    path = written(tmp_path, ("first", "llama-13b"), ("second", "first"))
    assert load(f"{path}:second").layers == 40
    assert line_of_descent(load(f"{path}:first")) == ["llama-13b"]
    assert line_of_descent(load(f"{path}:second")) == ["first"]
    assert line_of_descent(load("llama-13b")) == []


def test_an_alias_names_a_parent_too(tmp_path: Path) -> None:
    assert load(written(tmp_path, ("mine", "llama-2-70b"))).kv_heads == 8
    assert line_of_descent(load(written(tmp_path, ("x", "llama-33b"), name="x"))) == ["llama-30b"]


def test_another_mechanism_replaces_the_inherited_one_whole(tmp_path: Path) -> None:
    more = '[variants.architecture.positions]\nkind = "learned"\noffset = 2\n'
    path = Path(written(tmp_path, ("mine", "llama-7b"), more=more))
    assert refused(str(path)) == [
        "family.transformers.fields.rope_parameters.rope_theta = 'architecture.positions.theta': "
        "expected the path of a field of the spec that has a plain value; inherited; write the "
        'family\'s own, or transformers = "none"'
    ]
    text = path.read_text(encoding="utf-8").replace("sources", 'transformers = "none"\nsources')
    (tmp_path / "other.toml").write_text(text, encoding="utf-8")
    assert load(f"{tmp_path}/other.toml").position_rows == 2050


def test_an_unknown_parent_is_told_with_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, ("small", "lama-7b"), ("large", "smal"))
    assert refused(path) == [
        "variants[small].derives_from = 'lama-7b': expected the name of a model of this file or of "
        "the catalogue; `holotype list` names all",
        "variants[large].derives_from = 'smal': expected the name of a model of this file or of "
        'the catalogue; did you mean "small"?',
    ]


def test_a_cycle_is_told_with_its_names_for_each_of_its_members(tmp_path: Path) -> None:
    path = written(tmp_path, ("a", "b"), ("b", "c"), ("c", "a"), ("d", "d"))
    mend = "; let one of them derive from no other"
    assert refused(path) == [
        f"variants[a].derives_from = 'b': expected a line of descent that ends: a → b → c → a{mend}",
        f"variants[b].derives_from = 'c': expected a line of descent that ends: b → c → a → b{mend}",
        f"variants[c].derives_from = 'a': expected a line of descent that ends: c → a → b → c{mend}",
        f"variants[d].derives_from = 'd': expected a line of descent that ends: d → d{mend}",
    ]


def test_mistakes_of_descent_and_all_others_are_told_at_once(tmp_path: Path) -> None:
    more = "kv_heads = 7\nn_layer = 3\n[variants.architecture]\nresidual = 'post'\n"
    path = written(tmp_path, ("lost", "nothing"), ("mine", "llama-7b"), more=more)
    found = refused(path)
    assert [line.partition(":")[0] for line in found] == [
        "variants[lost].derives_from = 'nothing'",
        "variants[mine].n_layer = 3",
        "variants[mine].architecture.residual = 'post'",
        "variants[mine].kv_heads = 7",
    ]
    assert found[3].endswith(
        "expected a divisor of heads (32); as many query heads share each key-value head"
    )


def test_what_is_shared_by_nobody_is_refused(tmp_path: Path) -> None:
    more = '[architecture]\nstructure = "decoder"\n'
    found = refused(written(tmp_path, ("mine", "llama-7b"), more=more))
    assert found[-1].startswith(
        "architecture: expected no architecture where every variant derives"
    )


def test_a_variant_that_derives_from_nothing_needs_an_architecture_and_all_sizes(
    tmp_path: Path,
) -> None:
    more = '[[variants]]\nname = "own"\nlayers = 3\nparameters = {published = "1", source = "me"}\n'
    found = refused(written(tmp_path, ("mine", "llama-7b"), more=more))
    assert "architecture: expected a value: nothing has a default; add the key" in found
    assert "variants[own].heads: expected a value: nothing has a default; add the key" in found
    assert "family.checkpoint: expected a value: nothing has a default; add the key" in found
    assert not any("layers" in line or "variants[mine]" in line for line in found)


def written_trees() -> dict[str, dict[str, Any]]:
    return {
        variant["name"]: variant
        for path in MODELS.glob("*.toml")
        for variant in tomllib.loads(path.read_text(encoding="utf-8"))["variants"]
    }


def test_every_line_of_the_catalogue_ends_at_a_model_that_derives_from_none() -> None:
    for name, tree in written_trees().items():
        line = line_of_descent(find(name))
        assert bool(line) == ("derives_from" in tree)
        assert not line or find(line[-1]).derives_from is None


def test_only_specs_are_loaded() -> None:
    assert isinstance(load("gpt2"), Spec)
