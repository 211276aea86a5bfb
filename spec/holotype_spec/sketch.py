"""Sketches: models of which not everything was disclosed.

A value of a spec file that nobody disclosed is written ``"undisclosed"``: a single field or a whole mechanism. The
file then gives a `Sketch`. Its `Sketch.known` is a `Spec` like any other, only that reading an undisclosed value
out of it raises `UndisclosedValue`, which names the field. So arithmetic needs no rule of its own for what is known: a
number that never reads what is undisclosed comes out exact, and any other names the field that it would have needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from types import UnionType
from typing import (
    Any,
    Concatenate,
    Literal,
    NoReturn,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    overload,
)

import msgspec

from holotype_spec.errors import UndisclosedValue
from holotype_spec.networks import Network
from holotype_spec.schema import Family, PublishedCount, Sizes, Spec, StatedPart

UNDISCLOSED = "undisclosed"
# What a file may leave undisclosed: the sizes and everything under `architecture`.
OPEN = frozenset(Sizes.__struct_fields__) - {"name", "parameters"} | {"architecture"}

Tree = dict[str, Any]
Path = tuple[str, ...]
Rest = ParamSpec("Rest")
Answer = TypeVar("Answer")


class Undisclosed:
    """Stands in a `Sketch.known` where a value was not disclosed; whatever reads it raises `UndisclosedValue`."""

    def __init__(self, model: str, field: str) -> None:
        self.__dict__.update(model=model, field=field)

    def _refuse(self, *_: object) -> NoReturn:
        told = object.__getattribute__(self, "__dict__")
        raise UndisclosedValue(told["model"], told["field"])

    def __repr__(self) -> str:
        return UNDISCLOSED

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()

    __hash__ = object.__hash__
    # `isinstance` and class patterns ask for the class of what is no direct instance.
    __class__ = property(_refuse)
    __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __call__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __floordiv__ = __rfloordiv__ = __truediv__ = __rtruediv__ = __mod__ = __rmod__ = _refuse
    __pow__ = __rpow__ = __neg__ = __int__ = __float__ = __index__ = __format__ = _refuse


@dataclass(frozen=True, eq=False)
class Sketch:
    """The disclosed part of a model of which not everything was disclosed.

    `known` is a `Spec` from which an undisclosed value cannot be read, `undisclosed` lists the paths of these
    ("layers", "architecture.positions").
    """

    known: Spec
    undisclosed: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.known.name

    @property
    def family(self) -> Family:
        return self.known.family

    @property
    def aliases(self) -> tuple[str, ...]:
        return self.known.aliases

    @property
    def derives_from(self) -> str | None:
        return self.known.derives_from

    @property
    def parameters(self) -> PublishedCount | Literal["none"]:
        return self.known.parameters

    @property
    def rumour(self) -> str | None:
        return self.known.rumour

    @property
    def stated(self) -> tuple[StatedPart, ...]:
        return self.known.stated

    def facts(self) -> Tree:
        """The whole as a tree in which every undisclosed value is the word "undisclosed"."""
        tree: Tree = msgspec.to_builtins(self.known, enc_hook=repr)
        return tree


@contextmanager
def asking(question: str) -> Iterator[None]:
    """Inside, an `UndisclosedValue` says that it is `question` which cannot be answered."""
    try:
        yield
    except UndisclosedValue as error:
        raise UndisclosedValue(error.model, error.field, error.question or question) from None


OfSpec = Callable[Concatenate[Spec, Rest], Answer]
OfEntry = Callable[Concatenate[Spec | Sketch | Network, Rest], Answer]


@overload
def answers(question: str) -> Callable[[OfSpec[Rest, Answer]], OfEntry[Rest, Answer]]: ...
@overload
def answers(
    question: str, network: Callable[Concatenate[Network, Rest], Answer]
) -> Callable[[OfSpec[Rest, Answer]], OfEntry[Rest, Answer]]: ...
def answers(
    question: str, network: Callable[Concatenate[Network, Rest], Answer] | None = None
) -> Callable[[OfSpec[Rest, Answer]], OfEntry[Rest, Answer]]:
    """Makes a function of a `Spec` one of any entry.

    Of a `Sketch` it says what depends on nothing undisclosed, and refuses the rest by `question`; of a `Network` it
    says what `network` says, or that there is no answer.
    """

    def decorate(function: OfSpec[Rest, Answer]) -> OfEntry[Rest, Answer]:
        @wraps(function)
        def answered(
            entry: Spec | Sketch | Network, /, *args: Rest.args, **kwargs: Rest.kwargs
        ) -> Answer:
            if isinstance(entry, Spec):
                return function(entry, *args, **kwargs)
            if isinstance(entry, Sketch):
                with asking(question):
                    return _whatever(entry.known, lambda spec: function(spec, *args, **kwargs))
            if network is None:
                raise ValueError(f"{entry.name} is no Transformer: {question} has no meaning there")
            return network(entry, *args, **kwargs)

        return answered

    return decorate


def _whatever(known: Spec, function: Callable[[Spec], Answer]) -> Answer:
    """The value of a function of a spec, the same for each alternative of an undisclosed field that it reads.

    Raises:
        UndisclosedValue: it depends on what is undisclosed.
    """
    try:
        return function(known)
    except UndisclosedValue as error:
        path = tuple(error.field.split("."))
        specs = [_with(known, path, value) for value in _alternatives(Spec, path)]
        answers = [_whatever(spec, function) for spec in specs]
        if not answers or any(answer != answers[0] for answer in answers):
            raise
        return answers[0]


def _alternatives(kind: Any, path: Path) -> tuple[Any, ...]:
    """The values that a field can have, where they are words or yes and no and nothing else."""
    for name in path:
        struct = _struct(kind, None)
        if struct is None or name not in _fields(struct):
            return ()  # one of the alternatives of a mechanism: which, is a value of its own
        kind = _fields(struct)[name].type
    if kind is bool:
        return (False, True)
    return get_args(kind) if get_origin(kind) is Literal else ()


def _with(struct: Any, path: Path, value: Any) -> Any:
    """The structure with another value at the path."""
    first, *rest = path
    value = _with(getattr(struct, first), tuple(rest), value) if rest else value
    return msgspec.structs.replace(struct, **{first: value})


# From a tree ----------------------------------------------------------------------------------------------


def sketch(tree: Tree) -> Sketch | None:
    """The sketch that a tree of `Spec` makes, or None where it has nothing undisclosed.

    Raises:
        msgspec.ValidationError: a value that is there cannot be what it is.
    """
    found: list[str] = []
    known = _built(tree, Spec, (), str(tree.get("name")), found)
    return Sketch(known, tuple(found)) if found else None


def checked(tree: Tree, cls: type[msgspec.Struct], prefix: Path) -> None:
    """Raises msgspec.ValidationError where the tree is no `cls`, undisclosed values apart."""
    _built(tree, cls, prefix, "", [])


def _built(value: Any, kind: Any, path: Path, model: str, found: list[str]) -> Any:
    if value == UNDISCLOSED and path and path[0] in OPEN:
        found.append(".".join(path))
        return Undisclosed(model, found[-1])
    struct = _struct(kind, value)
    if struct is None or not isinstance(value, dict):
        return msgspec.convert(value, kind)
    fields = _fields(struct)
    given = {key: each for key, each in value.items() if key != struct.__struct_config__.tag_field}
    if not {key for key, field in fields.items() if field.required} <= set(given) <= set(fields):
        raise msgspec.ValidationError(f"the keys of {'.'.join(path)} are not those of a {struct}")
    parts = {
        key: _built(given[key], field.type, (*path, key), model, found)
        for key, field in fields.items()
        if key in given
    }
    return struct(**parts)


def _struct(kind: Any, value: Any) -> type[msgspec.Struct] | None:
    """The class that a table is: `kind` itself, or the alternative of it that the table names."""
    if get_origin(kind) not in (Union, UnionType):
        return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None
    tag = value.get("kind") if isinstance(value, dict) else None
    for alternative in get_args(kind):
        found = _struct(alternative, value)
        if found and found.__struct_config__.tag in (None, tag):
            return found
    return None


@cache
def _fields(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(struct)}
