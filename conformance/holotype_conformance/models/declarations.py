"""Declarations of a candidate: what it cannot do, how else it holds its weights, how far off it may be, and where it is
known to differ from its spec.

A declaration is believed and printed, with its reason, in every report. One that names nothing or gives no reason is
an error of whoever wrote it, and no verdict on the candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from holotype_conformance.judge.declaring import (
    DTYPE_NAMES,
    MOST,
    DeclarationError,
    Floor,
    floors,
    require_known,
    require_reason,
    required_floor,
    shown,
)
from holotype_conformance.judge.records import Declaration
from holotype_conformance.models.candidate import Candidate
from holotype_conformance.models.statements import CAPABILITIES as CAPABILITIES
from holotype_conformance.models.statements import FORMS as FORMS
from holotype_conformance.models.statements import Capability as Capability
from holotype_conformance.models.statements import Difference as Difference
from holotype_conformance.models.statements import Form as Form
from holotype_conformance.models.statements import declaring as declaring
from holotype_conformance.models.statements import holding as holding
from holotype_conformance.models.statements import inference_only as inference_only
from holotype_spec.schema import Spec

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
