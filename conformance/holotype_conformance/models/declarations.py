"""What a candidate declares: what it cannot do, how else it holds its weights, how far off it may be, and where it is
known to differ from its spec.

A declaration is believed and printed, with its reason, in every report. One that names nothing or gives no reason is
an error of whoever wrote it, and no verdict on the candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, get_args

from holotype_conformance.judge.records import Declaration, DType
from holotype_spec.schema import Spec

if TYPE_CHECKING:
    from holotype_conformance.models.candidate import Candidate

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
DTYPE_NAMES: tuple[DType, ...] = get_args(DType)  # the widest first
MOST = 0.3  # no limit of precision may be stated beyond this share of what is compared
LARGEST_ROUNDING = 1e-3  # what differs by more between two runs of one model is no rounding


def declaring(capability: Capability) -> str:
    """How a candidate declares that it lacks a capability, for messages."""
    return f'absent = {{"{capability}": "why"}}'


def holding(form: Form) -> str:
    """How a candidate declares a form in which it holds its weights, for messages."""
    return f'holds = {{"{form}": "why"}}'


def inference_only() -> str:
    """What a candidate without gradients is told."""
    return f"A candidate for inference alone declares {declaring('gradients')}"


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
        """What is allowed of outputs in `dtype`."""
        if isinstance(self.relative, Mapping):
            return self.relative.get(dtype, 0.0)
        return self.relative

    def between_runs(self, dtype: DType) -> float:
        """What is allowed between two runs of the candidate."""
        if self.itself is not None:
            return self.itself
        return min(self.outputs(dtype), LARGEST_ROUNDING)

    def through_a_cache(self, dtype: DType) -> float:
        """What is allowed between a cache and a full pass."""
        return self.between_runs(dtype) if self.cache is None else self.cache

    def slopes(self, dtype: DType) -> float:
        """What is allowed of gradients."""
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


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where an implementation is known not to be what its spec says, stated by its adapter.

    It is printed beside the verdict, and all else is judged by the reference of the changed spec.

    Attributes:
        field: what differs, as `holotype show SPEC --json` calls it, such as "architecture.head".
        reason: what the implementation does instead, and who says so.
        change: the spec as the implementation has it. The same one, where nothing that is compared changes.
    """

    field: str
    reason: str
    change: Callable[[Spec], Spec] = lambda spec: spec


# Reading them ---------------------------------------------------------------------------------------------------


def declarations(candidate: Candidate, spec: Spec) -> tuple[Declaration, ...]:
    """Everything that a candidate declares for `spec`.

    Raises:
        DeclarationError: it declares something that does not exist, without a reason, or out of bounds.
    """
    check_paths(candidate.paths)
    found = [
        *_named("absent", candidate.absent, CAPABILITIES, "a capability"),
        *_named("holds", candidate.holds, FORMS, "a form in which weights are held"),
        *floors(stated_floor(candidate, spec)),
        *_differences(known_differences(candidate, spec)),
    ]
    if all(dtype in candidate.absent for dtype in DTYPE_NAMES):
        raise DeclarationError("`absent` names every dtype; expected one that the candidate has")
    return tuple(found)


def check_paths(paths: Any) -> None:
    """Refuse names of code paths that are none.

    Raises:
        DeclarationError: there is none, one is no text, or two are the same.
    """
    mend = 'expected one name or more, such as paths = ("fused", "eager")'
    if isinstance(paths, str) or not isinstance(paths, Sequence):
        raise DeclarationError(f"`paths` is {shown(paths)}; {mend}")
    if not paths:
        raise DeclarationError(f"`paths` is empty, so that nothing could be run; {mend}")
    for path in paths:
        if not isinstance(path, str) or not path.strip():
            raise DeclarationError(f"`paths` has {shown(path)} in it; {mend}")
    if len(set(paths)) < len(paths):
        raise DeclarationError(f"`paths` names one path twice: {', '.join(paths)}; {mend}")


def stated_floor(candidate: Candidate, spec: Spec) -> Floor | None:
    """The candidate's floor for `spec`, if it states one.

    Raises:
        DeclarationError: what it states is no floor, or out of bounds.
    """
    floor = _asked(candidate, "floor", spec)
    if floor is None:
        return None
    relative_to = "the size of what is compared: beyond that nothing is told apart"
    return required_floor(floor, "`floor` returned", most=MOST, relative_to=relative_to)


def known_differences(candidate: Candidate, spec: Spec) -> tuple[Difference, ...]:
    """The differences from `spec` that the candidate states.

    Raises:
        DeclarationError: one of them is no `Difference`, or has no reason.
    """
    stated = _asked(candidate, "differences", spec)
    if isinstance(stated, str | Mapping) or not isinstance(stated, Sequence):
        raise DeclarationError(
            f"`differences` returned {shown(stated)}; expected a sequence of Difference"
        )
    for each in stated:
        if not isinstance(each, Difference):
            raise DeclarationError(f"`differences` has {shown(each)} in it; expected a Difference")
        require_reason(f"the difference in {each.field}", each.reason)
    return tuple(stated)


def as_it_has_it(candidate: Candidate, spec: Spec) -> Spec:
    """The spec with every difference that the candidate states: what the rest of it is judged by.

    Raises:
        DeclarationError: a stated difference cannot be made.
    """
    for difference in known_differences(candidate, spec):
        try:
            spec = difference.change(spec)
        except Exception as error:
            raise DeclarationError(
                f"the difference in {difference.field} cannot be made in {spec.name}: it raised"
                f" {type(error).__name__}: {error}"
            ) from error
    return spec


def _named(
    kind: Literal["absent", "holds"], stated: Any, known: Sequence[str], what: str
) -> Iterator[Declaration]:
    if not isinstance(stated, Mapping):
        raise DeclarationError(
            f"`{kind}` is {shown(stated)}; expected a mapping of {what} to the reason, such as"
            f" {{{known[0]!r}: 'why'}}"
        )
    for name, reason in stated.items():
        require_known(f"`{kind}` names", name, known, what)
        require_reason(f"`{kind}[{name!r}]`", reason)
        yield Declaration(kind=kind, name=name, reason=reason.strip())


def floors(floor: Floor | None) -> Iterator[Declaration]:
    """Each limit that is stated, for reports."""
    if floor is None:
        return
    for what, limit in floor.stated():
        if limit:
            yield Declaration(kind="floor", name=what, reason=floor.reason.strip(), allowed=limit)


def _differences(differences: Sequence[Difference]) -> Iterator[Declaration]:
    for each in differences:
        yield Declaration(kind="difference", name=each.field, reason=each.reason.strip())


# Refusing them --------------------------------------------------------------------------------------------------


def _asked(candidate: Candidate, method: str, spec: Spec) -> Any:
    try:
        return getattr(candidate, method)(spec)
    except (Exception, SystemExit) as error:
        said = str(error).strip().split("\n")[0] or "no message"
        raise DeclarationError(
            f"the candidate's `{method}` raised {type(error).__name__}: {said}"
        ) from error


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
    """What a model or a kernel states of its precision, if it is a floor.

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
