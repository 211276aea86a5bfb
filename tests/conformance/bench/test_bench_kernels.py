"""Kernels that are wrong, wasteful or slow in one way, each benchmarked for real, and caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from holotype_conformance.bench.gates import gates
from holotype_conformance.bench.pairs import OTHER_CODE, SAME_CODE
from holotype_conformance.bench.process import Process
from holotype_conformance.bench.protocol import Count, Counted, Open, Prepare, Prepared
from holotype_conformance.bench.records import Measured
from holotype_conformance.bench.run import Other, grow, measure, run
from holotype_conformance.bench.server import Server
from holotype_conformance.bench.side import BadRequest, Side, Unrunnable, Wrong
from holotype_conformance.bench.workloads import KernelWork, Part

pytestmark = pytest.mark.slow

ROGUES = Path(__file__).with_name("rogues.py")
SMALL = KernelWork(length=64, heads=2, kv_heads=2)
CAUSAL = KernelWork(length=256, heads=10, kv_heads=10)


def target(name: str) -> Open:
    return Open(target=f"{ROGUES}:{name}", kind="attention")


def opened(name: str) -> Side:
    return Side(Server, target(name))


def failed(found: Measured) -> list[str]:
    return [verdict.gate for verdict in gates(found, None) if not verdict.passed]


def flops_gate(name: str, work: KernelWork) -> tuple[float, bool]:
    """What the gate on FLOPs measured, and whether it passed."""
    side = opened(name)
    prepared = side.ask(Prepare(work=work), Prepared)
    counts = side.ask(Count(role="candidate"), Counted)
    found = Measured(work=work, told=prepared.told, flops=prepared.flops, counts=counts)
    (verdict,) = (each for each in gates(found, None) if each.gate == "flops.masked-blocks")
    return verdict.measured, verdict.passed


def lengths(part: Part) -> list[KernelWork]:
    return [KernelWork(length=n, heads=1, kv_heads=1, part=part) for n in (128, 256, 512)]


@pytest.mark.parametrize("part", ["forward", "forward-backward"])
def test_a_kernel_that_is_right_is_timed_and_passes(part: Part) -> None:
    work = KernelWork(length=256, heads=6, kv_heads=2, part=part)
    found, _ = measure(opened("right"), work)
    assert found.error is None
    assert found.seconds
    assert 0 < found.achieved < 1.25
    assert found.ratio("sdpa") == pytest.approx(1, abs=0.5)
    assert failed(found) == []


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("off_by_one", "forward", "the result differs from the formula"),
        ("half_gradient", "forward-backward", "the gradient by k differs"),
        ("writes", "forward", "writes into its inputs"),
        ("remembers", "forward", "the result differs"),
    ],
)
def test_a_kernel_that_is_wrong_gets_no_time(name: str, part: Part, said: str) -> None:
    work = KernelWork(length=64, heads=2, kv_heads=2, part=part)
    found, _ = measure(opened(name), work)
    assert said in (found.error or "")
    assert found.seconds == ()
    assert failed(found) == ["result.right"]


def verified(name: str, part: Part) -> Prepared:
    """The answer of a kernel that is called once, and whose result is held to the formula."""
    work = KernelWork(length=64, heads=2, kv_heads=2, part=part)
    return opened(name).ask(Prepare(work=work), Prepared)


@pytest.mark.parametrize(
    ("name", "part"), [("checkpointed", "forward-backward"), ("Coarse", "forward")]
)
def test_what_a_check_allows_a_benchmark_does_too(name: str, part: Part) -> None:
    assert verified(name, part).lacks is None


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("CoarserThanStated", "forward", "the result differs from the formula"),
        ("CoarseUnstated", "forward", "the result differs from the formula"),
        ("some_gradients_missing", "forward-backward", "has no gradient by k"),
    ],
)
def test_and_no_more_than_that(name: str, part: Part, said: str) -> None:
    with pytest.raises(Wrong, match=said):
        verified(name, part)


def test_the_same_kernel_is_not_slower_than_itself() -> None:
    other = Other(side=opened("right"), title="before", limit=SAME_CODE, same_code=True)
    found, earlier = measure(opened("right"), CAUSAL, other)
    assert earlier == found.counts
    assert list(filter(lambda verdict: not verdict.passed, gates(found, earlier))) == []


def test_a_tenth_more_work_is_caught_by_the_clock_and_by_the_counts() -> None:
    other = Other(side=opened("right"), title="before", limit=SAME_CODE, same_code=True)
    found, earlier = measure(opened("slower"), CAUSAL, other)
    assert found.ratio("before") == pytest.approx(1.1, abs=0.04)
    caught = [verdict.gate for verdict in gates(found, earlier) if not verdict.passed]
    assert caught == ["counts.no-increase", "time.no-slowdown"]


def test_one_more_copy_is_caught_by_the_counts() -> None:
    other = Other(side=opened("right"), title="before", limit=OTHER_CODE, same_code=True)
    found, earlier = measure(opened("hungrier"), CAUSAL, other)
    (caught,) = (verdict for verdict in gates(found, earlier) if not verdict.passed)
    assert caught.gate == "counts.no-increase"
    assert "2 operators, were 1" in caught.reason


@pytest.mark.parametrize("part", ["forward", "forward-backward"])
def test_memory_of_a_fused_kernel_is_linear_and_of_a_matrix_of_scores_quadratic(part: Part) -> None:
    fused, plain = (grow(opened(name), lengths(part)) for name in ("right", "quadratic"))
    assert fused is not None
    assert plain is not None
    assert fused.exponent == pytest.approx(1, abs=0.01)
    assert plain.exponent > 1.5


def test_a_dense_mask_computes_the_masked_blocks() -> None:
    documents = KernelWork(length=256, mask="documents", sizes=(64,) * 4)
    found, _ = measure(opened("right"), documents)
    assert found.told == "a boolean mask"
    assert failed(found) == ["flops.masked-blocks"]


@pytest.mark.parametrize("part", ["forward", "forward-backward"])
def test_one_block_too_many_in_five_is_caught(part: Part) -> None:
    # Ten blocks of 64 by 64 hold the triangle. Of all pairs in the triangle itself, two more make 1.00 of the ten.
    work = KernelWork(length=256, heads=2, kv_heads=2, part=part)
    assert flops_gate("right", work) == (1.0, True)
    assert flops_gate("a_fifth_twice", work) == (1.2, False)


DOCUMENTS = KernelWork(length=256, heads=2, kv_heads=2, mask="documents", sizes=(37, 100, 119))
OWN_BLOCKS = 37 * 37 + 64 * 64 + 36 * 100 + 64 * 64 + 55 * 119


@pytest.mark.parametrize(
    ("name", "pairs", "passed"),
    [
        ("documents_apart", OWN_BLOCKS, True),
        ("documents_with_the_next", OWN_BLOCKS + 2 * 64 * 64, False),
        ("documents_as_one", 256 * 256, False),
    ],
)
def test_who_is_told_where_documents_begin_may_compute_the_blocks_of_each_and_no_more(
    name: str, pairs: int, passed: bool
) -> None:
    assert flops_gate(name, DOCUMENTS) == (pairs / OWN_BLOCKS, passed)


def test_who_is_told_documents_by_a_mask_has_blocks_that_begin_at_the_first_key() -> None:
    # The first row of blocks touches one of them, the second two, the third three, and the last two.
    blocks = (1 + 2 + 3 + 2) * 64 * 64
    flops = 2 * 2 * DOCUMENTS.heads * blocks * DOCUMENTS.head_dim
    assert DOCUMENTS.block_flops(by_document=False) == flops


def test_what_the_kernel_does_not_take_is_skipped_with_the_reason() -> None:
    window = KernelWork(length=256, mask="window", sizes=(64,))
    found, _ = measure(opened("quadratic"), window)
    assert "takes no `mask`" in (found.lacks or "")
    refused, _ = measure(
        opened("refuses_gradients"), KernelWork(length=256, part="forward-backward")
    )
    assert "not connected" in (refused.lacks or "")


def test_a_time_below_the_roofline_is_an_error_and_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A clock that runs a thousand times too slowly is a kernel that is a thousand times too fast.
    from holotype_conformance.bench import bench, rates

    truly = bench.clock.seconds
    monkeypatch.setattr(bench.clock, "seconds", lambda *a: truly(*a) / 1000)
    monkeypatch.setattr(rates, "seconds", truly)
    found = run(opened("right"), [SMALL], [])
    assert found.measured[0].seconds == ()
    assert [verdict.gate for verdict in found.verdicts if not verdict.passed] == ["time.roofline"]


def test_a_process_that_dies_at_one_length_does_not_end_the_run() -> None:
    started: list[Process] = []

    def start() -> Process:
        started.append(Process())
        return started[-1]

    try:
        side = Side(start, target("dies_at_length_128"))
        found = run(side, [KernelWork(length=128), KernelWork(length=192)], [])
    finally:
        for process in started:
            process.__exit__(None, None, None)
    first, second = found.measured
    assert "exit code 7" in (first.error or "")
    assert second.seconds
    assert len(started) == 2


def test_a_target_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(BadRequest, match="nowhere"):
        Side(Server, Open(target="nowhere:attention", kind="attention"))


def test_a_kernel_that_cannot_run_at_all_is_said_to(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def attention(q, k, v):\n    raise OSError('no such card')\n")
    with pytest.raises(Unrunnable, match="no such card"):
        Side(Server, Open(target=f"{broken}:attention", kind="attention"))
