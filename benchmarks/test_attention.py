"""Gates on the reference's attention: what it computes and allocates, exactly, and how long it takes beside SDPA.

Times are CPU times on one thread, in alternating pairs in one run; what is judged is the median ratio of two windows of
15 pairs. Each has a target, for a quiet machine, and a gate: what load does to a comparison of different kernels is
allowed for (they slow by up to 1.3 times as much as each other), and nothing to one of the same kernel.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from holotype_conformance.bench.gates import BLOCK_FLOPS, EXPONENT, GROUPED, exponent
from holotype_conformance.bench.pairs import OTHER_CODE, calls_for, compare
from holotype_conformance.bench.protocol import (
    Count,
    Counted,
    Open,
    Prepare,
    Prepared,
    Verified,
    Verify,
)
from holotype_conformance.bench.run import FIRST, roof
from holotype_conformance.bench.server import Server
from holotype_conformance.bench.side import Side
from holotype_conformance.bench.trials import trials
from holotype_conformance.bench.workloads import KernelWork, MaskKind, Part, ragged

SAME_KERNEL = 1.05
PARTS: tuple[Part, ...] = ("forward", "forward-backward")


@dataclass(frozen=True)
class Target:
    """A ratio of times that is to be reached, and by how much load may move it."""

    work: KernelWork
    ratio: float
    headroom: float = OTHER_CODE


def masked(
    mask: MaskKind, sizes: tuple[int, ...], length: int, part: Part, heads: int
) -> KernelWork:
    return KernelWork(length=length, heads=heads, kv_heads=heads, mask=mask, sizes=sizes, part=part)


def sparse(heads: int, length: int = 4096) -> Iterator[Target]:
    """What the dense boolean mask wastes most on: (forward, forward and backward) of its time."""
    kinds: list[tuple[MaskKind, tuple[int, ...], float, float]] = [
        ("window", (256,), 0.13, 0.14),
        ("documents", (256,) * 16, 0.06, 0.06),
        ("documents", ragged(length), 0.14, 0.14),
        ("documents", (64,) * 64, 0.03, 0.03),
    ]
    for mask, sizes, *ratios in kinds:
        for part, ratio in zip(PARTS, ratios, strict=True):
            yield Target(masked(mask, sizes, length, part, heads), ratio)


def at_1024() -> Iterator[Target]:
    for part, window in zip(PARTS, (0.55, 0.58), strict=True):
        yield Target(masked("window", (256,), 1024, part, 8), window)
        yield Target(masked("prefix", (512,), 1024, part, 8), 0.70)


def dense(lengths: tuple[int, ...]) -> Iterator[Target]:
    """The very kernel that it is compared with; with grouped heads, without the copies."""
    for part in PARTS:
        for length in lengths:
            yield Target(KernelWork(length=length, part=part), 1.02, SAME_KERNEL)
        yield Target(KernelWork(length=1024, heads=12, kv_heads=4, part=part), 1.02, SAME_KERNEL)


QUICK = [*dense((512, 1024)), *at_1024(), *sparse(heads=2)]
FULL = [*dense((256, 2048, 4096)), *sparse(heads=8)]


@lru_cache(maxsize=4)
def opened(target: str) -> Side:
    return Side(Server, Open(target=target, kind="attention"))


def timed(benchmark: BenchmarkFixture, side: Side, target: Target) -> None:
    """Compare with SDPA in pairs, assert the gate and that all of it was right, and record the times."""
    prepared = side.ask(Prepare(work=target.work), Prepared)
    assert prepared.lacks is None
    side.sample("candidate", 1, 0)
    calls = calls_for(side.sample("candidate", 1, 1), prepared.bytes)
    times: list[float] = []

    def candidate(number: int) -> float:
        times.append(side.sample("candidate", calls, number))
        return times[-1]

    found = compare(
        candidate,
        lambda number: side.sample("sdpa", calls, number),
        against="sdpa",
        limit=target.ratio * target.headroom,
        first=FIRST,
    )
    side.ask(Verify(), Verified)
    least = roof(side, target.work.dtype, prepared.flops, prepared.bytes)
    benchmark.extra_info |= {
        "target": target.ratio,
        "ratio": found.ratio,
        "calls": calls,
        "achieved_of_roofline": least * calls / median(times),
    }
    benchmark.pedantic(side.sample, args=("candidate", calls, 0), rounds=3)
    assert not found.slower, f"{found.windows} of SDPA's time, the target is {target.ratio}"


def name(target: Target) -> str:
    return target.work.name.replace(" ", "-")


@pytest.mark.benchmark(group="attention beside SDPA", timer=time.process_time)
@pytest.mark.parametrize(
    "target",
    [
        *(pytest.param(target, id=name(target)) for target in QUICK),
        *(pytest.param(target, id=name(target), marks=pytest.mark.full) for target in FULL),
    ],
)
def test_the_reference_takes_no_more_of_sdpas_time_than(
    benchmark: BenchmarkFixture, target: Target
) -> None:
    timed(benchmark, opened("reference:fused"), target)


@pytest.mark.benchmark(group="readable blocks beside SDPA", timer=time.process_time)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("length", "ratio"),
    [(512, 1.0), (1024, 1.1), pytest.param(2048, 1.2, marks=pytest.mark.full)],
)
def test_the_readable_blocks_keep_up_with_sdpa(
    benchmark: BenchmarkFixture, length: int, ratio: float, part: Part
) -> None:
    work = KernelWork(length=length, part=part)
    timed(benchmark, opened("reference:blocks"), Target(work, ratio))


# Exact ------------------------------------------------------------------------------------------------------------


def counted(work: KernelWork, role: str = "candidate", target: str = "reference:fused") -> Counted:
    side = opened(target)
    side.ask(Prepare(work=work), Prepared)
    return side.ask(Count(role=role), Counted)  # type: ignore[arg-type]


def kinds(length: int, part: Part, document: int) -> list[KernelWork]:
    """Every kind of mask that hides more than the future does; of equal documents one is as long as is said."""
    return [
        masked("window", (256,), length, part, 1),
        masked("prefix", (length // 2,), length, part, 1),
        masked("documents", (document,) * (length // document), length, part, 1),
        masked("documents", ragged(length), length, part, 1),
        masked("documents", (64,) * (length // 64), length, part, 1),
    ]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("target", "length"),
    [
        ("reference:fused", 1024),
        ("reference:fused", 2048),
        pytest.param("reference:fused", 4096, marks=pytest.mark.full),
        ("reference:blocks", 1024),
    ],
)
@pytest.mark.parametrize("kind", range(5))
def test_masked_blocks_are_not_computed(target: str, length: int, part: Part, kind: int) -> None:
    work = kinds(length, part, length // 16)[kind]
    assert counted(work, target=target).flops <= BLOCK_FLOPS * work.block_flops(by_document=True)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "lengths",
    [(512, 1024, 2048), pytest.param((1024, 2048, 4096, 8192), marks=pytest.mark.full)],
    ids=["to-2048", "to-8192"],
)
@pytest.mark.parametrize("kind", range(6))
def test_memory_grows_no_faster_than_the_length(
    lengths: tuple[int, ...], part: Part, kind: int
) -> None:
    works = [
        [KernelWork(length=length, heads=1, kv_heads=1, part=part), *kinds(length, part, 256)][kind]
        for length in lengths
    ]
    assert exponent(lengths, [counted(work).peak for work in works]) <= EXPONENT


def test_shared_keys_and_values_are_not_copied() -> None:
    work = KernelWork(length=1024, heads=12, kv_heads=4)
    assert counted(work).peak <= GROUPED * counted(work, "sdpa").peak


# The gate itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, pytest.param(100, marks=pytest.mark.full)])
def test_the_timed_gate_sees_a_tenth_and_gives_no_false_alarm(count: int) -> None:
    found = trials(count)
    assert found.false_alarms <= count // 100
    assert found.caught >= count - count // 100
