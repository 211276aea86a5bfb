"""The spec that a configuration of another project is, or the nearest one and the fields that differ.

Two formats: the ``config.json`` of Hugging Face `transformers`, compared key by key with what each spec says that its
class must be given; and the header of a GGUF file, whose keys are those of `holotype_spec.field_names`. Nothing that a
file leaves out is taken for granted: it is reported as not stated, with the default that `transformers` would take
(of the version that ``transformers_defaults.json`` names), and that default is what is compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from holotype_spec.catalogue import complete, line_of_descent
from holotype_spec.counts import count_parameters
from holotype_spec.field_names import FIELD_NAMES, ours
from holotype_spec.gguf_header import MAGIC, GGUFError, Length, read_header
from holotype_spec.reading import (
    MEGABYTE,
    Unreadable,
    parse_json,
    read_bytes,
    refuse_what_is_no_file,
)
from holotype_spec.schema import SIZES, LayerNorm, RMSNorm, Rotary, Spec, Transformers

DEFAULTS = Path(__file__).parent / "transformers_defaults.json"
DEEPEST = 8  # tables inside tables
NAMED_BY = (
    "layers",
    "hidden_size",
    "heads",
    "ffn_size",
)  # what a header must state to be that of a spec
LARGEST_SIZE = 1 << 63  # what a spec can hold
LARGEST = 4 * MEGABYTE  # of a configuration; published ones have a few thousand bytes
ENTRIES = 100_000  # in it, as in the labels of a model that tells thousands of things apart
TRAINING_ONLY = "architecture.dropout.rate"
# Token ids that no spec speaks of, and what decides nothing about what is computed once there are weights.
WITHOUT_MEANING = re.compile(
    r"(_token_ids?|_index|_coef|_alpha|_noise|_dropout)$|^(initializer|init_|use_cache|summary_|classifier_|pretraining_tp"
    r"|start_n_top|end_n_top|max_window_layers|seq_aux|lang_id|use_lang_emb|is_encoder|ep_size|output_router_logits"
    r"|use_mems|mem_len|reuse_len)"
)
SYNONYMS = {"gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new", "swish": "silu"}
# Where it is null or left out (and the class has no number of its own), a size is another one, or their quotient.
FOLLOWS = {
    "num_key_value_heads": ("num_attention_heads",),
    "head_dim": ("hidden_size", "num_attention_heads"),
    "d_head": ("d_model", "n_head"),
    "num_decoder_layers": ("num_layers",),
    "word_embed_proj_dim": ("hidden_size",),
}
# GGUF calls some architectures by another name than `transformers`; "llama" is whatever is built like it.
GGUF_NAMES = {"deepseek2": ("deepseekv2", "deepseekv3"), "gptj": ("gptj",)}

Tree = dict[str, Any]


class UnreadableConfig(ValueError):
    """A file that is no configuration which can be compared."""


class Difference(NamedTuple):
    """One thing that a file says otherwise than the spec; `field` is ours, None where we have none.

    `stated` is False where the file says nothing and the default of `transformers` is meant.
    """

    key: str
    field: str | None
    theirs: Any
    ours: Any
    stated: bool
    effect: str


class NotStated(NamedTuple):
    """A key that a file leaves to a default, which happens to be right or is not known here (None)."""

    key: str
    field: str | None
    default: Any


class Comparison(NamedTuple):
    """A file held against one spec."""

    spec: Spec
    differences: tuple[Difference, ...]
    not_stated: tuple[NotStated, ...]

    @property
    def distance(self) -> float:
        """The distance of the two; fields of training alone count little, and a name not at all."""
        return sum(0.1 if each.field == TRAINING_ONLY else 1.0 for each in self.differences)


class Identity(NamedTuple):
    """The identity of a file.

    `model` is what the file calls its kind; `names` are the specs with which it agrees in everything, none or several
    (none for a header that leaves sizes out);
    `nearest` is the first of these, or the spec with the fewest differences.
    """

    format: str
    model: str
    names: tuple[str, ...]
    nearest: Comparison
    known_model: bool


def identify(path: Path) -> Identity:
    """The identity of the configuration in `path`; a folder stands for the ``config.json`` in it.

    Raises:
        UnreadableConfig: it is not there, or no configuration that can be compared.
    """
    if path.is_dir():
        path = path / "config.json"
    try:
        refuse_what_is_no_file(str(path))
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if start == MAGIC:
            return _of_gguf(read_header(path), path)
        return of_configuration(_read_json(path), str(path))
    except OSError as error:
        raise UnreadableConfig(f"{path} cannot be read: {error.strerror}") from error
    except (GGUFError, Unreadable) as error:
        raise UnreadableConfig(str(error)) from error


# transformers ---------------------------------------------------------------------------------------------


def of_configuration(config: Tree, name: str) -> Identity:
    """The identity of a configuration of `transformers`, given as parsed JSON; errors call it `name`.

    Raises:
        UnreadableConfig: it does not say what kind of model it is of.
    """
    config = _of_text(config)
    model = config.get("model_type")
    if not isinstance(model, str) or not model:
        raise UnreadableConfig(
            f"{name} has no model_type, so that it cannot be said what its keys mean;"
            ' expected the config.json of a model, with a line like "model_type": "llama"'
        )
    stated = modernised(flat(config))
    described = [spec for spec in complete() if spec.family.transformers != "none"]
    kin = [
        spec for spec in described if _plain(_theirs(spec).config_class) == f"{_plain(model)}config"
    ]
    compared = sorted((_compared(spec, stated) for spec in kin or described), key=_rank)
    return _identity("transformers", model, compared, known=bool(kin))


def configuration(spec: Spec) -> Tree:
    """The values that the configuration of a spec's class is given: dotted key -> value."""
    theirs = _theirs(spec)
    told: Tree = dict.fromkeys(theirs.absent) | theirs.constants
    return told | {
        key: reduce(getattr, path.split("."), spec) for key, path in theirs.fields.items()
    }


