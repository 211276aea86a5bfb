"""The spec that a class of another library implements, where that is known not to be the model it is named after."""

from __future__ import annotations

from typing import Any

import msgspec

from holotype_spec.schema import Difference, Spec


def differences(spec: Spec) -> tuple[Difference, ...]:
    """Those of its class in `transformers` from this very spec: what another size has otherwise is no concern of it."""
    theirs = spec.family.transformers
    if theirs == "none":
        return ()
    tree = _tree(spec)
    return tuple(each for each in theirs.differences if _concerns(each, tree))


def as_theirs(spec: Spec, difference: Difference) -> Spec:
    """The spec with the difference in it; the same, where no field of ours tells it.

    Raises:
        msgspec.ValidationError: what the class has there makes no spec.
    """
    if difference.theirs is None:
        return spec
    tree = _tree(spec)
    *outer, last = difference.field.split(".")
    _at(tree, outer)[last] = difference.theirs
    return msgspec.convert(tree, Spec)


def _tree(spec: Spec) -> dict[str, Any]:
    """As a spec file has it, where every sequence is a list."""
    tree: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(spec))
    return tree


def _concerns(difference: Difference, tree: dict[str, Any]) -> bool:
    if difference.theirs is None:
        return True
    *outer, last = difference.field.split(".")
    return bool(_at(tree, outer).get(last) == difference.stated)


def _at(tree: dict[str, Any], parts: list[str]) -> dict[str, Any]:
    """The table at this path; an empty one where none is, as in a mechanism of another kind."""
    for part in parts:
        inner = tree.get(part)
        tree = inner if isinstance(inner, dict) else {}
    return tree
