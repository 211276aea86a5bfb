"""Parameters that a model holds beside those of its spec, because it declares that it does: adapters, and rows of the
vocabulary that nothing reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from math import prod
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from holotype_conformance.judge.property import Violation
from holotype_conformance.models.counting import distinct
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_spec.parameters import parameter_table
from holotype_spec.schema import Spec

MANY = 1024  # rows that pad even a small vocabulary


class PaddingRows(NamedTuple):
    """So many rows pad the vocabulary, and so many numbers stand in them."""

    rows: int
    numbers: int


# Adapters -------------------------------------------------------------------------------------------------------


def parameters_beside(subject: Subject, model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of adapters: those that loading other weights leaves as they are. None if none are declared."""
    if "adapters" not in subject.candidate.holds or not subject.has("weights"):
        return {}
    names = _adapters(subject)
    return {name: each for name, each in model.named_parameters() if _kind(name) in names}


def numbers_beside(subject: Subject, model: nn.Module, surplus: int) -> int:
    """The count of numbers in adapters; of a candidate that cannot be loaded, all that are too many.

    Raises:
        Violation: adapters are declared, and there are none.
    """
    declared = subject.candidate.holds.get("adapters")
    if declared is None:
        return 0
    if not subject.has("weights"):
        return max(surplus, 0)
    found = parameters_beside(subject, model)
    if not found:
        raise Violation(
            f"the candidate declares adapters ({declared}), and loading other weights reaches every parameter; expected"
            " some that it leaves as they are"
        )
    return sum(parameter.numel() for _, parameter in distinct(found.items()))


_FOUND: WeakKeyDictionary[Subject, frozenset[str]] = WeakKeyDictionary()


def _adapters(subject: Subject) -> frozenset[str]:
    """The names of parameters that no loading reaches, without the numbers of their layers."""
    if subject not in _FOUND:
        setup = Setup(path=subject.paths[0])
        model = subject.fresh_model(setup)
        before = _numbers(model)
        subject.load(model, subject.weights(setup.layers, setup.weights + 1, setup.drawn))
        after = _numbers(model)
        moved = {_kind(name) for name, value in after.items() if not _same(before, name, value)}
        _FOUND[subject] = frozenset(map(_kind, after)) - moved
    return _FOUND[subject]


def _numbers(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def _same(before: Mapping[str, Tensor], name: str, after: Tensor) -> bool:
    return (
        name in before and before[name].shape == after.shape and bool((before[name] == after).all())
    )


def _kind(name: str) -> str:
    """The name of a parameter in any layer."""
    return re.sub(r"\d+", "#", name)


# Padding of the vocabulary --------------------------------------------------------------------------------------


def padding_rows(subject: Subject, spec: Spec, surplus: int) -> PaddingRows:
    """The rows that pad the vocabulary, if `surplus` numbers are whole rows of its tables; none if none are declared.

    Raises:
        Violation: they are declared, and the numbers say otherwise.
    """
    declared = subject.candidate.holds.get("padded-vocabulary")
    if declared is None:
        return PaddingRows(0, 0)
    if surplus == 0:
        raise Violation(
            f"the candidate declares a padded vocabulary ({declared}), and has no more parameters than the spec;"
            " expected rows that pad it"
        )
    return whole_rows(spec, surplus) or PaddingRows(0, 0)


def whole_rows(spec: Spec, surplus: int) -> PaddingRows | None:
    """So many numbers as rows of the tables of the vocabulary; None where they are none."""
    for width in _row_widths(spec):
        rows, rest = divmod(surplus, width)
        if rest == 0 and 0 < rows <= max(spec.vocab_size, MANY):
            return PaddingRows(rows, surplus)
    return None


def _row_widths(spec: Spec) -> list[int]:
    """The numbers that one more token is: in all tables of the vocabulary, or in some of them; the most first."""
    size = spec.vocab_size
    tables = [prod(row.shape) // size for row in parameter_table(spec) if size in row.shape]
    some = (chosen for n in range(1, len(tables) + 1) for chosen in combinations(tables, n))
    return sorted({sum(chosen) for chosen in some if max(tables) in chosen}, reverse=True)
