"""A spec of each documented language model, as data that a machine reads and a person can check.

>>> import holotype_spec
>>> holotype_spec.load("llama2-70b").kv_heads
8

No part of this package imports torch, and `dependencies` alone imports numpy. Each part is imported when it
is first used, so that ``import holotype_spec`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holotype_spec import areas as areas
    from holotype_spec import costs as costs
    from holotype_spec import dependencies as dependencies
    from holotype_spec import field_names as field_names
    from holotype_spec import overview as overview
    from holotype_spec.catalogue import aliases as aliases
    from holotype_spec.catalogue import complete as complete
    from holotype_spec.catalogue import entries as entries
    from holotype_spec.catalogue import families as families
    from holotype_spec.catalogue import find as find
    from holotype_spec.catalogue import generics as generics
    from holotype_spec.catalogue import line_of_descent as line_of_descent
    from holotype_spec.catalogue import load as load
    from holotype_spec.catalogue import names as names
    from holotype_spec.catalogue import originals as originals
    from holotype_spec.counts import Counts as Counts
    from holotype_spec.counts import count_parameters as count_parameters
    from holotype_spec.errors import NoSpec as NoSpec
    from holotype_spec.errors import Problem as Problem
    from holotype_spec.errors import SpecError as SpecError
    from holotype_spec.errors import UndisclosedValue as UndisclosedValue
    from holotype_spec.errors import UnknownSpec as UnknownSpec
    from holotype_spec.files import Entry as Entry
    from holotype_spec.networks import Network as Network
    from holotype_spec.parameters import Parameter as Parameter
    from holotype_spec.parameters import parameter_table as parameter_table
    from holotype_spec.probes import probe as probe
    from holotype_spec.schema import Spec as Spec
    from holotype_spec.sketch import Sketch as Sketch
    from holotype_spec.tensors import tensor_table as tensor_table

_HOMES = {
    "aliases": "catalogue",
    "complete": "catalogue",
    "entries": "catalogue",
    "families": "catalogue",
    "generics": "catalogue",
    "find": "catalogue",
    "line_of_descent": "catalogue",
    "load": "catalogue",
    "names": "catalogue",
    "originals": "catalogue",
    "NoSpec": "errors",
    "Problem": "errors",
    "SpecError": "errors",
    "UndisclosedValue": "errors",
    "UnknownSpec": "errors",
    "Entry": "files",
    "Network": "networks",
    "Counts": "counts",
    "Parameter": "parameters",
    "count_parameters": "counts",
    "parameter_table": "parameters",
    "probe": "probes",
    "Spec": "schema",
    "Sketch": "sketch",
    "tensor_table": "tensors",
}
_MODULES = ("areas", "costs", "dependencies", "field_names", "overview")

__all__ = [*_HOMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
