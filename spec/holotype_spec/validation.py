"""All mistakes of a spec file at once, and the JSON Schema that finds them.

Conversion by msgspec stops at the first mistake, so this module is imported only when it has failed.
``python -m holotype_spec.validation`` writes ``schema.json`` anew from the classes of `holotype_spec.schema`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, ValidationError

from holotype_spec.errors import Problem
from holotype_spec.field_names import ours
from holotype_spec.files import overlaid
from holotype_spec.rules import MISSING, at, broken_rules, key_of, nearest
from holotype_spec.schema import Spec, SpecFile

SCHEMA = Path(__file__).parent / "schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Path_ = tuple[str | int, ...]
Tree = dict[str, Any]


def json_schema() -> Tree:
    """The schema of a spec file, with that of a whole `Spec` among its ``$defs``."""
    _, definitions = msgspec.json.schema_components((SpecFile, Spec), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        if "description" in definition:
            # Docstrings are indented before Python 3.13 and not since.
            definition["description"] = " ".join(definition["description"].split())
    return {
        "$schema": DIALECT,
        "title": "Holotype spec file",
        "$ref": "#/$defs/SpecFile",
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """What ``schema.json`` must hold."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def problems_of(document: Tree, file: str, *, first: str) -> list[Problem]:
    """Every mistake of a document that did not convert.

    Args:
        document: the parsed file.
        file: how errors call it.
        first: what msgspec said, told only where nothing else is found.
    """
    found = list(_schema_problems(document, file))
    damaged = [path for path, _ in found]
    trees = dict(_sound_trees(document))
    problems = [problem for _, problem in found]
    problems += broken_rules(document, trees, file, damaged=damaged)
    if not problems:
        problems = [
            Problem(file=file, key="", value=None, expected="a spec file", mend=f"msgspec: {first}")
        ]
    return list({str(problem): problem for problem in problems}.values())


def _sound_trees(document: Tree) -> Iterator[tuple[int, Tree]]:
    """The variants that can be laid over the family at all, as far as they go."""
    architecture = document.get("architecture")
    for index, variant in _variants(document):
        difference = variant.get("architecture", {})
        if isinstance(architecture, dict) and isinstance(difference, dict):
            whole = overlaid(architecture, difference)
            yield index, {**variant, "family": document.get("family"), "architecture": whole}


def _variants(document: Tree) -> Iterator[tuple[int, Tree]]:
    variants = document.get("variants")
    for index, variant in enumerate(variants if isinstance(variants, list) else []):
        if isinstance(variant, dict):
            yield index, variant


# What the schema finds -------------------------------------------------------------------------------------


def _schema_problems(document: Tree, file: str) -> Iterator[tuple[Path_, Problem]]:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    told: dict[Path_, Problem] = {}
    for error, path in _flat(Draft202012Validator(schema), document):
        told.update(_told(document, file, path, error))
    yield from told.items()
    inside = Draft202012Validator({**schema, "$ref": "#/$defs/Architecture"})
    for index, tree in _sound_trees(document):
        for error, path in _flat(inside, tree["architecture"]):
            within = ("variants", index, "architecture", *path)
            for place, problem in _told(document, file, within, error):
                inherited = at(document, place) is MISSING and place[2:] in told
                if not inherited:
                    yield place, problem


def _flat(
    validator: Draft202012Validator, instance: Any
) -> Iterator[tuple[ValidationError, Path_]]:
    for error in validator.iter_errors(instance):
        for leaf in _leaves(error):
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
    discriminator = _discriminator(error)
    if discriminator is None or not isinstance(error.instance, dict):
        return None
    kind = error.instance.get(discriminator["propertyName"])
    if not isinstance(kind, str):
        return None
    wanted = discriminator["mapping"].get(kind)
    branches: Any = error.validator_value
    references = [branch.get("$ref") for branch in branches]
    return references.index(wanted) if wanted in references else None


def _discriminator(error: ValidationError) -> Mapping[str, Any] | None:
    schema = error.schema
    if error.validator != "anyOf" or not isinstance(schema, dict):
        return None
    found: Mapping[str, Any] | None = schema.get("discriminator")
    return found


# What is said about it -------------------------------------------------------------------------------------


def _told(
    document: Tree, file: str, path: Path_, error: ValidationError
) -> Iterator[tuple[Path_, Problem]]:
    for place, value, expected, mend in _words(path, error):
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
