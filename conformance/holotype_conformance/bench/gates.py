"""The gates: what must hold of the counts and times of one configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log

from holotype_conformance.bench.pairs import Comparison
from holotype_conformance.bench.protocol import Counted
from holotype_conformance.bench.records import GateName, Growth, Measured, Verdict
from holotype_conformance.bench.workloads import KernelWork

BLOCK_FLOPS = 1.10  # times those of the blocks of 64 by 64 that the mask touches
EXPONENT = 1.20  # of the length; quadratic memory with a large linear part is above it at four times the length
GROUPED = 0.40  # of the peak of scaled_dot_product_attention with the heads repeated
ROOFLINE = 1.25  # times faster than the rates that were measured: what they may be off
COUNTED = ("operators", "flops", "allocated", "peak")


def gates(measured: Measured, earlier: Counted | None) -> Iterator[Verdict]:
    """Every gate that has something to say about one configuration.

    Args:
        measured: what was found.
        earlier: the counts of an earlier version, if it is compared with.
    """
    if measured.lacks is not None or measured.undecided is not None:
        return
    if measured.error is not None:
        yield _verdict("result.right", measured, False, 1, 0, measured.error)
        return
    yield _verdict("result.right", measured, True, 0, 0, "")
    if measured.seconds and measured.roof:
        yield _roofline(measured)
    if isinstance(measured.work, KernelWork) and measured.counts is not None:
        yield from _counted(measured, measured.work, measured.counts)
    if earlier is not None and measured.counts is not None:
        yield from _increases(measured, measured.counts, earlier)
    for comparison in measured.comparisons:
        if comparison.limit is not None:
            yield _slowdown(measured, comparison)


def growth_gate(growth: Growth) -> Verdict:
    """Memory grows no faster than the length."""
    work = f"{growth.mask} {growth.part}, lengths {', '.join(map(str, growth.lengths))}"
    if growth.error is not None:
        return Verdict(
            gate="result.right", work=work, passed=False, measured=1, limit=0, reason=growth.error
        )
    reason = f"the peak of live bytes grows as length^{growth.exponent:.2f}: " + ", ".join(
        f"{peak:,}" for peak in growth.peaks
    )
    return Verdict(
        gate="memory.linear",
        work=work,
        passed=growth.exponent <= EXPONENT,
        measured=growth.exponent,
        limit=EXPONENT,
        reason=reason,
    )


def exponent(lengths: Sequence[int], sizes: Sequence[int]) -> float:
    """The slope of the straight line through the logarithms (least squares); 0 where nothing is allocated."""
    points = [(log(n), log(size)) for n, size in zip(lengths, sizes, strict=True) if size > 0]
    if len({a for a, _ in points}) < 2:
        return 0.0
    x, y = (sum(column) / len(points) for column in zip(*points, strict=True))
    slope: float = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return slope


def too_fast(measured: Measured) -> bool:
    """Whether a time is shorter than this machine allows."""
    return bool(measured.seconds) and measured.achieved > ROOFLINE


def _roofline(measured: Measured) -> Verdict:
    reason = (
        f"a call took {measured.median * 1e3:.3g} ms, which is {measured.achieved:.2f} times as fast as the"
        f" rates of this machine allow for {measured.flops:,} FLOPs and {measured.bytes:,} bytes: it does"
        " not compute what it returns, and its time is no record"
    )
    passed = not too_fast(measured)
    return _verdict("time.roofline", measured, passed, measured.achieved, ROOFLINE, reason)


def _counted(measured: Measured, work: KernelWork, counts: Counted) -> Iterator[Verdict]:
    # Fewer operations than the pairs themselves take: they run where no dispatcher sees them.
    if counts.flops >= measured.flops // 2 and work.mask != "none":
        ratio = counts.flops / measured.block_flops
        reason = (
            f"it computes {ratio:.2f} times the FLOPs of the blocks of 64 by 64 that the mask touches"
            f" ({counts.flops:,} of {measured.block_flops:,})"
        )
        passed = ratio <= BLOCK_FLOPS
        yield _verdict("flops.masked-blocks", measured, passed, ratio, BLOCK_FLOPS, reason)
    repeated = measured.others.get("sdpa")
    if work.heads != work.kv_heads and work.part == "forward" and repeated is not None:
        share = counts.peak / repeated.peak
        reason = (
            f"its peak of live bytes is {share:.2f} of that with the heads repeated"
            f" ({counts.peak:,} of {repeated.peak:,})"
        )
        yield _verdict("memory.grouped-heads", measured, share <= GROUPED, share, GROUPED, reason)


def _increases(measured: Measured, counts: Counted, earlier: Counted) -> Iterator[Verdict]:
    more = [name for name in COUNTED if getattr(counts, name) > getattr(earlier, name)]
    told = [f"{getattr(counts, name):,} {name}, were {getattr(earlier, name):,}" for name in more]
    ratios = [getattr(counts, name) / max(getattr(earlier, name), 1) for name in COUNTED]
    yield _verdict("counts.no-increase", measured, not more, max(ratios), 1, "; ".join(told))


def _slowdown(measured: Measured, comparison: Comparison) -> Verdict:
    windows = " and ".join(f"{window:.3f}" for window in comparison.windows)
    reason = (
        f"it takes {comparison.ratio:.3f} times as long as {comparison.against} (median of the pairs of"
        f" each window: {windows})"
    )
    assert comparison.limit is not None
    return _verdict(
        "time.no-slowdown",
        measured,
        not comparison.slower,
        comparison.ratio,
        comparison.limit,
        reason,
    )


def _verdict(
    gate: GateName, measured: Measured, passed: bool, found: float, limit: float, reason: str
) -> Verdict:
    return Verdict(
        gate=gate,
        work=measured.work.name,
        passed=passed,
        measured=found,
        limit=limit,
        reason=reason,
    )
