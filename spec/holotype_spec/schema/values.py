"""The base class of the schema, and values with bounds."""

from __future__ import annotations

from typing import Annotated, dataclass_transform

import msgspec

LARGEST = 10**9  # no size of a model comes near it
Count = Annotated[
    int, msgspec.Meta(ge=1, le=LARGEST, description="a whole number from 1 to a billion")
]
Positive = Annotated[float, msgspec.Meta(gt=0, description="a number greater than 0")]
Rate = Annotated[
    float, msgspec.Meta(ge=0, lt=1, description="a probability, at least 0 and below 1")
]
Name = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="a lower-case name")
]


@dataclass_transform(frozen_default=True, kw_only_default=True)  # type checkers read it here alone
class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Frozen, keyword-only, and unknown keys are errors."""
