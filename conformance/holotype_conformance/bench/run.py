"""A whole benchmark: every configuration measured, compared and held against the gates."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from random import SystemRandom
from typing import Any

import msgspec

from holotype_conformance.bench.gates import exponent, gates, growth_gate, too_fast
from holotype_conformance.bench.pairs import PAIRS, Comparison, Sampler, calls_for, compare
from holotype_conformance.bench.protocol import (
    Count,
    Counted,
    Prepare,
    Prepared,
    Rate,
    Rated,
    Role,
    Verified,
    Verify,
)
from holotype_conformance.bench.records import Control, Growth, Measured, Verdict
from holotype_conformance.bench.side import Late, Side, Unrunnable, Wrong
from holotype_conformance.bench.workloads import KernelWork, Work

TOLD = 5  # pairs where a ratio is told and not judged
LOOKED_AT = 3  # of so many samples one is verified, besides the last
_below = SystemRandom().randrange
FIRST = 10  # the number of the first pair; those before it warm up


@dataclass(frozen=True, kw_only=True)
class Other:
    """The other side of the comparison: another target, or itself at an earlier version."""

    side: Side
    title: str
    limit: float
    same_code: bool


@dataclass(kw_only=True)
class Found:
    """The findings of a run so far."""

    measured: list[Measured] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    control: Control | None = None


Watch = Callable[[str], None]


def run(
    side: Side,
    works: Sequence[Work],
    families: Sequence[Sequence[KernelWork]],
    *,
    other: Other | None = None,
    gate_globs: Sequence[str] = ("*",),
    watch: Watch = lambda name: None,
) -> Found:
    """Measure everything.

    Args:
        side: the candidate.
        works: what is timed, the cheapest first.
        families: lists of the same problem at growing lengths, of which memory is counted.
        other: what the candidate is compared with.
        gate_globs: the gates that are asked for.
        watch: is passed what comes next.
    """
    found = Found()
    for family in families:
        watch(f"memory {family[0].masked} {family[0].part}")
        if (growth := grow(side, family)) is not None:
            found.growth.append(growth)
            found.verdicts += [growth_gate(growth)] if growth.undecided is None else []
    for work in works:
        watch(work.name)
        measured, earlier = measure(side, work, other)
        if measured.seconds and found.control is None:
            found.control = _controlled(side, measured)
        found.measured.append(measured)
        verdicts = list(gates(measured, earlier))
        if too_fast(measured):  # a time of what does not compute is no record
            found.measured[-1] = msgspec.structs.replace(measured, seconds=(), comparisons=())
        found.verdicts += verdicts
    found.verdicts = [
        verdict
        for verdict in found.verdicts
        if any(fnmatchcase(verdict.gate, glob) for glob in gate_globs)
    ]
    return found


def _controlled(side: Side, measured: Measured) -> Control | None:
    """Whether the clock can be trusted; None where the candidate does not last until that is known."""
    try:
        return control(side, measured)
    except (Wrong, Late, Unrunnable):
        side.open()
        return None


# One configuration ------------------------------------------------------------------------------------------------


def measure(side: Side, work: Work, other: Other | None = None) -> tuple[Measured, Counted | None]:
    """One configuration, and the counts of the earlier version if there is one."""
    try:
        prepared = side.ask(Prepare(work=work), Prepared)
        if prepared.lacks is not None:
            return Measured(work=work, lacks=prepared.lacks), None
        return _measure(side, work, prepared, other)
    except Wrong as wrong:
        return Measured(work=work, error=str(wrong)), None
    except Late as late:
        side.open()  # and the rest still runs
        return Measured(work=work, undecided=str(late)), None
    except Unrunnable as death:
        side.open()
        return Measured(work=work, error=str(death)), None


def _measure(
    side: Side, work: Work, prepared: Prepared, other: Other | None
) -> tuple[Measured, Counted | None]:
    counts = {role: side.ask(Count(role=role), Counted) for role in prepared.roles}
    side.sample("candidate", 1, 0)
    calls = calls_for(side.sample("candidate", 1, 1), prepared.bytes)
    times: list[float] = []
    looked_at = _looked_at(side, calls)

    def candidate(number: int) -> float:
        times.append(looked_at(number))
        return times[-1]

    comparisons = [
        compare(
            candidate,
            _sampler(side, role, calls),
            against=role,
            limit=None,
            first=FIRST,
            pairs=TOLD,
        )
        for role in prepared.roles
        if role != "candidate"
    ]
    side.ask(Verify(), Verified)
    earlier = None
    if other is not None:
        comparison, earlier = _against(other, work, candidate, calls)
        comparisons += [comparison] if comparison is not None else []
        side.ask(Verify(), Verified)
    measured = Measured(
        work=work,
        told=prepared.told,
        seconds=tuple(time / calls for time in times),
        calls=calls,
        flops=prepared.flops,
        bytes=prepared.bytes,
        counts=counts.pop("candidate"),
        others={str(role): count for role, count in counts.items()},
        comparisons=tuple(comparisons),
    )
    return _under_roof(side, measured), earlier


def _against(
    other: Other, work: Work, candidate: Sampler, calls: int
) -> tuple[Comparison | None, Counted | None]:
    """Compare with another target or an earlier version, if that can do the work."""
    try:
        prepared = other.side.ask(Prepare(work=work), Prepared)
        if prepared.lacks is not None:
            return None, None
        earlier = other.side.ask(Count(role="candidate"), Counted) if other.same_code else None
        sampler = _looked_at(other.side, calls)
        sampler(0)
        found = compare(
            candidate, sampler, against=other.title, limit=other.limit, first=FIRST + PAIRS
        )
    except Wrong:
        return None, None  # a time of what is wrong is nothing to be held to
    except (Late, Unrunnable):
        other.side.open()
        return None, None
    return found, earlier


def _under_roof(side: Side, measured: Measured) -> Measured:
    """With the time that the roofline allows; where it was beaten, the rates are measured again first."""
    for again in (False, True):
        least = roof(side, measured.work.dtype, measured.flops, measured.bytes, again=again)
        measured = msgspec.structs.replace(measured, roof=least)
        if not too_fast(measured):
            break
    return measured


def roof(side: Side, dtype: str, flops: int, size: int, *, again: bool = False) -> float:
    """The seconds that so many operations and bytes take at the rates that are measured there."""
    rated = side.ask(Rate(dtype=dtype, bytes=size, again=again), Rated)
    return max(flops / rated.flops, size / rated.bytes)


def _sampler(side: Side, role: Role, calls: int) -> Sampler:
    return lambda number: side.sample(role, calls, number)


def _looked_at(side: Side, calls: int) -> Sampler:
    """Samples of the code under test, of which some are verified; whether one is, is decided after it was taken."""

    def sample(number: int) -> float:
        seconds = side.sample("candidate", calls, number)
        if not _below(LOOKED_AT):
            side.ask(Verify(), Verified)
        return seconds

    return sample


# Memory -----------------------------------------------------------------------------------------------------------


def grow(side: Side, family: Sequence[KernelWork]) -> Growth | None:
    """The growth of the candidate's memory; None where it cannot do the work."""
    peaks: list[int] = []
    error = undecided = None
    try:
        for work in family:
            if side.ask(Prepare(work=work), Prepared).lacks is not None:
                return None
            peaks.append(side.ask(Count(role="candidate"), Counted).peak)
    except Wrong as wrong:
        error = str(wrong)
    except Late as late:
        side.open()
        undecided = str(late)
    except Unrunnable as death:
        side.open()
        error = str(death)
    lengths = tuple(work.length for work in family)
    return Growth(
        mask=family[-1].masked,
        part=family[0].part,
        lengths=lengths,
        peaks=tuple(peaks),
        exponent=0.0 if error or undecided else exponent(lengths, peaks),
        error=error,
        undecided=undecided,
    )


# Can the clock be trusted? ----------------------------------------------------------------------------------------


def control(
    side: Side, measured: Measured, *, limit: float | None = None, first: int = 0
) -> Control:
    """The last configuration against itself, and with ten per cent more of the same work.

    Args:
        side: where it is prepared.
        measured: that configuration.
        limit: of the gate, for trials of it; None for one window each.
        first: the number of the first pair.
    """
    base = -(-measured.calls // 10) * 10
    plain, slowed = (_sampler(side, "candidate", calls) for calls in (base, base + base // 10))
    options: dict[str, Any] = {"limit": limit, "first": FIRST + first}
    return Control(
        same=compare(plain, plain, against="itself", **options),
        slowed=compare(slowed, plain, against="itself", **options),
    )


def load() -> float:
    """The machine's load average over the last minute; 0 where it does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
