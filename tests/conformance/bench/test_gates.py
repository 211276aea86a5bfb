"""The gates, on numbers that are made up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holotype_conformance.bench.gates import (
    BLOCK_FLOPS,
    EXPONENT,
    GROUPED,
    ROOFLINE,
    exponent,
    gates,
    growth_gate,
)
from holotype_conformance.bench.pairs import OTHER_CODE, SAME_CODE, Comparison
from holotype_conformance.bench.protocol import Counted
from holotype_conformance.bench.records import GATES, Growth, Measured
from holotype_conformance.bench.workloads import KernelWork

WORK = KernelWork(length=128, heads=1, kv_heads=1, head_dim=8)
TRIANGLE = 128 * 129 // 2
BLOCKS = 3 * 64 * 64


def counted(**changes: int) -> Counted:
    base = Counted(operators=3, flops=4 * BLOCKS * 8, allocated=100, peak=100)
    return msgspec.structs.replace(base, **changes)


def measured(**facts: Any) -> Measured:
    values: dict[str, Any] = {
        "work": WORK,
        "seconds": (1.0,),
        "flops": 4 * TRIANGLE * 8,
        "bytes": 1,
        "roof": 0.5,
        "counts": counted(),
    }
    return Measured(**values | facts)


def failed(found: Measured, earlier: Counted | None = None) -> list[str]:
    return [verdict.gate for verdict in gates(found, earlier) if not verdict.passed]


def test_what_is_right_and_skips_passes() -> None:
    assert failed(measured()) == []
    assert failed(measured(), counted()) == []


def test_a_kernel_that_computes_the_masked_block_too_fails() -> None:
    assert failed(measured(counts=counted(flops=4 * 4 * 64 * 64 * 8))) == ["flops.masked-blocks"]


def test_operations_that_no_dispatcher_sees_are_not_judged() -> None:
    assert failed(measured(counts=counted(flops=0))) == []


def test_a_tenth_more_flops_than_the_blocks_is_the_limit() -> None:
    blocks = 4 * BLOCKS * 8
    assert failed(measured(counts=counted(flops=blocks * 110 // 100))) == []
    assert failed(measured(counts=counted(flops=blocks * 112 // 100))) == ["flops.masked-blocks"]


def test_faster_than_the_rates_allow_fails() -> None:
    assert failed(measured(roof=1.2)) == []  # what the rates may be off
    assert failed(measured(roof=1.3)) == ["time.roofline"]


@pytest.mark.parametrize("name", ["operators", "flops", "allocated", "peak"])
def test_one_more_of_anything_fails_against_the_earlier_version(name: str) -> None:
    less = counted(**{name: getattr(counted(), name) - 1})
    assert failed(measured(), less) == ["counts.no-increase"]
    assert failed(measured(), counted(**{name: 10**9})) == []


def test_copied_keys_and_values_fail_where_heads_share_them() -> None:
    shared = msgspec.structs.replace(WORK, heads=12, kv_heads=4)
    blocks = counted(flops=12 * 4 * BLOCKS * 8, peak=41)
    others = {"sdpa": counted(peak=100)}
    found = measured(work=shared, counts=blocks, others=others)
    assert failed(found) == ["memory.grouped-heads"]
    frugal = msgspec.structs.replace(blocks, peak=40)
    assert failed(msgspec.structs.replace(found, counts=frugal)) == []


def test_slower_in_two_windows_fails_and_a_ratio_without_a_limit_does_not() -> None:
    slow = Comparison(against="it", ratio=1.1, windows=(1.1, 1.1), limit=1.05)
    once = msgspec.structs.replace(slow, windows=(1.1, 1.0))
    told = msgspec.structs.replace(slow, limit=None)
    assert failed(measured(comparisons=(slow,))) == ["time.no-slowdown"]
    assert failed(measured(comparisons=(once, told))) == []


def test_what_is_wrong_fails_for_that_alone() -> None:
    assert failed(measured(error="wrong", seconds=())) == ["result.right"]


def test_what_it_lacks_is_not_judged() -> None:
    assert list(gates(Measured(work=WORK, lacks="no mask"), None)) == []


def test_the_exponent_is_the_slope_of_the_logarithms() -> None:
    lengths = [256, 512, 1024]
    assert exponent(lengths, [3 * n for n in lengths]) == pytest.approx(1)
    assert exponent(lengths, [n * n for n in lengths]) == pytest.approx(2)
    assert exponent(lengths, [0, 0, 0]) == 0.0


@pytest.mark.parametrize(("power", "passed"), [(1.0, True), (1.2, True), (1.8, False)])
def test_memory_that_grows_faster_than_the_length_fails(power: float, passed: bool) -> None:
    growth = Growth(mask="causal", part="forward", lengths=(1, 2), peaks=(1, 2), exponent=power)
    assert growth_gate(growth).passed is passed


def test_what_each_gate_demands_fits_into_the_report() -> None:
    assert max(map(len, GATES.values())) <= 44


GUIDE = Path(__file__).parents[3] / "docs" / "benchmarks.md"


def test_the_guide_names_every_gate_with_its_limit() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([a-z.-]+)` \|", text, re.M))
    assert named == set(GATES)
    assert f"at most {BLOCK_FLOPS:.2f} times the FLOPs" in text
    assert f"length^{EXPONENT:.2f}" in text
    assert f"at most {GROUPED:.2f} of the peak" in text
    assert f"times {ROOFLINE:g};" in text
    assert f"at most {SAME_CODE:g} times the earlier version" in text
    assert f"{OTHER_CODE:.2f} times another target" in text
