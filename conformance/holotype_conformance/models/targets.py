"""From a target on the command line to a `Candidate`.

A target is ``package.module:attribute``, ``path/to/file.py:attribute``, or the name of an adapter (``reference``,
``hf``, and whatever other distributions offer in the entry point group ``holotype.targets``), which may take an
argument after a colon. The attribute is a function ``build(spec) -> torch.nn.Module``, a `Candidate` object or a
`Candidate` class.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holotype_conformance.judge.importing import TargetError, find, let_through, said

if TYPE_CHECKING:
    from holotype_conformance.models.candidate import Candidate

GROUP = "holotype.targets"
BUILT_IN = {
    "reference": "holotype_conformance.models.adapters.reference:candidate",
    "hf": "holotype_conformance.models.adapters.hf.target:candidate",
    "deviation": "holotype_conformance.models.deviations.candidate:candidate",
}
OURS = frozenset({"reference", "deviation"})  # no code of anybody else runs in these
EXPECTED = (
    "expected package.module:attribute, path/to/file.py:attribute or an adapter ({adapters}), where the"
    " attribute is a function build(spec) -> torch.nn.Module, or a Candidate"
)
EXPECTED_BUILD = (
    "expected a function that takes one positional argument, build(spec) -> torch.nn.Module"
)


def is_ours(target: str) -> bool:
    """Whether a target runs no code but that of this project."""
    return target.partition(":")[0] in OURS


def resolve(target: str) -> Candidate:
    """The candidate that `target` names. Imports it, and with it usually torch.

    Raises:
        TargetError: it names nothing, does not import, or is not something that can be checked.
    """
    name, _, argument = target.partition(":")
    adapters = _adapters()
    if name in adapters:
        return _adapted(target, adapters[name], argument)
    if not argument and Path(name).is_file():
        raise TargetError(
            f"{target!r} is a file: say what of it is to be checked, {name}:build, where build is a function"
            " build(spec) -> torch.nn.Module or a Candidate"
        )
    if not name or not argument:
        raise TargetError(f"{target!r} is not a target: {_expected()}{_nearest(target, adapters)}")
    expected = _expected() + _nearest(name, adapters)
    return as_candidate(find(target, expected, EXPECTED_BUILD), target)


def as_candidate(found: Any, title: str) -> Candidate:
    """A `Candidate` made from a build function, a `Candidate` object or a `Candidate` class.

    Raises:
        TargetError: it is none of these, or its build takes other arguments.
    """
    from torch import nn

    from holotype_conformance.models.candidate import Candidate, FunctionCandidate

    if isinstance(found, type) and issubclass(found, Candidate):
        found = _instance(found, title)
    if isinstance(found, Candidate):
        _check_candidate(found, title)
        return found
    if isinstance(found, nn.Module):
        raise TargetError(
            f"{title} is a model that is built already, a {type(found).__name__}; {EXPECTED_BUILD}:"
            " the suite builds models of several small sizes"
        )
    if not callable(found):
        raise TargetError(f"{title} is {_what(found)}; {EXPECTED_BUILD}, or a Candidate")
    if not _takes(found, "spec"):
        raise TargetError(f"{title} has the signature {_signature(found)}; {EXPECTED_BUILD}")
    return FunctionCandidate(found, title)


def _instance(candidate_class: Callable[[], Candidate], title: str) -> Candidate:
    try:
        return candidate_class()
    except BaseException as error:
        let_through(error)
        raise TargetError(
            f"{title} is a Candidate class, but calling it without arguments raised {said(error)};"
            " expected one that can be, or name an instance"
        ) from error


def _check_candidate(candidate: Candidate, title: str) -> None:
    from holotype_conformance.models.candidate import Candidate

    if type(candidate).build is Candidate.build and "build" not in vars(candidate):
        raise TargetError(
            f"{title} is a Candidate that does not define build(self, spec, path='default')"
        )
    if not _takes(candidate.build, "spec", "default"):
        raise TargetError(
            f"{title} has build{_signature(candidate.build)}; expected build(self, spec, path='default')"
        )


# Finding it -----------------------------------------------------------------------------------------------------


def _adapters() -> dict[str, EntryPoint]:
    """Name -> entry point; ours cannot be replaced by another distribution's."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    ours = {name: EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items()}
    return found | ours


def _adapted(target: str, point: EntryPoint, argument: str) -> Candidate:
    """An adapter is a candidate, or a function of the text after the colon that returns one."""
    from holotype_conformance.models.candidate import Candidate

    try:
        adapter = point.load()
    except ModuleNotFoundError as error:
        raise TargetError(
            f"the target {point.name!r} needs the module {error.name!r}, which is not installed:"
            f" try pip install 'holotype[{point.name}]'"
        ) from error
    except BaseException as error:
        let_through(error)
        raise TargetError(f"the target {point.name!r} did not import: {said(error)}") from error
    if isinstance(adapter, (Candidate, type)):
        if argument:
            raise TargetError(f"the target {point.name!r} takes nothing after a colon: {target!r}")
        return as_candidate(adapter, target)
    return as_candidate(adapter(argument), target)


# Saying it ------------------------------------------------------------------------------------------------------


def _takes(function: Callable[..., Any], *arguments: str) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some C functions have none; then the call will tell
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _signature(function: Callable[..., Any]) -> str:
    return str(inspect.signature(function))


def _what(found: Any) -> str:
    return "None" if found is None else f"a {type(found).__name__}"


def _expected() -> str:
    return EXPECTED.format(adapters=", ".join(_adapters()))


def _nearest(name: str, adapters: dict[str, EntryPoint]) -> str:
    near = get_close_matches(name, adapters, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
