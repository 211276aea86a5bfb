"""Capabilities of a candidate, read off its overrides, the arguments of its `forward`, and what it declares."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from holotype_conformance.judge.declaring import DTYPE_NAMES
from holotype_conformance.models.exchange import Inputs, Outputs
from holotype_conformance.models.statements import Capability, Form
from holotype_reference.weights import random_weights
from holotype_reference.weights.checkpoints import CheckpointError
from holotype_spec.schema import Spec

# How a `forward` that follows the custom of the field calls what it takes.
ARGUMENT_NAMES: Mapping[Capability, str] = {
    "attention-mask": "attention_mask",
    "position-ids": "position_ids",
    "token-types": "token_type_ids",
    "order": "order",
    "cache": "past_key_values",
}

# Which input each capability is about.
INPUT_NAMES: Mapping[Capability, str] = {
    "attention-mask": "attention_mask",
    "position-ids": "position_ids",
    "token-types": "token_types",
    "source-mask": "source_mask",
    "order": "order",
}


class Overriding(Protocol):
    """As much of a candidate as its capabilities are read off."""

    absent: Mapping[Capability, str]
    holds: Mapping[Form, str]

    def overrides(self, method: str) -> bool:
        """Whether it has a method of its own of this name."""

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        """One full forward pass without a cache."""


def absolute_positions(spec: Spec) -> bool:
    """Whether a shift of all positions changes the outputs."""
    return (
        spec.added_positions
        or spec.architecture.attention.scale == "inverse-sqrt-head-dim-log-length"
    )


def found_capabilities(
    candidate: Overriding, model: nn.Module, spec: Spec
) -> dict[Capability, str | None]:
    """The capabilities of a candidate with `spec`: for each capability None when it has it, else the reason why not."""
    found: dict[Capability, str | None] = {
        **_of_forward(candidate, model, spec),
        "parallel-caches": None,
        "loss": None if candidate.overrides("loss") else "the candidate defines no `loss`",
        "weights": None if candidate.overrides("load") else _named_otherwise(model, spec),
        "gradients": None,
        "train-mode": None,
        "parameters": None,
        "storage": _unstored(candidate),
        **dict.fromkeys(DTYPE_NAMES),
        "count": None,
        "training-step": None,
    }
    found = found | _other_parameters(candidate) | _not_in(spec) | dict(candidate.absent)
    untold = absolute_positions(spec) and found["position-ids"]
    found["left-padding"] = found["attention-mask"] or (
        candidate.absent.get("left-padding")
        or (f"positions are absolute and cannot be told: {untold}" if untold else None)
    )
    return found


def _of_forward(
    candidate: Overriding, model: nn.Module, spec: Spec
) -> dict[Capability, str | None]:
    """The inputs that its `forward` takes, and whether there is one with a cache."""
    found: dict[Capability, str | None] = {}
    for capability, name in ARGUMENT_NAMES.items():
        taken = name in inspect.signature(model.forward).parameters
        found[capability] = None if taken else f"its forward takes no `{name}`"
    found["source-mask"] = found["attention-mask"]
    if candidate.overrides("forward"):
        read = _read_by_forward(candidate, model, spec)
        for capability, name in INPUT_NAMES.items():
            found[capability] = (
                None if name in read else f"the candidate's `forward` never reads inputs.{name}"
            )
    if candidate.overrides("forward_cached"):
        found["cache"] = None
    elif candidate.overrides("forward"):
        found["cache"] = "the candidate defines no `forward_cached`"
    return found


def _other_parameters(candidate: Overriding) -> dict[Capability, str | None]:
    """The capabilities that are lost where weights are no parameters, or other ones than the spec's."""
    if "parameters" in candidate.absent:
        why = candidate.absent["parameters"]
    elif "reparametrised" in candidate.holds:
        why = f"its parameters are others than the spec's: {candidate.holds['reparametrised']}"
    else:
        return {}
    told = candidate.overrides("parameter_count")
    return {"training-step": why, "count": None if told else why}


