"""The words in which a candidate says what it is: capabilities, forms of its weights, and differences from its spec.

`holotype_conformance.models.declarations` reads what it says in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from holotype_spec.schema import Spec

Capability = Literal[
    "attention-mask",
    "position-ids",
    "token-types",
    "source-mask",
    "order",
    "next-sentence",
    "cache",
    "weights",
    "loss",
    "left-padding",
    "parallel-caches",
    "gradients",
    "train-mode",
    "parameters",
    "storage",
    "float64",
    "float32",
    "bfloat16",
    "float16",
    "count",
    "training-step",
]
Form = Literal["adapters", "padded-vocabulary", "reparametrised"]

CAPABILITIES: tuple[Capability, ...] = get_args(Capability)
FORMS: tuple[Form, ...] = get_args(Form)


def declaring(capability: Capability) -> str:
    """The declaration that a candidate lacks a capability, for messages."""
    return f'absent = {{"{capability}": "why"}}'


def holding(form: Form) -> str:
    """The declaration of a form in which a candidate holds its weights, for messages."""
    return f'holds = {{"{form}": "why"}}'


def inference_only() -> str:
    """The advice for a candidate without gradients."""
    return f"A candidate for inference alone declares {declaring('gradients')}"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A known difference of an implementation from its spec, stated by its adapter.

    It is printed beside the verdict, and all else is judged by the reference of the changed spec.

    Attributes:
        field: what differs, as `holotype show SPEC --json` calls it, such as "architecture.head".
        reason: what the implementation does instead, and who says so.
        change: the spec as the implementation has it. The same one, where nothing that is compared changes.
    """

    field: str
    reason: str
    change: Callable[[Spec], Spec] = lambda spec: spec
