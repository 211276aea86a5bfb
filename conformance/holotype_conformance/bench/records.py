"""Results of a benchmark, as data: ``--json`` writes them, and reports are drawn from them. No torch here."""

from __future__ import annotations

from typing import Literal

import msgspec

from holotype_conformance.bench.pairs import Comparison
from holotype_conformance.bench.protocol import Counted
from holotype_conformance.bench.workloads import KernelWork, Part, Work
from holotype_conformance.judge.records import Environment, Kind

GateName = Literal[
    "result.right",
    "time.roofline",
    "flops.masked-blocks",
    "memory.linear",
    "memory.grouped-heads",
    "counts.no-increase",
    "time.no-slowdown",
]
GATES: dict[GateName, str] = {  # what each demands, in at most 44 letters
    "result.right": "What is timed is right, on fresh inputs.",
    "time.roofline": "No time beats what the machine can do.",
    "flops.masked-blocks": "Masked blocks are not computed.",
    "memory.linear": "Memory grows no faster than the length.",
    "memory.grouped-heads": "Shared keys and values are not copied.",
    "counts.no-increase": "No count is above the earlier version's.",
    "time.no-slowdown": "Not slower than what it is compared with.",
}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration.

    Attributes:
        work: what was to be done.
        lacks: why the candidate cannot do it, else None.
        error: what was wrong, else None; then there is no time.
        undecided: why nothing is known of it, else None: it did not end in time.
        told: how the candidate was passed its mask.
        seconds: of one call, one value a sample.
        calls: in a sample.
        flops, bytes: the least that the work takes.
        roof: the seconds that this takes at the measured rates.
        counts, others: what one call of the candidate, and of the others, cost.
        comparisons: with the others.
    """

    work: Work
    lacks: str | None = None
    error: str | None = None
    undecided: str | None = None
    told: str = ""
    seconds: tuple[float, ...] = ()
    calls: int = 1
    flops: int = 0
    bytes: int = 0
    roof: float = 0.0
    counts: Counted | None = None
    others: dict[str, Counted] = {}
    comparisons: tuple[Comparison, ...] = ()

    @property
    def median(self) -> float:
        """Seconds of one call."""
        ordered = sorted(self.seconds)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else sum(ordered[middle - 1 : middle + 1]) / 2

    @property
    def achieved(self) -> float:
        """The fraction of the measured roofline that was reached."""
        return self.roof / self.median

    @property
    def tokens_per_second(self) -> float:
        """Throughput."""
        return self.work.tokens / self.median

    @property
    def block_flops(self) -> int:
        """Of a kernel the FLOPs of the blocks that its mask touches; 0 of a model.

        Whoever is passed the lengths of documents can begin its blocks anew with each.
        """
        if not isinstance(self.work, KernelWork):
            return 0
        return self.work.block_flops(by_document="documents" in self.told)

    def ratio(self, against: str) -> float | None:
        """Time over that of another, if it was compared."""
        found = [each.ratio for each in self.comparisons if each.against == against]
        return found[0] if found else None


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The growth of the peak of live bytes with the length: as length to the power of `exponent`."""

    mask: str
    part: Part
    lengths: tuple[int, ...]
    peaks: tuple[int, ...]
    exponent: float
    error: str | None = None
    undecided: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One gate on one configuration."""

    gate: GateName
    work: str
    passed: bool
    measured: float
    limit: float
    reason: str


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the clock could be trusted: one thing against itself, and against itself with a tenth more work."""

    same: Comparison
    slowed: Comparison


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """One run of ``holotype bench``; `load` is the machine's load average before and after it."""

    holotype: str
    target: str
    candidate: str
    kind: Kind
    specs: tuple[str, ...]
    against: str | None
    grid: str
    seed: int
    passed: bool
    environment: Environment
    load: tuple[float, float]
    control: Control | None
    measured: tuple[Measured, ...]
    growth: tuple[Growth, ...]
    gates: tuple[Verdict, ...]

    def undecided(self) -> list[str]:
        """Of what did not end in time what it is, and how long it had."""
        works = [f"{each.work.name}: {each.undecided}" for each in self.measured if each.undecided]
        return works + [
            f"memory {each.mask} {each.part}: {each.undecided}"
            for each in self.growth
            if each.undecided
        ]

    def failed(self) -> list[Verdict]:
        """The gates that were not passed, the smallest configuration first."""
        return [verdict for verdict in self.gates if not verdict.passed]