def _unstored(candidate: Overriding) -> str | None:
    """Why it cannot be stored, if its weights are where `state_dict` has none and it says no other way."""
    if "parameters" not in candidate.absent or candidate.overrides("save"):
        return None
    return f"the candidate defines no `save`, and of its weights it says: {candidate.absent['parameters']}"


@dataclass(frozen=True, kw_only=True)
class _Watched(Inputs):
    """Inputs that remember which of them were looked at."""

    read: set[str] = field(default_factory=set, compare=False)

    def __getattribute__(self, name: str) -> Any:
        if name in INPUT_NAMES.values():
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in super().tensors().items() if name != "read"}


def _read_by_forward(candidate: Overriding, model: nn.Module, spec: Spec) -> set[str]:
    """The names of the inputs that an overridden `forward` looks at; all of them if it cannot be run."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    tokens = torch.ones(1, 3, dtype=torch.long, device=device)
    both = spec.architecture.structure == "encoder-decoder"
    count = tokens.cumsum(1) - 1
    inputs = _Watched(
        token_ids=tokens,
        attention_mask=tokens,
        position_ids=torch.stack([count, 0 * count], 1) if spec.two_positions else count,
        token_types=tokens - 1 if spec.segments else None,
        order=count if spec.permuted else None,
        source_ids=tokens if both else None,
        source_mask=tokens if both else None,
    )
    try:
        with torch.no_grad():
            candidate.forward(model.eval(), inputs)
    except (Exception, SystemExit):
        return set(INPUT_NAMES.values())
    return inputs.read


def _named_otherwise(model: nn.Module, spec: Spec) -> str | None:
    """Why weights cannot be transferred by name; None where names *and shapes* are ours or the published ones.

    Ports often keep the names and turn the matrices round, so that what differs first is said.
    """
    own = _shapes(dict(model.named_parameters(remove_duplicate=False)))
    canonical = random_weights(spec, seed=0)
    stated = [_shapes(canonical)]
    with suppress(CheckpointError):  # no published weights, or no table of their names
        stated.insert(0, _shapes(canonical.published()))
    if own in stated:
        return None
    nearest = max(stated, key=lambda names: len(names.keys() & own.keys()))
    return (
        "the candidate defines no `load`, and its parameters have other names or shapes than those of the"
        f" published checkpoint and ours: {_unlike(own, nearest)}"
    )


def _unlike(own: Mapping[str, tuple[int, ...]], stated: Mapping[str, tuple[int, ...]]) -> str:
    """The first difference between two tables of name -> shape."""
    shaped = [name for name in own if name in stated and own[name] != stated[name]]
    if shaped:
        name = shaped[0]
        return f"{name} is {own[name]}, expected {stated[name]}"
    unknown = [name for name in own if name not in stated]
    missing = [name for name in stated if name not in own]
    if unknown and missing:
        return f"it has {unknown[0]}, expected {missing[0]}"
    return f"nothing is called {unknown[0]}" if unknown else f"it has no {missing[0]}"


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _not_in(spec: Spec) -> dict[Capability, str | None]:
    """The capabilities that no candidate can have, because the spec does not speak of them."""
    architecture = spec.architecture
    absent: dict[Capability, str | None] = {}
    has_pairs = getattr(architecture.head, "sentence_pair", "none") != "none"
    absent["next-sentence"] = None if has_pairs else "the spec has no next-sentence head"
    if not spec.segments:
        absent["token-types"] = "the spec has no token types"
    if not spec.permuted:
        absent["order"] = "the spec predicts in no order of its own"
    if architecture.structure == "encoder":
        absent["cache"] = "an encoder has no cache"
    if architecture.structure != "encoder-decoder":
        absent["source-mask"] = "the spec has no source"
    if spec.family.generic:
        absent["weights"] = "a generic spec has no weights to hand over"
    if spec.distances_only:
        absent["position-ids"] = "positions relative to each other have no ids"
    return absent