def flat(tree: Tree, prefix: str = "", depth: int = 0) -> Tree:
    """A tree as one level of dotted keys; an empty table is null, and one that is nested too deep is left whole."""
    found: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value and depth < DEEPEST:
            found |= flat(value, f"{prefix}{key}.", depth + 1)
        else:
            found[f"{prefix}{key}"] = None if value == {} else value
    return found


def modernised(stated: Tree) -> Tree:
    """The keys of today: until its version 5 `transformers` wrote rotary positions as rope_theta and rope_scaling."""
    found = {}
    for key, value in stated.items():
        if key == "rope_theta":
            found["rope_parameters.rope_theta"] = value
        elif key.startswith("rope_scaling."):
            last = key.removeprefix("rope_scaling.")
            found[f"rope_parameters.{'rope_type' if last == 'type' else last}"] = value
        elif key not in ("rope_scaling", "rope_parameters"):
            found.setdefault(key, value)
    if "rope_parameters.rope_theta" in found:
        found.setdefault("rope_parameters.rope_type", "default")
    if found.get("use_sliding_window") is False:
        found.pop("sliding_window", None)
    return found


def _compared(spec: Spec, stated: Tree) -> Comparison:
    theirs = _theirs(spec)
    defaults = _defaults(theirs.config_class)
    differences, silent, read = [], [], set()
    for key, value in configuration(spec).items():
        field = theirs.fields.get(key)
        found = _found(key, field, stated)
        read.add(found)
        if field is None and WITHOUT_MEANING.search(key):
            continue
        told = stated[found] if found else defaults.get(key)
        if told is None:
            told = followed(key, defaults | stated)
        if found is None and (key not in defaults or _equal(told, value)):
            silent.append(NotStated(key, field, told))
        elif not _equal(told, value):
            differences.append(
                _difference(spec, found or key, field, told, value, found is not None)
            )
    differences += _besides(spec, stated, read, defaults)
    return Comparison(spec, tuple(differences), tuple(silent))


