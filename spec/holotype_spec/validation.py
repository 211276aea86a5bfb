"""All mistakes of a spec file at once, and the JSON Schema that finds them.

Conversion by msgspec stops at the first mistake, so this module is imported only when it has failed.
``python -m holotype_spec.validation`` writes ``schema.json`` anew from the classes of `holotype_spec.schema`.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
from jsonschema import Draft202012Validator, ValidationError, validators

from holotype_spec.broken_rules import MISSING, Sound, at, broken_rules, key_of
from holotype_spec.descent import INHERITED_HEAD
from holotype_spec.errors import Problem, nearest
from holotype_spec.field_names import ours
from holotype_spec.networks import Network
from holotype_spec.schema import Architecture, Family, Name, Sizes, Spec, StatedPart, Strict
from holotype_spec.sketch import OPEN, UNDISCLOSED

SCHEMA = Path(__file__).parent / "schema.json"
MOST = 200  # mistakes that are reported: nobody reads more
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Path_ = tuple[str | int, ...]
Tree = dict[str, Any]


# The schema -----------------------------------------------------------------------------------------------


class Variant(Sizes):
    """One member of a family as its file states it.

    `architecture` or `network` holds only what differs from what the members share, as a tree of the same keys.
    Where it names another ``kind`` the whole mechanism is replaced, because no constant of the old one has a
    meaning then. With `derives_from` it differs from the model of that name, and so may the sizes.
    """

    aliases: tuple[Name, ...] = ()
    architecture: dict[str, Any] = msgspec.field(default_factory=dict)
    network: dict[str, Any] = msgspec.field(default_factory=dict)
    derives_from: Name | None = None
    rumour: str | None = None
    stated: tuple[StatedPart, ...] = ()


class SpecFile(Strict):
    """One TOML file: a family, what its members share, and the members."""

    family: Family
    architecture: Architecture
    network: dict[str, Any]
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(min_length=1)]


NOT_TOLD = {"const": UNDISCLOSED}


def json_schema() -> Tree:
    """The schema of a spec file, with those of a whole `Spec` and `Network` among its ``$defs``."""
    _, definitions = msgspec.json.schema_components(
        (SpecFile, Spec, Network), ref_template="#/$defs/{name}"
    )
    for definition in definitions.values():
        if "description" in definition:
            # Docstrings are indented before Python 3.13 and not since.
            definition["description"] = " ".join(definition["description"].split())
    _loosen(definitions)
    return {
        "$schema": DIALECT,
        "title": "Holotype spec file",
        "$ref": "#/$defs/SpecFile",
        "$defs": dict(sorted(definitions.items())),
    }


def _loosen(definitions: Tree) -> None:
    """Let files leave out what they inherit, and say "undisclosed" where they may."""
    head = copy.deepcopy(definitions["Family"])
    head["required"] = [key for key in head["required"] if key not in INHERITED_HEAD]
    definitions["FamilyOfFile"] = head
    file, variant = definitions["SpecFile"], definitions["Variant"]
    file["properties"]["family"] = {"$ref": "#/$defs/FamilyOfFile"}
    file["required"] = ["family", "variants"]
    original = {"contains": {"not": {"required": ["derives_from"]}}}
    file["if"] = {"not": {"required": ["network"]}, "properties": {"variants": original}}
    file["then"] = {"required": ["architecture"]}
    sizes = [key for key in variant["required"] if key in OPEN]
    variant["required"] = [key for key in variant["required"] if key not in OPEN]
    whole = [{"required": ["derives_from"]}, {"required": ["network"]}]
    variant |= {"if": {"not": {"anyOf": whole}}, "then": {"required": sizes}}
    for name in _reachable(definitions, "Architecture"):
        properties = definitions[name]["properties"]
        for key in properties.keys() - {"kind"}:
            properties[key] = {"anyOf": [properties[key], NOT_TOLD]}
    for name in ("Variant", "Spec", "SpecFile"):
        properties = definitions[name]["properties"]
        for key in properties.keys() & OPEN:
            properties[key] = {"anyOf": [properties[key], NOT_TOLD]}


def _reachable(definitions: Tree, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The definition and all that it refers to."""
    found = {name}
    for reference in re.findall(r"#/\$defs/(\w+)", json.dumps(definitions[name])):
        if reference not in seen | found:
            found |= _reachable(definitions, reference, seen | found)
    return found


