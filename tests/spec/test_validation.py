"""Spec files: what is refused, and how it is told."""

import copy
import json
import tomllib
from collections.abc import Callable
from datetime import date
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from holotype_spec import Network, Problem, Sketch, SpecError
from holotype_spec.catalogue import MODELS, places
from holotype_spec.descent import Place, local, overlaid
from holotype_spec.files import Entry, entries
from holotype_spec.files import parsed as parsed_path
from holotype_spec.validation import SCHEMA, json_schema, schema_text

Tree = dict[str, Any]


@cache
def parsed(family: str) -> Tree:
    return tomllib.loads((MODELS / f"{family}.toml").read_text(encoding="utf-8"))


def document(family: str = "llama") -> Tree:
    return copy.deepcopy(parsed(family))


def mistakes(changed: Tree) -> list[str]:
    with pytest.raises(SpecError) as caught:
        entries(changed, "mine.toml")
    assert str(caught.value) == "\n".join(map(str, caught.value.errors))
    return [str(error) for error in caught.value.errors]


def test_the_shipped_schema_is_that_of_the_classes() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "write it anew: python -m holotype_spec.validation"
    )


@pytest.mark.slow
def test_the_schema_is_valid_and_accepts_every_shipped_file() -> None:
    Draft202012Validator.check_schema(json_schema())
    validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    for path in MODELS.glob("*.toml"):
        assert list(validator.iter_errors(tomllib.loads(path.read_text(encoding="utf-8")))) == []


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    changed = document()
    first, second, third, last = changed["variants"][:4]
    first |= {"layers": -1, "kv_heads": "32", "n_layer": 3}
    second |= {"name": "llama-7b", "hidden_size": 77}
    third["parameters"]["source"] = "me"
    last["architecture"]["normalization"]["eps"] = True
    changed["architecture"]["attention"]["pattern"] = {"kind": "slidng-window"}
    changed["architecture"]["normalization"] |= {"eps": "1e-5", "esp": 1}
    changed["architecture"]["feed_forward"]["activation"] = "swiglu"
    del changed["architecture"]["tied_embeddings"]
    changed["family"]["transformers"]["fields"]["head_dim"] = "headdim"
    found = mistakes(changed)
    for start, end in [
        ("variants[llama-7b].layers = -1: expected a whole number from 1", "correct the value"),
        ("variants[llama-7b].kv_heads = '32': expected a whole", "without quotes"),
        ("variants[llama-7b].n_layer = 3: expected one of", 'called "layers" here'),
        ("variants[llama-7b].name = 'llama-7b': expected", "rename one of them"),
        ("variants[llama-7b].head_dim = 128: expected hidden_size / heads (77 / 40)", ""),
        ("variants[llama-30b].parameters.source = 'me': expected the id", "add the source"),
        ("variants[llama-65b].architecture.normalization.eps = True: expected a number", ""),
        ("architecture.attention.pattern.kind = 'slidng-window'", 'mean "sliding-window"?'),
        ("architecture.normalization.eps = '1e-5': expected a number greater", "without quotes"),
        ("architecture.normalization.esp = 1: expected one of the keys", 'mean "eps"?'),
        ("architecture.feed_forward.activation = 'swiglu': expected one", 'mean "silu"?'),
        ("architecture.tied_embeddings: expected a value", "add the key"),
        ("family.transformers.fields.head_dim = 'headdim': expected the path", 'mean "head_dim"?'),
    ]:
        assert any(
            line.startswith(f"mine.toml: {start}") and line.endswith(end) for line in found
        ), (start, found)
    assert len(found) == 13


def edit(path: str, value: Any) -> Callable[[Tree], None]:
    """Set what stands at a dotted path."""

    def apply(tree: Tree) -> None:
        *tables, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        node: Any = tree
        for part in tables:
            node = node[part]
        node[last] = value

    return apply