def followed(key: str, config: Tree) -> int | None:
    """The size that `transformers` derives from the others of a configuration where `key` is null; None if none."""
    others = FOLLOWS.get(key, ())
    sizes: list[int] = [size for size in map(config.get, others) if type(size) is int and size > 0]
    return reduce(int.__floordiv__, sizes) if sizes and len(sizes) == len(others) else None


def _found(key: str, field: str | None, stated: Tree) -> str | None:
    """The key under which the file says it: that of the class, or another name of the same size."""
    if key in stated:
        return key
    others = [other for other in stated if field in SIZES and ours(other) == field]
    return others[0] if others else None


def _besides(
    spec: Spec, stated: Tree, read: set[str | None], defaults: Tree
) -> Iterator[Difference]:
    """A key of the file that the spec's class need not be given: it must be a size of ours, or the default."""
    for key, value in stated.items():
        if key in read or value is None or key not in defaults or WITHOUT_MEANING.search(key):
            continue
        field = ours(key)
        expected, known = value_of(spec, field)
        if known and _equal(value, expected):
            continue
        if not _equal(value, defaults[key]):
            yield _difference(
                spec,
                key,
                field if known else None,
                value,
                expected if known else defaults[key],
                True,
            )


def value_of(spec: Spec, field: str | None) -> tuple[Any, bool]:
    """The value at the path of a field, and whether the spec has such a field."""
    try:
        return (reduce(getattr, field.split("."), spec), True) if field else (None, False)
    except AttributeError:  # a field of mechanisms that this spec does not have
        return None, False