def schema_text() -> str:
    """The contents of ``schema.json``."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def problems_of(
    document: Tree, trees: Mapping[int, Tree], file: str, lost: list[Problem], *, first: str
) -> list[Problem]:
    """Every mistake of a document that did not convert.

    Args:
        document: the parsed file.
        trees: its variants as whole trees, by their index, as far as they could be laid over what they start from.
        file: how errors call it.
        lost: the mistakes of descent.
        first: the message of msgspec, reported only where nothing else is found.
    """
    found = list(_schema_problems(document, trees, file))
    # Without its kind nobody knows what the other keys of a mechanism must be.
    damaged = [path[:-1] if path[-1:] == ("kind",) else path for path, _ in found]
    problems = [*lost, *(problem for _, problem in found)]
    problems += broken_rules(document, trees, file, damaged=damaged)
    if not problems:
        problems = [
            Problem(file=file, key="", value=None, expected="a spec file", mend=f"msgspec: {first}")
        ]
    return list({str(problem): problem for problem in problems}.values())


def problems_against(into: type, document: Tree, file: str, *, first: str) -> list[Problem]:
    """Every key and type of a document that is wrong for the class `into`, as `problems_of` tells them.

    Raises nothing: `first`, the message of msgspec, is reported only where nothing else is found.
    """
    schema = {"$schema": DIALECT, **msgspec.json.schema(into)}
    told: dict[Path_, Problem] = {}
    for error, path in _flat(VALIDATOR(schema), document):
        told.update(_told(document, file, path, error))
    return list(told.values()) or [_unexplained(file, first)]


def _unexplained(file: str, first: str) -> Problem:
    return Problem(
        file=file, key="", value=None, expected="another content", mend=f"msgspec: {first}"
    )


# What the schema finds -------------------------------------------------------------------------------------


# To JSON Schema 1.0 is an integer; in TOML it is not, nor to msgspec.
VALIDATOR = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def _schema_problems(
    document: Tree, trees: Mapping[int, Tree], file: str
) -> Iterator[tuple[Path_, Problem]]:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    told: dict[Path_, Problem] = {}
    for error, path in _flat(VALIDATOR(schema), document):
        told.update(_told(document, file, path, error))
    shared = frozenset(told)
    for index, tree in trees.items():
        name = "Network" if "network" in tree else "Spec"
        whole = VALIDATOR({**schema, "$ref": f"#/$defs/{name}"})
        placed = partial(_place, Sound(document, index, tree, ()), shared)
        for error, path in _flat(whole, tree):
            for place, problem in _told(document, file, path, error, placed):
                told.setdefault(place, problem)
    yield from told.items()


def _place(sound: Sound, shared: Collection[Path_], path: Path_) -> Path_:
    """The place in the file where the value of a whole tree stands, or should."""
    place: Path_ = sound.place(path)
    own: Path_ = ("variants", sound.index, *path)
    if place in shared or at(sound.document, place) is not MISSING:
        return place
    # What is missing is missing where the table stands that should have it.
    return own if len(path) > 1 and at(sound.document, own[:-1]) is not MISSING else place


def _flat(validator: Any, instance: Any) -> Iterator[tuple[ValidationError, Path_]]:
    leaves = (leaf for error in validator.iter_errors(instance) for leaf in _leaves(error))
    for leaf in islice(leaves, MOST):
        yield leaf, tuple(leaf.absolute_path)


def _leaves(error: ValidationError) -> Iterator[ValidationError]:
    """The errors inside the alternative that was meant: the one whose ``kind`` the instance names."""
    branch = _branch_meant(error)
    if branch is None:
        yield error
        return
    for inner in error.context or ():
        if inner.relative_schema_path[0] == branch:
            yield from _leaves(inner)


def _branch_meant(error: ValidationError) -> int | None:
    value: Any = error.validator_value
    if error.validator == "anyOf" and value[-1] == NOT_TOLD:
        return 0  # it is given, and wrong
    discriminator = _discriminator(error)
    if discriminator is None or not isinstance(error.instance, dict):
        return None
    kind = error.instance.get(discriminator["propertyName"])
    if not isinstance(kind, str):
        return None
    wanted = discriminator["mapping"].get(kind)
    references = [branch.get("$ref") for branch in value]
    return references.index(wanted) if wanted in references else None


def _discriminator(error: ValidationError) -> Mapping[str, Any] | None:
    schema = error.schema
    if error.validator != "anyOf" or not isinstance(schema, dict):
        return None
    found: Mapping[str, Any] | None = schema.get("discriminator")
    return found


# What is said about it -------------------------------------------------------------------------------------


def _told(
    document: Tree,
    file: str,
    path: Path_,
    error: ValidationError,
    placed: Callable[[Path_], Path_] = lambda path: path,
) -> Iterator[tuple[Path_, Problem]]:
    for key, value, expected, mend in _words(path, error):
        place = placed(key)
        problem = Problem(
            file=file,
            key=key_of(document, place) or "the file",
            value=value,
            expected=expected,
            mend=mend,
        )
        yield place, problem


def _words(path: Path_, error: ValidationError) -> Iterator[tuple[Path_, Any, str, str]]:
    """(place, value, what was expected, how to mend it), one for each key that is wrong."""
    instance: Any = error.instance
    value: Any = error.validator_value
    discriminator = _discriminator(error)
    if error.validator == "required":
        for key in (key for key in value if key not in instance):
            yield (*path, key), None, "a value: nothing has a default", "add the key"
    elif error.validator == "additionalProperties":
        known = sorted(_mapping(error.schema).get("properties", ()))
        for key in (key for key in instance if key not in known):
            expected = f"one of the keys {', '.join(known)}"
            yield (*path, key), instance[key], expected, _renamed(key, known)
    elif discriminator is not None and isinstance(instance, dict):
        name, kinds = discriminator["propertyName"], sorted(discriminator["mapping"])
        kind = instance.get(name)
        yield (*path, name), kind, _one_of(kinds), _nearest(kind, kinds)
    elif error.validator in ("enum", "const"):
        options = [value] if error.validator == "const" else sorted(value, key=str)
        yield path, instance, _one_of(options), _nearest(instance, options)
    else:
        yield path, instance, _described(error), _by_type(instance, error)


def _renamed(key: str, known: list[str]) -> str:
    field = (ours(key) or "").split(".")[-1]
    if field in known:
        return f'called "{field}" here'
    return nearest(key, known) or "delete the key"


def _mapping(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, Mapping) else {}


def _one_of(options: list[Any]) -> str:
    return "one of " + ", ".join(json.dumps(option) for option in options)


def _nearest(value: Any, options: list[Any]) -> str:
    words = [option for option in options if isinstance(option, str)]
    return (isinstance(value, str) and nearest(value, words)) or "write one of these"


TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text in quotes",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def _described(error: ValidationError) -> str:
    schema = _mapping(error.schema)
    value: Any = error.validator_value
    if error.validator == "anyOf":
        return " or ".join(map(_alternative, value))
    if description := schema.get("description") if "properties" not in schema else None:
        return str(description)
    if error.validator == "minItems":
        return f"at least {value} entry"
    if error.validator == "type":
        return TYPES.get(value, str(value))
    return error.message


def _alternative(branch: Mapping[str, Any]) -> str:
    if "enum" in branch:
        return " or ".join(map(json.dumps, branch["enum"]))
    return str(branch.get("description") or TYPES.get(branch.get("type", ""), "a table"))


def _by_type(instance: Any, error: ValidationError) -> str:
    number_wanted = _mapping(error.schema).get("type") in ("integer", "number")
    if number_wanted and isinstance(instance, str):
        return "write the number without quotes"
    return "correct the value"


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
