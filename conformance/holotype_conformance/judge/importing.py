"""Targets, `package.module:attribute` or `path/to/file.py:attribute`, imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from holotype_conformance.judge.guard import is_ours
from holotype_conformance.judge.texts import message_of, type_of


class TargetError(ValueError):
    """A target that cannot be resolved; the message says what was expected."""


def find(target: str, expected: str, expected_attribute: str | None = None) -> Any:
    """The object that ``package.module:attribute`` or ``path/to/file.py:attribute`` names.

    Args:
        target: the name.
        expected: what should stand in its place, for messages.
        expected_attribute: what the attribute should be, if that is said in other words.

    Raises:
        TargetError: there is no such module, file or attribute, or importing it raised.
    """
    name, _, path = target.partition(":")
    module = _import(target, name, expected)
    return _attribute(target, module, path, expected_attribute or expected)


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


def said(error: BaseException) -> str:
    return f"{type_of(error)}: {message_of(error)}"


def let_through(error: BaseException) -> None:
    """Raise again what is meant for us, and not the target's."""
    if is_ours(error):
        raise error
