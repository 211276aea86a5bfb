"""The weights that a candidate really computes with, where they are coarser than those that it was given.

Whoever quantises can hand them out. Then the reference computes with them too, the candidate is held to rounding, and
what quantising did to each number is compared with what the candidate states of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from holotype_conformance.judge.property import Violation, measured
from holotype_conformance.judge.tolerance import largest_error, relative_error
from holotype_conformance.torch_tools.plain_tensor import plain_tensor
from holotype_reference.weights import Weights
from holotype_reference.weights.checkpoints import CheckpointError, canonical

UNITS = 8  # in the last place of a dtype: what a weight may move by where none is said to be coarse


def completed(given: Weights, found: Any) -> Weights:
    """The weights that a candidate hands out, under our names and complete: unnamed ones are as they were passed.

    Args:
        given: what was loaded.
        found: what `Candidate.effective_weights` returned, under our names or the published ones.

    Raises:
        Violation: it is no mapping of the names of weights to tensors of their shapes.
    """
    if not isinstance(found, Mapping):
        raise Violation(
            f"effective_weights returned {type(found).__name__}; expected a mapping of names to tensors"
        )
    handed = {
        str(name): _tensor(str(name), value).to(torch.float64) for name, value in found.items()
    }
    if handed.keys() <= given.keys():
        whole = Weights(given.spec, {**given, **handed})
    else:
        whole = _from_published(given, handed)
    for name, value in whole.items():
        if value.shape != given[name].shape:
            raise Violation(
                f"effective_weights has {name} {tuple(value.shape)}; expected {tuple(given[name].shape)}"
            )
    return whole


def demand_near(given: Weights, held: Weights, *, stated: float, dtype: torch.dtype) -> None:
    """Demand that every number is as near to the one that was given as the candidate states, or as `dtype` rounds.

    Raises:
        Violation: one is not; the message names the tensor that is farthest off.
    """
    budget = max(stated, UNITS * torch.finfo(dtype).eps)
    errors = {name: relative_error(held[name], value) for name, value in given.items()}
    worst, error = largest_error(errors)
    measured(error, budget)
    if not error <= budget:
        raise Violation(
            f"the weights that it computes with are not those that it was given: {worst} is off by {error:.1e}"
            f" of its root mean square; {budget:.1e} is allowed"
            + (", as the candidate states" if stated else ""),
            tensor=worst,
            error=error,
            budget=budget,
        )


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise Violation(
            f"effective_weights has {name} as {type(value).__name__}; expected a tensor"
        )
    tensor: Tensor = plain_tensor(value, name)
    return tensor.detach().cpu().clone()  # a model's own tensor changes with the next load


def _from_published(given: Weights, handed: dict[str, Tensor]) -> Weights:
    published = given.published()
    unknown = [name for name in handed if name not in published]
    if unknown:
        known = [*given, *published]
        near = get_close_matches(unknown[0], known, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`holotype show` lists them"
        raise Violation(
            f"effective_weights names {unknown[0]}, which is neither one of our names nor a published one: {hint}"
        )
    replaced = {id(published[name]) for name in handed}
    # Of a tensor under two names only the one that is handed out counts.
    kept = {name: each for name, each in published.items() if id(each) not in replaced}
    try:
        return canonical(given.spec, kept | handed)
    except CheckpointError as error:
        raise Violation(
            f"effective_weights hands out other weights than the spec has: {error}"
        ) from error
