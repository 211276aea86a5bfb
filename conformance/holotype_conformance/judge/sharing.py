"""Values that the paths of a candidate share while one case is judged: made on the first one, kept for the others.

A check judges one path at a time. What it holds them against (the inputs, the oracle's numbers, the reference's own
error) is the same for all, and would be computed once more for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import msgspec

P = ParamSpec("P")
T = TypeVar("T")

_BY_VALUE = (str, int, float, type(None), msgspec.Struct)
_MADE: ContextVar[dict[Any, tuple[Any, Any]] | None] = ContextVar("made", default=None)


@contextmanager
def one_case() -> Iterator[None]:
    """Keep inside what `shared` functions return; forget it at the end."""
    token = _MADE.set({})
    try:
        yield
    finally:
        _MADE.reset(token)


def shared(make: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that gives the same for the same arguments: within a case it is called once for these.

    Arguments are the same if they are equal numbers, names or structs, and any others if they are one object. Nobody
    writes into what is returned. Outside of a case nothing is kept.
    """

    @wraps(make)
    def once(*args: P.args, **kwargs: P.kwargs) -> T:
        made = _MADE.get()
        if made is None:
            return make(*args, **kwargs)
        key = (
            make,
            *map(_identity, args),
            *((name, _identity(each)) for name, each in kwargs.items()),
        )
        if key not in made:
            made[key] = make(*args, **kwargs), (args, kwargs)  # which keep their identities
        found: T = made[key][0]
        return found

    return once


def _identity(argument: object) -> object:
    return argument if isinstance(argument, _BY_VALUE) else id(argument)