@pytest.mark.parametrize(
    ("family", "path", "value", "expected"),
    [
        ("llama2", "variants.3.kv_heads", 7, "kv_heads = 7: expected a divisor of heads (64)"),
        ("llama2", "variants.3.kv_heads", 128, "kv_heads = 128: expected a divisor of heads (64)"),
        ("gpt2", "variants.0.heads", 11, "head_dim = 64: expected hidden_size / heads (768 / 11)"),
        ("gpt2", "variants.0.ffn_size", 3073, "ffn_size = 3073: expected 4 * hidden_size"),
        ("gpt2", "architecture.normalization.final", False, None),
        ("gpt2", "architecture.residual", "post-norm", "final = True: expected false"),
        (
            "gpt2",
            "architecture.attention.pattern",
            {"kind": "bidirectional"},
            'pattern.kind = \'bidirectional\': expected "bidirectional", "permutation" or "mixture" in an encoder',
        ),
        (
            "bert",
            "architecture.attention.pattern",
            {"kind": "sliding-window", "window": 4},
            "pattern.kind = 'sliding-window'",
        ),
        (
            "bert",
            "architecture.attention.pattern",
            {"kind": "bidirectional", "window": 4},
            "pattern.window = 4: expected one of the keys kind",
        ),
        ("bert", "architecture.structure", "decoder", "head.kind = 'masked-language-model'"),
        (
            "bert",
            "architecture.objective",
            ["masked-lm"],
            "sentence_pair = 'next-sentence': expected",
        ),
        (
            "bert",
            "architecture.objective",
            ["masked-lm", "sentence-order-prediction"],
            "sentence_pair = 'next-sentence': expected",
        ),
        ("bert", "architecture.head.sentence_pair", "none", "sentence_pair = 'none': expected"),
        (
            "bert",
            "architecture.attention.pattern",
            {"kind": "permutation"},
            "kind = 'permutation': expected \"permutation\" exactly where the objective has",
        ),
        (
            "bert",
            "architecture.attention.pattern",
            {
                "kind": "mixture",
                "bidirectional": 0.5,
                "left_to_right": 0.25,
                "right_to_left": 0.25,
                "sequence_to_sequence": 0.25,
            },
            "sequence_to_sequence = 0.25: expected four shares that sum to 1",
        ),
        ("bert", "architecture.encoder_layers", 3, '"none" elsewhere (this is: encoder)'),
        ("t5", "architecture.encoder_layers", "none", "encoder_layers = 'none': expected a number"),
        ("t5", "architecture.encoder_layers", 3, None),
        (
            "bert",
            "architecture.positions",
            {"kind": "disentangled", "max_distance": 9, "terms": []},
            "terms = []: expected one or two terms",
        ),
        (
            "gpt2",
            "architecture.head",
            {"kind": "replaced-token", "activation": "gelu"},
            'kind = \'replaced-token\': expected "language-model" or "multi-token" in a decoder',
        ),
        ("gpt2", "architecture.objective", ["masked-lm"], 'expected no "masked-lm"'),
        ("bert", "architecture.objective", ["causal-lm"], 'expected no "causal-lm"'),
        ("gpt2", "architecture.objective", ["causal-lm"] * 2, "each objective once"),
        ("gpt2", "architecture.objective", [], "objective = []: expected at least 1"),
        ("gpt2", "architecture.attention.biases", ["key", "key"], "each projection once"),
        ("t5", "architecture.positions.buckets", 30, "buckets = 30: expected a multiple of 4"),
        ("t5", "architecture.positions.max_distance", 16, "expected more than half the buckets"),
        ("llama", "architecture.positions.theta", float("inf"), "theta = inf: expected a finite"),
        ("llama", "architecture.positions.theta", float("nan"), "theta = nan: expected a"),
        ("llama", "architecture.positions.theta", 0, "theta = 0: expected a number greater than 0"),
        ("gpt2", "architecture.dropout.rate", 1.0, "dropout.rate = 1.0: expected a probability"),
        ("gpt2", "architecture.dropout", 0.1, "dropout = 0.1: expected a table"),
        ("gpt2", "architecture.dropout.rate", 0.0, "sites exactly where the rate is above 0"),
        ("gpt2", "architecture.dropout.sites", [], "sites = []: expected sites exactly where"),
        ("llama", "architecture.dropout.sites", ["final"], "sites = ['final']: expected sites"),
        ("gpt2", "architecture.dropout.sites", ["final"] * 2, "each site once"),
        (
            "gpt2",
            "architecture.dropout.sites",
            ["residual", "feed-forward-output"],
            'expected no "feed-forward-output" beside "residual"',
        ),
        (
            "gpt2",
            "architecture.dropout.sites",
            ["residual", "attention-output"],
            'expected no "attention-output" beside "residual"',
        ),
        ("gpt2", "architecture.dropout.sites", ["ffn"], 'expected one of "attention"'),
        ("gpt2", "architecture.decoder_start_id", 0, '"none" elsewhere (this is: decoder)'),
        (
            "t5",
            "architecture.decoder_start_id",
            "none",
            "expected a token id in an encoder-decoder",
        ),
        ("t5", "architecture.decoder_start_id", "last-label", None),
        ("t5", "architecture.decoder_start_id", -1, 'id = -1: expected a token id or "last'),
        ("t5", "architecture.decoder_start_id", "0", "id = '0': expected a token id or \"last"),
        ("t5", "architecture.decoder_start_id", 32_128, "expected less than vocab_size (32128)"),
        (
            "llama3.1",
            "architecture.positions.scaling.high_freq_factor",
            1.0,
            "high_freq_factor = 1.0: expected more than low_freq_factor (1.0)",
        ),
        (
            "llama",
            "architecture.positions.scaling",
            {"kind": "none", "factor": 8.0},
            "scaling.factor = 8.0: expected one of the keys kind",
        ),
        ("gpt2", "variants.0.layers", 12.5, "layers = 12.5: expected a whole number"),
        ("gpt2", "variants.0.layers", True, "layers = True: expected a whole number"),
        ("gpt2", "variants.0.layers", 10**30, "expected a whole number from 1 to a billion"),
        ("gpt2", "variants.0.name", "GPT 2", "name = 'GPT 2': expected a lower-case name"),
        ("gpt2", "variants.1.aliases", ["gpt2"], "aliases = 'gpt2': expected name and aliases"),
        ("gpt2", "variants", [], "variants = []: expected at least 1"),
        ("gpt2", "variants", {}, "variants = {}: expected a list"),
        ("gpt2", "variants.0", 3, "variants[0] = 3: expected a table"),
        ("gpt2", "family", date(2024, 1, 1), "expected a table"),
        ("gpt2", "family.sources.0.url", "a book", "expected a web address"),
        ("gpt2", "family.sources.1.id", "radford2019", "expected id that no other entry has"),
        ("gpt2", "family.transformers.fields.n_layer", "layer", 'did you mean "layers"?'),
        ("gpt2", "family.transformers.fields.n_layer", "architecture.head", "a plain value"),
        ("gpt2", "family.transformers.constants.n_layer", 3, "not already given by n_layer"),
        ("llama", "family.transformers.constants.rope_parameters", "x", "not already given by"),
        ("llama", "family.transformers.absent", ["mlp_bias"], "not already given by mlp_bias"),
        (
            "deberta",
            "family.transformers.differences.0.field",
            "architecture.heads",
            'did you mean "architecture.head"?',
        ),
        (
            "llama",
            "variants.0.architecture",
            {"positions": {"kind": "learned"}},
            "variants[llama-7b].architecture.positions.offset: expected a value",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_key_value_and_what_was_expected(
    family: str, path: str, value: Any, expected: str | None
) -> None:
    changed = document(family)
    edit(path, value)(changed)
    if expected is None:
        assert entries(changed, "mine.toml")
    else:
        found = mistakes(changed)
        assert any(expected in line for line in found), found


def test_rotary_positions_need_an_even_head() -> None:
    changed = document("llama")
    changed["architecture"]["attention"]["head_dim"] = "independent"
    changed["variants"][0]["head_dim"] = 127
    assert mistakes(changed) == [
        "mine.toml: variants[llama-7b].head_dim = 127: expected an even number of dimensions that turn "
        "(1.0 of them); "
        "rotary positions turn the dimensions of a head in pairs"
    ]


def test_a_mechanism_without_its_kind_is_told_so_and_its_other_keys_are_left_alone() -> None:
    changed = document("mistral")
    del changed["architecture"]["attention"]["kind"]
    changed["architecture"]["attention"]["biases"] = None
    assert [line.partition(": expected")[0] for line in mistakes(changed)] == [
        "mine.toml: architecture.attention.kind"
    ]


def test_a_mistake_of_the_family_is_told_once_and_not_for_each_variant() -> None:
    changed = document("gpt2")
    changed["architecture"]["residual"] = "post-norm"
    assert len(mistakes(changed)) == 1


def test_another_kind_replaces_a_mechanism_whole() -> None:
    old: Tree = {
        "positions": {"kind": "rotary", "theta": 1.0, "pairing": "half-split"},
        "dropout": 0.1,
    }
    new = overlaid(old, {"positions": {"kind": "learned", "offset": 0}})
    assert new == {"positions": {"kind": "learned", "offset": 0}, "dropout": 0.1}
    same = overlaid(old, {"positions": {"kind": "rotary", "theta": 2.0}})
    assert same["positions"] == {"kind": "rotary", "theta": 2.0, "pairing": "half-split"}
    assert old["positions"]["theta"] == 1.0


# Fuzzing ---------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        [
            "rotary",
            "learned",
            "sliding-window",
            "encoder",
            "post-norm",
            "gpt2",
            "none",
            "undisclosed",
            "gpt-4-rumour",
            "mamba-130m",
        ]
    ),
    st.dates(),
)
ADDED = ("architecture", "network", "derives_from", "stated", "rumour", "layers", "kind")
# Models whole and derived, a sketch, and networks.
FUZZED = (
    "bert",
    "gpt2",
    "llama",
    "mistral",
    "t5",
    "codellama",
    "gpt-4-rumour",
    "elmo",
    "mamba",
    "tulu",
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "name", "id", "x", ""]), inner, max_size=3)
    ),
    max_leaves=4,
)


