"""Mutations that Cosmic Ray does not know: calls that vanish, arguments that are left out, numbers a hundred times as
large. Its own change a number by one, by which no tolerance of 1e-12 is ever mutated sensibly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from cosmic_ray.operators.operator import Operator
from parso.python.tree import Number, PythonNode

Span = tuple[tuple[int, int], tuple[int, int]]


class DropCall(Operator):
    """`x.abs()` becomes `x`, whatever the method and its arguments."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        """One for each method that is called, but for a name of a module's or a class's."""
        for method, call in _method_calls(node):
            yield method.start_pos, call.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Without the method."""
        method, call = list(_method_calls(node))[index]
        return _with_children(node, [c for c in node.children if c not in (method, call)])

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class DropKeyword(Operator):
    """`f(x, dtype=y)` becomes `f(x)`."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        """One for each argument that is given by name to a call of several."""
        for argument in _keywords(node):
            yield argument.start_pos, argument.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Without the argument and the comma behind it."""
        argument = _keywords(node)[index]
        place = node.children.index(argument)
        kept = node.children[:place] + node.children[place + 2 :]
        return _with_children(node, kept)

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class ScaleFloat(Operator):
    """`1e-12` becomes `1e-10`, or `1e-14`."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        """Two for each number with a fraction or an exponent that is not zero."""
        if isinstance(node, Number) and isinstance(_value(node), float) and _value(node):
            yield node.start_pos, node.end_pos
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """A hundred times as large or as small."""
        return Number(f" {_value(node) * (100, 0.01)[index]!r}", node.start_pos)

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


OPERATORS = {each.__name__: each for each in (DropCall, DropKeyword, ScaleFloat)}


def _method_calls(node: Any) -> list[tuple[Any, Any]]:
    """(`.name`, `(…)`) that follow each other in `x.name(…)`, but not those directly behind a name such as `torch`."""
    if node.type not in ("power", "atom_expr"):
        return []
    parts = node.children
    pairs = itertools.pairwise(parts)
    return [
        (method, call)
        for method, call in pairs
        if _starts(method, ".") and _starts(call, "(") and not _of_module(parts, method)
    ]


def _of_module(parts: list[Any], method: Any) -> bool:
    return method is parts[1] and parts[0].type == "name" and parts[0].value in _MODULES


_MODULES = {
    "torch",
    "np",
    "msgspec",
    "nn",
    "F",
    "json",
    "os",
    "time",
    "signal",
    "sys",
    "st",
    "math",
}
_MODULES |= {
    "hypothesis",
    "importlib",
    "traceback",
    "warnings",
    "subprocess",
    "tempfile",
    "providers",
}


def _starts(node: Any, text: str) -> bool:
    return node.type == "trailer" and node.children[0].value == text


def _keywords(node: Any) -> list[Any]:
    """The arguments by name of a call with several."""
    if node.type != "arglist":
        return []
    return [c for c in node.children if c.type == "argument" and c.children[1] == "="]


def _with_children(node: Any, children: list[Any]) -> Any:
    made = PythonNode(node.type, children)
    made.parent = node.parent
    return made


def _value(node: Number) -> Any:
    return eval(node.value)  # a number, as parso found it
