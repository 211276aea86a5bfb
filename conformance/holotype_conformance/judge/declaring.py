"""Declarations of precision, which any candidate may make, and the refusal of those that cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, get_args

from holotype_conformance.judge.records import Declaration, DType

DTYPE_NAMES: tuple[DType, ...] = get_args(DType)  # the widest first
MOST = 0.3  # no limit of precision may be stated beyond this share of what is compared
LARGEST_ROUNDING = 1e-3  # what differs by more between two runs of one model is no rounding


class DeclarationError(ValueError):
    """A candidate declares what cannot be: the message says what was expected."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Stated limits of a candidate's precision, and why it has them.

    Each is a share of what is compared, the root mean square of the difference over that of what was expected, unless
    something else is said, and none may be more than `MOST`.

    Attributes:
        reason: why; it is printed beside the verdict.
        relative: how far outputs may be from those of the reference, in every dtype; or in each dtype that is named.
        itself: how far two runs of the candidate may be apart that compute the same numbers in two ways, at the worst
            output. None for the smaller of `relative` and `LARGEST_ROUNDING`: coarse weights are as coarse in both.
        cache: how far what is read through a cache may be from a full pass. None for `itself`.
        gradients: how far slopes may be off, as a share of a typical slope, and outputs after a training step. None
            for ten times `relative`, or `MOST`.
        weights: how far any number of the weights that `Candidate.effective_weights` hands out may be from the one
            that was loaded, as a share of the root mean square of its tensor.
    """

    reason: str
    relative: float | Mapping[DType, float] = 0.0
    itself: float | None = None
    cache: float | None = None
    gradients: float | None = None
    weights: float = 0.0

    def outputs(self, dtype: DType) -> float:
        """The tolerance of outputs in `dtype`."""
        if isinstance(self.relative, Mapping):
            return self.relative.get(dtype, 0.0)
        return self.relative

    def between_runs(self, dtype: DType) -> float:
        """The tolerance between two runs of the candidate."""
        if self.itself is not None:
            return self.itself
        return min(self.outputs(dtype), LARGEST_ROUNDING)

    def through_a_cache(self, dtype: DType) -> float:
        """The tolerance between a KV cache and a full pass."""
        return self.between_runs(dtype) if self.cache is None else self.cache

    def slopes(self, dtype: DType) -> float:
        """The tolerance of gradients."""
        if self.gradients is not None:
            return self.gradients
        return min(10 * self.outputs(dtype), MOST)

    def stated(self) -> Iterator[tuple[str, float]]:
        """Each limit that was written down: what of, and how much."""
        if isinstance(self.relative, Mapping):
            yield from ((f"outputs in {dtype}", limit) for dtype, limit in self.relative.items())
        else:
            yield "outputs", self.relative
        yield "two runs of it", self.itself or 0.0
        yield "outputs through a cache", self.cache or 0.0
        yield "gradients", self.gradients or 0.0
        yield "weights", self.weights


def floors(floor: Floor | None) -> Iterator[Declaration]:
    """Each limit that is stated, for reports."""
    if floor is None:
        return
    for what, limit in floor.stated():
        if limit:
            yield Declaration(kind="floor", name=what, reason=floor.reason.strip(), allowed=limit)


def require_known(told: str, name: Any, known: Sequence[str], what: str) -> None:
    if name in known:
        return
    near = get_close_matches(name, known, n=2, cutoff=0.5) if isinstance(name, str) else []
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected {', '.join(known)}"
    raise DeclarationError(f"{told} {shown(name)}, which is not {what}: {hint}")


def require_reason(told: str, reason: Any) -> None:
    if not isinstance(reason, str) or not reason.strip():
        raise DeclarationError(
            f"{told} has {shown(reason)} for a reason; expected a sentence, which reports print"
        )


def required_floor(floor: Any, told: str, *, most: float, relative_to: str) -> Floor:
    """The floor that a model or a kernel states, checked.

    Args:
        floor: what it states.
        told: how it states that, for messages: "`floor` returned".
        most: the largest limit that it may state.
        relative_to: what limits are relative to, and why there is a largest one, for messages.

    Raises:
        DeclarationError: it is no floor, gives no reason, names no dtype, or is out of bounds.
    """
    if not isinstance(floor, Floor):
        raise DeclarationError(f"{told} {shown(floor)}; expected a Floor, or None")
    require_reason("`floor`", floor.reason)
    if isinstance(floor.relative, Mapping):
        for dtype in floor.relative:
            require_known("`floor` states a limit for", dtype, DTYPE_NAMES, "a dtype")
    for what, limit in floor.stated():
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if not number or not 0 <= limit <= most:
            raise DeclarationError(
                f"`floor` lets {what} be off by {shown(limit)}; expected a number from 0 to {most:g}, relative to"
                f" {relative_to}"
            )
    return floor


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