def containers(node: Any) -> list[Any]:
    inner = list(
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    )
    own = [node] if isinstance(node, dict | list) and node else []
    return own + [each for child in inner for each in containers(child)]


def mutate(data: st.DataObject, tree: Tree) -> None:
    node = data.draw(st.sampled_from(containers(tree)))
    where = st.sampled_from(list(node) if isinstance(node, dict) else range(len(node)))
    match data.draw(st.sampled_from(["replace", "delete", "add", "move"])):
        case "replace":
            node[data.draw(where)] = data.draw(VALUES)
        case "delete":
            del node[data.draw(where)]
        case "add" if isinstance(node, dict):
            node[data.draw(st.text(max_size=4) | st.sampled_from(ADDED))] = data.draw(VALUES)
        case _:
            other = data.draw(st.sampled_from(containers(tree)))
            node[data.draw(where)] = copy.deepcopy(other)


@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("gpt-4-rumour", ("variants", 0, "stated", 0, "parameters")),
        ("llama", ("variants", 0, "layers")),
    ],
)
def test_a_whole_number_with_a_fraction_is_no_integer(family: str, path: tuple[Any, ...]) -> None:
    changed = document(family)
    node: Any = changed
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = 1.0
    errors, loaded = outcome(changed)
    assert not loaded
    assert any(problem.key.endswith(str(path[-1])) for problem in errors), errors


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(FUZZED))
@pytest.mark.slow
def test_a_mutated_file_loads_as_it_says_or_raises_a_spec_error_that_says_something(
    data: st.DataObject, family: str
) -> None:
    changed = document(family)
    for _ in range(data.draw(st.integers(1, 4))):
        if containers(changed):
            mutate(data, changed)
    errors, loaded = outcome(changed)
    assert bool(errors) != bool(loaded)
    assert all(problem.file == "fuzzed.toml" and problem.key for problem in errors)
    for variant, entry in zip(changed["variants"] if loaded else (), loaded, strict=True):
        shared = {} if "derives_from" in variant else changed
        for whole in ("architecture", "network"):
            assert_told(overlaid(shared.get(whole, {}), variant.get(whole, {})), entry, whole)
        for key in variant.keys() - {"architecture", "network"}:
            assert_told(variant[key], entry, key)


def assert_told(said: Any, entry: Entry, key: str) -> None:
    """What the file says under the key, and no other value, is what was loaded."""
    facts = entry.facts() if isinstance(entry, Sketch) else msgspec.to_builtins(entry)
    whole = "network" if isinstance(entry, Network) else "architecture"
    if key in ("architecture", "network") and key != whole:
        assert said == {}
    else:
        assert_within(said, facts[key])


def assert_within(said: Any, told: Any) -> None:
    if isinstance(said, dict):
        assert set(said) <= set(told)
        for key, value in said.items():
            assert_within(value, told[key])
    elif isinstance(said, list):
        for value, other in zip(said, told, strict=True):
            assert_within(value, other)
    else:
        assert told == said
        assert isinstance(told, bool) == isinstance(said, bool)


def outcome(changed: Tree) -> tuple[list[Problem], tuple[Entry, ...]]:
    try:
        return [], entries(changed, "fuzzed.toml", in_catalogue)
    except SpecError as error:
        return error.errors, ()


def in_catalogue(name: str) -> Place | None:
    place = next((place for place in places() if name in (place.name, *place.aliases)), None)
    return place and local(parsed_path(place.path), str(place.path), place.name)