def _of_text(config: Tree) -> Tree:
    """The part that speaks of the language model, where a model of several kinds of input has one."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) and "model_type" in inner else config


def _read_json(path: Path) -> Tree:
    content = read_bytes(path, most=LARGEST)
    try:
        config = parse_json(content, path.name, entries=ENTRIES)
    except Unreadable as error:
        raise UnreadableConfig(
            f"{path} is neither JSON nor GGUF ({error}): expected a config.json or a GGUF file"
        ) from error
    if not isinstance(config, dict):
        raise UnreadableConfig(f"{path} holds a {type(config).__name__}; expected a JSON object")
    return config


def _theirs(spec: Spec) -> Transformers:
    theirs = spec.family.transformers
    assert theirs != "none"
    return theirs


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def _all_defaults() -> Tree:
    found: Tree = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    return found


def defaults_version() -> str:
    """Of which version of `transformers` the defaults are."""
    return str(_all_defaults()["version"])


def _defaults(config_class: str) -> Tree:
    found: Tree = _all_defaults()["classes"].get(config_class, {})
    return found


# GGUF -----------------------------------------------------------------------------------------------------


def _of_gguf(header: Mapping[str, Any], path: Path) -> Identity:
    model = header.get("general.architecture")
    if not isinstance(model, str) or not model:
        raise UnreadableConfig(
            f"{path} names no general.architecture; expected the header of a model"
        )
    stated = {key.removeprefix(f"{model}."): value for key, value in header.items()}
    tokens = stated.get("tokenizer.ggml.tokens")
    if isinstance(tokens, Length):
        stated.setdefault("vocab_size", tokens.entries)
    specs = complete()
    kin = [spec for spec in specs if _built_like(spec, model)]
    compared = sorted((_compared_gguf(spec, stated) for spec in kin or specs), key=_rank)
    return _identity("GGUF", model, compared, known=bool(kin))


def _built_like(spec: Spec, model: str) -> bool:
    architecture = spec.architecture
    if model == "llama" and architecture.structure == "decoder":
        return spec.has(Rotary) and spec.has(RMSNorm)
    theirs = spec.family.transformers
    names = GGUF_NAMES.get(model, (_plain(model),))
    return theirs != "none" and _plain(theirs.config_class).removesuffix("config") in names


def _compared_gguf(spec: Spec, stated: Tree) -> Comparison:
    differences, silent = [], []
    for row in FIELD_NAMES:
        expected, known = value_of(spec, row.field)
        if not known or not row.gguf or not isinstance(expected, int | float):
            continue
        key = next((name for name in row.gguf if name in stated), None)
        if key is None:
            silent.append(NotStated(row.gguf[0], row.field, None))
        elif isinstance(stated[key], Length) or not _equal(stated[key], expected, digits=1e-6):
            differences.append(_difference(spec, key, row.field, stated[key], expected, True))
    layer = isinstance(spec.architecture.normalization, LayerNorm)
    for key, kind in (
        ("attention.layer_norm_rms_epsilon", False),
        ("attention.layer_norm_epsilon", True),
    ):
        if key in stated and kind != layer:
            field = "architecture.normalization.kind"
            names = ("layer", "rms") if kind else ("rms", "layer")
            differences.append(Difference(key, field, *names, True, OUTPUTS))
    return Comparison(spec, tuple(differences), tuple(silent))


# What a difference does -----------------------------------------------------------------------------------

ELSE = "no field of a spec speaks of it: something else is computed"
OUTPUTS = "no parameter more or less, and other outputs"
NO_SIZE = "no model has such a size"
EFFECTS = {
    TRAINING_ONLY: "nothing but in training",
    "max_positions": "no parameter more or less; the context that it was trained for",
    "architecture.padding_id": "another token is padding",
    "architecture.decoder_start_id": "the decoder starts with another token",
}


def _difference(
    spec: Spec, key: str, field: str | None, theirs: Any, own: Any, stated: bool
) -> Difference:
    return Difference(key, field, theirs, own, stated, _effect(spec, field, theirs))


def _effect(spec: Spec, field: str | None, theirs: Any) -> str:
    """The effect of this difference alone on the model."""
    if field is None:
        return ELSE
    if field in SIZES and not (type(theirs) is int and 0 < theirs < LARGEST_SIZE):
        return NO_SIZE
    more = _more_parameters(spec, field, theirs)
    return f"{more:+,} parameters" if more else EFFECTS.get(field, OUTPUTS)


def _more_parameters(spec: Spec, field: str, theirs: Any) -> int:
    if isinstance(theirs, str | list):
        return 0
    tree = msgspec.to_builtins(spec)
    *outer, last = field.split(".")
    try:
        reduce(lambda node, part: node[part], outer, tree)[last] = theirs
        return count_parameters(msgspec.convert(tree, Spec)).total - count_parameters(spec).total
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, ArithmeticError):
        return 0  # a value that no spec can have, or a size that follows from others


def _equal(theirs: Any, own: Any, digits: float = 1e-9) -> bool:
    if isinstance(theirs, bool) or isinstance(own, bool):
        return theirs is own
    if isinstance(theirs, int | float) and isinstance(own, int | float):
        try:
            return math.isclose(theirs, own, rel_tol=digits)
        except OverflowError:  # a whole number beyond all floats
            return theirs == own
    if isinstance(theirs, str) and isinstance(own, str):
        return SYNONYMS.get(theirs, theirs) == SYNONYMS.get(own, own)
    return bool(theirs == (list(own) if isinstance(own, tuple) else own))


def _rank(compared: Comparison) -> tuple[float, int]:
    """The nearest first, and of equals the one from which the others derive."""
    return compared.distance, len(line_of_descent(compared.spec))


def _is_it(compared: Comparison, format_: str) -> bool:
    """Whether nothing differs, and enough is stated: a header of GGUF has no class with defaults."""
    if compared.differences:
        return False
    return format_ != "GGUF" or not any(each.field in NAMED_BY for each in compared.not_stated)


def _identity(format_: str, model: str, compared: list[Comparison], *, known: bool) -> Identity:
    names = tuple(each.spec.name for each in compared if known and _is_it(each, format_))
    return Identity(format_, model, names, compared[0], known)
