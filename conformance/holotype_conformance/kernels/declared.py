"""The declarations of a kernel, checked and made ready for reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from holotype_conformance.judge.declaring import (
    DTYPE_NAMES,
    DeclarationError,
    floors,
    require_known,
    require_reason,
    required_floor,
    shown,
)
from holotype_conformance.judge.records import Declaration
from holotype_conformance.kernels.candidate import (
    DERIVED,
    KernelCandidate,
    KernelCapability,
    Required,
)
from holotype_conformance.kernels.sizes import Axis, Sizes, nearest

CAPABILITIES = tuple(name for name in get_args(KernelCapability) if name not in DERIVED)
AXES: tuple[Axis, ...] = get_args(Axis)
REQUIRED: tuple[Required, ...] = get_args(Required)
MOST = 0.1  # keys in 8 bits stay below it
RELATIVE_TO = "the largest sum of absolute terms: beyond that mistakes are not told from rounding"
ELSEWHERE = {"any-length": "lengths", "any-head-dim": "head_dim"}  # said by `sizes`


def kernel_declarations(kernel: KernelCandidate) -> tuple[Declaration, ...]:
    """Everything that a kernel declares.

    Raises:
        DeclarationError: it declares something that does not exist, without a reason, or out of bounds.
    """
    found = (*_absent(kernel), *_sizes(kernel), *_required(kernel), *_floor(kernel))
    if all(dtype in kernel.absent for dtype in DTYPE_NAMES):
        raise DeclarationError("`absent` names every dtype; expected one that the kernel takes")
    return found


def _absent(kernel: KernelCandidate) -> Iterator[Declaration]:
    for name, reason in _mapping("absent", kernel.absent, "a capability", CAPABILITIES[0]):
        if name in DERIVED:
            mend = (
                f"`sizes` says it: {{{ELSEWHERE[name]!r}: Sizes(multiple=…, reason='why')}}"
                if name in ELSEWHERE
                else "`required` says it: {'causal': 'why'}"
            )
            raise DeclarationError(f"`absent` names {name!r}, which follows from others: {mend}")
        require_known("`absent` names", name, CAPABILITIES, "a capability of kernels")
        require_reason(f"`absent[{name!r}]`", reason)
        yield Declaration(kind="absent", name=name, reason=reason.strip())


def _sizes(kernel: KernelCandidate) -> Iterator[Declaration]:
    for axis, sizes in _mapping("sizes", kernel.sizes, "an axis", AXES[0]):
        require_known("`sizes` names", axis, AXES, "an axis")
        if not isinstance(sizes, Sizes):
            raise DeclarationError(
                f"`sizes[{axis!r}]` is {shown(sizes)}; expected Sizes(multiple=64, reason='why') or the like"
            )
        require_reason(f"`sizes[{axis!r}]`", sizes.reason)
        _require_numbers(axis, sizes)
        yield Declaration(kind="sizes", name=f"{axis} {sizes.said()}", reason=sizes.reason.strip())
    for axis in ("queries", "keys"):
        limits = [kernel.sizes[name] for name in ("lengths", axis) if name in kernel.sizes]  # type: ignore[index]
        if nearest(1, limits) is None:
            raise DeclarationError(f"`sizes` leave no number of {axis} that the kernel takes")


def _require_numbers(axis: str, sizes: Sizes) -> None:
    numbers = [sizes.least, sizes.multiple, *(() if sizes.most is None else (sizes.most,))]
    if isinstance(sizes.among, str) or not isinstance(sizes.among, tuple | list):
        raise DeclarationError(
            f"`among` of `sizes[{axis!r}]` is {shown(sizes.among)}; expected a tuple of sizes"
        )
    for number in (*numbers, *sizes.among):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise DeclarationError(
                f"`sizes[{axis!r}]` has {shown(number)} in it; expected whole numbers from 1 on"
            )
    if nearest(1, [sizes]) is None:
        raise DeclarationError(f"`sizes[{axis!r}]` leaves no size that the kernel takes")


def _required(kernel: KernelCandidate) -> Iterator[Declaration]:
    for name, reason in _mapping("required", kernel.required, "a parameter", REQUIRED[0]):
        require_known("`required` names", name, REQUIRED, "a parameter that can be required")
        require_reason(f"`required[{name!r}]`", reason)
        if (lack := kernel.lacks("causal" if name == "causal" else "band")) and (
            name == "causal" or kernel.lacks("window")
        ):
            raise DeclarationError(f"`required` names {name!r}, but of it is known: {lack}")
        yield Declaration(kind="required", name=name, reason=reason.strip())


def _floor(kernel: KernelCandidate) -> Iterator[Declaration]:
    floor = kernel.floor
    if floor is None:
        return
    required_floor(floor, "`floor` is", most=MOST, relative_to=RELATIVE_TO)
    if floor.cache is not None or floor.itself is not None or floor.weights:
        raise DeclarationError(
            "`floor` states `itself`, `cache` or `weights`, which are of models; expected `relative` and `gradients`"
        )
    yield from floors(floor)


def _mapping(told: str, stated: Any, what: str, example: str) -> Any:
    if not isinstance(stated, Mapping):
        raise DeclarationError(
            f"`{told}` is {shown(stated)}; expected a mapping of {what} to the reason, such as {{{example!r}: 'why'}}"
        )
    return stated.items()
