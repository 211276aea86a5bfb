"""The catalogue: names, aliases, files of one's own, and what loading costs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import holotype_spec
from holotype_spec import (
    NoSpec,
    SpecError,
    UnknownSpec,
    aliases,
    complete,
    entries,
    families,
    find,
    generics,
    load,
    names,
    originals,
)
from holotype_spec.catalogue import MODELS, places

# Names that users load, in their order, typed by hand: none of them may go, or move to another family.
PUBLIC = {
    # descendants
    "alpaca": "alpaca-7b",
    "giraffe": "giraffe-13b-4k giraffe-13b-16k giraffe-13b-32k",
    "gorilla": "gorilla-7b",
    "guanaco": "guanaco-7b guanaco-13b guanaco-33b guanaco-65b",
    "koala": "koala-13b",
    "llama2-chat": "llama2-7b-chat llama2-13b-chat llama2-34b-chat llama2-70b-chat",
    "long-llama": "long-llama-3b",
    "open-llama": "open-llama-3b",
    "orca": "orca-13b",
    "stable-beluga": "stable-beluga-2",
    "tulu": "tulu-7b tulu-13b tulu-30b tulu-65b",
    "vicuna": "vicuna-7b vicuna-13b",
    "vigogne": "vigogne-7b vigogne-13b vigogne-33b",
    "instructgpt": "instructgpt-1.3b instructgpt-6b instructgpt-175b",
    "codex": "codex-85m codex-300m codex-679m codex-2.5b codex-12b",
    "webgpt": "webgpt-760m webgpt-13b webgpt-175b",
    "u-palm": "u-palm-8b u-palm-62b u-palm-540b",
    "flan-palm": "flan-palm-8b flan-palm-62b flan-palm-540b flan-u-palm-540b",
    "med-palm": "med-palm-540b",
    "flan": "flan-137b",
    # the others
    "albert-v1": "albert-base-v1 albert-large-v1 albert-xlarge-v1 albert-xxlarge-v1",
    "albert-v2": "albert-base-v2 albert-large-v2 albert-xlarge-v2 albert-xxlarge-v2",
    "alexatm": "alexatm-20b",
    "bart": "bart-base bart-large",
    "bert": "bert-base-uncased bert-large-uncased bert-base-cased bert-large-cased biobert-base-cased",
    "bloom": "bloom-560m bloom-1b1 bloom-1b7 bloom-3b bloom-7b1 bloom-176b",
    "codellama": "codellama-7b codellama-13b codellama-34b codellama-7b-python codellama-13b-python codellama-70b",
    "chatgpt": "chatgpt",
    "deepseek-v2": "deepseek-v2",
    "deepseek-v2-lite": "deepseek-v2-lite",
    "deepseek-v3": "deepseek-v3",
    "deepseek-llm": "deepseek-llm-7b deepseek-llm-67b",
    "deberta": "deberta-base deberta-large",
    "electra": "electra-small-discriminator electra-base-discriminator electra-large-discriminator",
    "electra-generator": "electra-small-generator electra-base-generator electra-large-generator",
    "digits": "digits-784-16-16-10",
    "distilbert": "distilbert-base-uncased",
    "elmo": "elmo-small elmo-medium elmo-original",
    "gemini": "gemini-ultra gemini-pro gemini-nano-1 gemini-nano-2",
    "gpt": "gpt-1",
    "opt-350m": "opt-350m",
    "baichuan-7b": "baichuan-7b",
    "baichuan-13b": "baichuan-13b",
    "qwen": "qwen-1.8b qwen-7b qwen-14b qwen-72b",
    "chatglm2": "chatglm2-6b",
    "chatglm3": "chatglm3-6b",
    "glm-4": "glm-4-9b glm-4",
    "chatglm": "chatglm-6b",
    "glm": "glm-base glm-large glm-410m glm-515m glm-2b glm-10b",
    "glm-130b": "glm-130b",
    "mt-nlg": "mt-nlg-530b",
    "gpt-4": "gpt-4",
    "gpt-4-rumour": "gpt-4-rumour",
    "gpt-4o": "gpt-4o",
    "gpt3": "gpt3-125m gpt3-350m gpt3-760m gpt3-1.3b gpt3-2.7b gpt3-6.7b gpt3-13b gpt3-175b",
    "gopher": "gopher-44m gopher-117m gopher-417m gopher-1.4b gopher-7.1b gopher-280b",
    "chinchilla": "chinchilla-70b",
    "lamda": "lamda-137b",
    "glam": "glam-64b-64e",
    "bloomberggpt": "bloomberggpt-50b",
    "palm": "palm-8b palm-62b palm-540b",
    "gpt-j": "gpt-j-6b",
    "gpt2": "gpt2 gpt2-medium gpt2-large gpt2-xl",
    "llama": "llama-7b llama-13b llama-30b llama-65b",
    "llama2": "llama2-7b llama2-13b llama2-34b llama2-70b",
    "llama3": "llama3-8b llama3-70b",
    "llama3.1": "llama3.1-8b llama3.1-70b llama3.1-405b",
    "llama3.2": "llama3.2-1b llama3.2-3b",
    "mamba": "mamba-130m mamba-370m mamba-790m mamba-1.4b mamba-2.8b",
    "mass": "mass-base-uncased mass-middle-uncased",
    "mbart": "mbart-large-cc25 mbart-large-50",
    "mistral": "mistral-7b-v0.1",
    "mistral-v0.3": "mistral-7b-v0.3",
    "mixtral": "mixtral-8x7b mixtral-8x22b",
    "mt5": "mt5-small mt5-base mt5-large mt5-xl mt5-xxl",
    "opt": "opt-125m opt-1.3b opt-2.7b opt-6.7b opt-13b opt-30b opt-66b opt-175b",
    "palm-2": "palm-2-s palm-2-m palm-2-l",
    "qwen1.5": "qwen1.5-0.5b qwen1.5-1.8b qwen1.5-4b qwen1.5-7b qwen1.5-14b qwen1.5-32b qwen1.5-72b "
    "qwen1.5-110b",
    "qwen2": "qwen2-0.5b qwen2-1.5b qwen2-7b qwen2-72b",
    "qwen2.5": "qwen2.5-0.5b qwen2.5-1.5b qwen2.5-3b qwen2.5-7b qwen2.5-14b qwen2.5-32b qwen2.5-72b",
    "rwkv4": "rwkv4-169m rwkv4-430m rwkv4-1b5 rwkv4-3b rwkv4-7b rwkv4-14b",
    "roberta": "roberta-base roberta-large",
    "t5": "t5-small t5-base t5-large t5-3b t5-11b",
    "t5-v1_1": "t5-v1_1-small t5-v1_1-base t5-v1_1-large t5-v1_1-xl t5-v1_1-xxl flan-t5-small "
    "flan-t5-base flan-t5-large flan-t5-xl flan-t5-xxl t0-3b t0-11b",
    "st-moe": "st-moe-32b",
    "transformer": "transformer-base transformer-big",
    "unilm-v1": "unilm-v1-base-cased unilm-v1-large-cased",
    "xlm-e": "xlm-e-base",
    "xlm": "xlm-mlm-en-2048",
    "xlnet": "xlnet-base-cased xlnet-large-cased",
    "yi": "yi-6b yi-34b yi-9b",
}


@pytest.mark.parametrize("family", PUBLIC)
def test_a_public_name_stays_where_it_is(family: str) -> None:
    public = PUBLIC[family].split()
    assert [name for name in names(family) if name in public] == public


def test_a_family_is_listed_once_and_has_models() -> None:
    assert len(set(families())) == len(families())
    assert {family for family in families() if names(family)} == {*families()}


def test_every_name_finds_the_entry_of_that_name() -> None:
    assert [find(name).name for name in names()] == [entry.name for entry in entries()] == names()


def test_load_gives_what_is_complete_and_says_why_the_others_are_not() -> None:
    specs = complete()
    assert {spec.name for spec in specs} < set(names())
    assert all(load(spec.name) is spec for spec in specs)
    for name in set(names()) - {spec.name for spec in specs}:
        with pytest.raises(NoSpec, match=f"^{name} has no complete spec: "):
            load(name)


def test_the_original_specs_are_those_that_derive_from_none() -> None:
    assert originals("mistral") == ["mistral-7b-v0.1"]
    assert set(originals()) <= {spec.name for spec in complete()}
    assert all(load(name).derives_from is None for name in originals())


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("gpt2-small", "gpt2"),
        ("bert-base", "bert-base-uncased"),
        ("bert-large", "bert-large-uncased"),
        ("llama-33b", "llama-30b"),
        ("llama-2-70b", "llama2-70b"),
        ("LLaMA-7B", "llama-7b"),
    ],
)
def test_an_alias_or_another_case_loads_the_same_spec(alias: str, name: str) -> None:
    assert load(alias) is load(name)


def test_no_name_or_alias_means_two_specs() -> None:
    keys = [key for place in places() for key in (place.name, *place.aliases)]
    assert len(keys) == len(set(keys))


def test_names_read_off_the_lines_are_those_that_the_parser_finds() -> None:
    parsed = {}
    for path in MODELS.glob("*.toml"):
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        for variant in document["variants"]:
            parsed[variant["name"]] = (document["family"]["name"], tuple(variant["aliases"]))
    assert {place.name: (place.family, place.aliases) for place in places()} == parsed


def test_a_family_lists_its_own_members() -> None:
    assert {*PUBLIC, "generic"} <= {*families()}
    assert names("llama3") == ["llama3-8b", "llama3-70b"]
    assert aliases()["mistral-7b"] == "mistral-7b-v0.1"


def test_the_generic_specs_are_no_models_and_bind_little() -> None:
    assert generics() == names("generic") == ["causal-decoder", "encoder", "encoder-decoder"]
    assert not set(generics()) & set(names())
    assert all(entry.family.binding == "all" for entry in entries())
    for spec in map(load, generics()):
        assert spec.family.binds("architecture.attention.pattern")
        assert not spec.family.binds("architecture.positions")


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(
        UnknownSpec, match=r"unknown spec 'gpt2-xxl': did you mean gpt2-xl"
    ) as caught:
        load("gpt2-xxl")
    assert caught.value.nearest[0] == "gpt2-xl"
    assert isinstance(caught.value, ValueError)


def test_the_organisation_in_front_of_a_name_does_not_hide_it() -> None:
    with pytest.raises(UnknownSpec, match=r"'openai-community/gpt2': did you mean gpt2\?"):
        holotype_spec.load("openai-community/gpt2")


def test_an_unknown_family_tells_the_nearest() -> None:
    with pytest.raises(UnknownSpec, match="unknown family 'lama': did you mean llama"):
        names("lama")


def test_a_name_like_no_other_points_to_the_list() -> None:
    with pytest.raises(UnknownSpec, match="holotype list"):
        load("§§§")


def test_a_file_of_ones_own_loads_by_path_and_variant(tmp_path: Path) -> None:
    text = (MODELS / "gpt2.toml").read_text(encoding="utf-8")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("layers = 12", "layers = 13"), encoding="utf-8")
    assert load(f"{path}:gpt2").layers == 13
    assert load(f"{path}:gpt2-small").layers == 13
    with pytest.raises(UnknownSpec, match=r"no variant is named, as in .*: did you mean gpt2"):
        load(str(path))
    with pytest.raises(UnknownSpec, match=r"unknown variant 'gpt3': did you mean gpt2"):
        load(f"{path}:gpt3")


def test_a_file_with_one_variant_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    path.write_text((MODELS / "mistral.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert load(str(path)) == load("mistral-7b")


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"layers = = 3", b"[family\n"])
def test_a_file_that_is_no_toml_is_a_spec_error_with_its_name(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=r"bad\.toml: expected a TOML file") as caught:
        load(str(path))
    assert len(caught.value.errors) == 1


def test_specs_are_frozen_and_can_be_keys() -> None:
    spec = load("gpt2")
    with pytest.raises(AttributeError):
        spec.layers = 3  # type: ignore[misc]
    assert {spec: 1}[load("gpt2-small")] == 1


def test_a_spec_offers_its_probe() -> None:
    spec = load("llama2-70b")
    assert spec.probe() == holotype_spec.probe(spec)
    assert spec.probe(layers=3).layers == 3


def test_importing_the_package_imports_none_of_its_parts() -> None:
    code = (
        "import sys, holotype_spec; "
        "print([m for m in sys.modules if m.startswith('holotype_spec.') or m in "
        "('msgspec', 'numpy', 'torch', 'jsonschema')])"
    )
    assert _python(code) == "[]"


@pytest.mark.slow
def test_loading_and_counting_imports_neither_torch_nor_numpy_nor_jsonschema() -> None:
    code = (
        "import sys, holotype_spec as h; [h.count_parameters(s) for s in h.complete()]; "
        "print([m for m in ('numpy', 'torch', 'jsonschema', 'holotype_spec.validation') "
        "if m in sys.modules])"
    )
    assert _python(code) == "[]"


def test_every_name_in_all_is_there() -> None:
    for name in holotype_spec.__all__:
        assert getattr(holotype_spec, name) is not None
    assert set(holotype_spec.__all__) <= set(dir(holotype_spec))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = holotype_spec.nothing


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()
