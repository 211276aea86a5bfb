"""Reliability of the timed gate: its false alarms on identical code, and its power, both measured.

``python -m holotype_conformance.bench.trials 200`` runs the gate so many times on a kernel against itself (each alarm
is false) and so many times on the same kernel with a tenth more of the same work (eleven calls for ten; each pass is a
miss), and prints both rates with 95 % intervals. docs/benchmarks.md shows what came of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from math import sqrt

import torch
from torch.nn.functional import scaled_dot_product_attention

from holotype_conformance.bench import clock
from holotype_conformance.bench.pairs import SAME_CODE, Comparison, Sampler, compare
from holotype_conformance.bench.run import load

SHAPE = (1, 8, 256, 64)  # of causal attention, about 1.6 ms
Z = 1.96  # of a 95 % interval


def trials(count: int) -> Trials:
    """Run the gate `count` times on identical code, and `count` times on a tenth more work."""
    before, judged = load(), partial(compare, against="itself", limit=SAME_CODE)
    ten, eleven = _sampler(10), _sampler(11)
    ten(0)
    same = [judged(ten, ten) for _ in range(count)]
    slowed = [judged(eleven, ten) for _ in range(count)]
    return Trials(same=same, slowed=slowed, loads=(before, load()))


def _sampler(calls: int) -> Sampler:
    torch.set_num_threads(1)
    q = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))

    def work() -> None:
        for _ in range(calls):
            scaled_dot_product_attention(q, q, q, is_causal=True)

    return lambda number: clock.seconds(work, q.device)


class Trials:
    """The gate's verdicts on identical code, and on code with a tenth more work."""

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
        """The text for a reader."""
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
    """The interval of a rate of `hits` of `count` with 95 % (Wilson 1927)."""
    rate, spread = hits / count, Z * Z / count
    middle = rate + spread / 2
    width = sqrt(rate * (1 - rate) * spread + spread * spread / 4)
    return max((middle - width) / (1 + spread), 0.0), min((middle + width) / (1 + spread), 1.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m holotype_conformance.bench.trials")
    parser.add_argument("count", type=int, help="trials of each kind, at least 1")
    given = parser.parse_args()
    if given.count < 1:
        parser.error(f"count must be at least 1, not {given.count}")
    print("\n".join(trials(given.count).lines()))


if __name__ == "__main__":
    main()
