"""How far the timed gate can be trusted: its false alarms on identical code, and its power, both measured.

``python -m holotype_conformance.bench.trials 200`` runs the gate so many times on a kernel against itself (each alarm
is false) and so many times on the same kernel with a tenth more of the same work (eleven calls for ten; each pass is a
miss), and prints both rates with 95 % intervals. docs/benchmarks.md shows what came of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import sqrt

from holotype_conformance.bench.bench import Server
from holotype_conformance.bench.pairs import SAME_CODE, Comparison, calls_for
from holotype_conformance.bench.protocol import Open, Prepare, Prepared
from holotype_conformance.bench.records import Measured
from holotype_conformance.bench.run import control, load
from holotype_conformance.bench.side import Side
from holotype_conformance.bench.workloads import KernelWork

WORK = KernelWork(length=256)
Z = 1.96  # of a 95 % interval


def trials(count: int, *, target: str = "sdpa", work: KernelWork = WORK) -> Trials:
    """Run the gate `count` times on identical code, and `count` times on a tenth more work."""
    side = Side(Server, Open(target=target, kind="attention"))
    prepared = side.ask(Prepare(work=work), Prepared)
    side.sample("candidate", 1, 0)
    calls = calls_for(side.sample("candidate", 1, 1), prepared.bytes)
    measured = Measured(work=work, calls=calls)
    before = load()
    found = [
        control(side, measured, limit=SAME_CODE, first=100 * number) for number in range(count)
    ]
    return Trials(
        same=[each.same for each in found],
        slowed=[each.slowed for each in found],
        loads=(before, load()),
    )


class Trials:
    """What the gate said of identical code, and of code with a tenth more work."""

    def __init__(
        self,
        *,
        same: Sequence[Comparison],
        slowed: Sequence[Comparison],
        loads: tuple[float, float],
    ) -> None:
        self.count = len(same)
        self.false_alarms = sum(each.slower for each in same)
        self.caught = sum(each.slower for each in slowed)
        self.same = sorted(each.windows[0] for each in same)
        self.slowed = sorted(min(each.windows) for each in slowed)
        self.loads = loads

    def lines(self) -> list[str]:
        """What a person reads."""
        alarms, caught = (interval(k, self.count) for k in (self.false_alarms, self.caught))
        return [
            f"load {self.loads[0]:.1f} to {self.loads[1]:.1f}, limit {SAME_CODE:g}, one thread, CPU time",
            f"identical code: {self.false_alarms} false alarms of {self.count}"
            f" (95 %: {alarms[0]:.1%} to {alarms[1]:.1%});"
            f" medians of a window {self.same[0]:.3f} to {self.same[-1]:.3f}",
            f"a tenth more work: {self.caught} caught of {self.count}"
            f" (95 %: {caught[0]:.1%} to {caught[1]:.1%});"
            f" lower medians of two windows {self.slowed[0]:.3f} to {self.slowed[-1]:.3f}",
        ]


def interval(hits: int, count: int) -> tuple[float, float]:
    """Where a rate of `hits` of `count` lies with 95 % (Wilson 1927)."""
    rate, spread = hits / count, Z * Z / count
    middle = rate + spread / 2
    width = sqrt(rate * (1 - rate) * spread + spread * spread / 4)
    return max((middle - width) / (1 + spread), 0.0), min((middle + width) / (1 + spread), 1.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m holotype_conformance.bench.trials")
    parser.add_argument("count", type=int, help="trials of each kind, at least 1")
    parser.add_argument("--target", default="sdpa", help="an attention kernel")
    given = parser.parse_args()
    if given.count < 1:
        parser.error(f"count must be at least 1, not {given.count}")
    print("\n".join(trials(given.count, target=given.target).lines()))


if __name__ == "__main__":
    main()
