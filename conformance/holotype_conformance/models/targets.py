"""From a target on the command line to a `Candidate`.

A target is ``package.module:attribute``, ``path/to/file.py:attribute``, or the name of an adapter (``reference``,
``hf``, and whatever other distributions offer in the entry point group ``holotype.targets``), which may take an
argument after a colon. The attribute is a function ``build(spec) -> torch.nn.Module``, a `Candidate` object or a
`Candidate` class.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from holotype_conformance.judge.texts import message_of, type_of

if TYPE_CHECKING:
    from holotype_conformance.models.candidate import Candidate

GROUP = "holotype.targets"
BUILT_IN = {
    "reference": "holotype_conformance.models.adapters.reference:candidate",
    "hf": "holotype_conformance.models.adapters.hf.released:candidate",
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


class TargetError(ValueError):
    """A target that cannot be resolved; the message says what was expected."""


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
    return as_candidate(find(target), target)


def find(target: str, expected: str | None = None) -> Any:
    """What ``package.module:attribute`` or ``path/to/file.py:attribute`` names, where `expected` should stand.

    Raises:
        TargetError: there is no such module, file or attribute, or importing it raised.
    """
    name, _, path = target.partition(":")
    module = _import(target, name, expected or _expected() + _nearest(name, _adapters()))
    return _attribute(target, module, path, expected or EXPECTED_BUILD)


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


def _import(target: str, name: str, expected: str) -> ModuleType:
    is_file = name.endswith(".py") or os.sep in name
    try:
        return _import_file(Path(name), expected) if is_file else _import_module(name, expected)
    except TargetError:
        raise
    except ModuleNotFoundError as error:
        if error.name and not is_file and (name + ".").startswith(error.name + "."):
            raise TargetError(
                f"{target!r}: there is no module {error.name!r}, neither installed nor in"
                f" {Path.cwd()}; {expected}"
            ) from error
        raise TargetError(f"{target!r} did not import: {said(error)}") from error
    except BaseException as error:
        let_through(error)
        raise TargetError(f"{target!r} did not import: it raised {said(error)}") from error


def _import_module(name: str, expected: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{name!r} is no name of a module; {expected}")
    return importlib.import_module(name)


def _import_file(path: Path, expected: str) -> ModuleType:
    """The module in a file; what lies beside it can be imported by it, as if it were run as a script."""
    path = path.resolve()
    if not path.is_file():
        raise TargetError(f"there is no file {path}; {expected}")
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = f"holotype_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is not a Python file; {expected}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look modules up by name
    spec.loader.exec_module(module)
    return module


def _attribute(target: str, module: ModuleType, path: str, expected: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            public = [name for name in vars(module) if not name.startswith("_")]
            near = get_close_matches(path, public, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else expected
            raise TargetError(
                f"{target!r}: the module has no attribute {path!r}; {hint}"
            ) from error
    return found


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


def said(error: BaseException) -> str:
    return f"{type_of(error)}: {message_of(error)}"


def let_through(error: BaseException) -> None:
    """Raise again what is meant for us, and not the target's."""
    from holotype_conformance.judge.guard import is_ours

    if is_ours(error):
        raise error


def _expected() -> str:
    return EXPECTED.format(adapters=", ".join(_adapters()))


def _nearest(name: str, adapters: dict[str, EntryPoint]) -> str:
    near = get_close_matches(name, adapters, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
