"""What code under test can do to the process that benchmarks it, and to the time that it is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from holotype_conformance.bench.process import Process
from holotype_conformance.bench.protocol import Count, Counted, Open, Prepare, Prepared
from holotype_conformance.bench.run import Found, run
from holotype_conformance.bench.server import Server
from holotype_conformance.bench.side import Late, Side, Unrunnable
from holotype_conformance.bench.workloads import KernelWork
from holotype_conformance.cli import main
from holotype_conformance.judge import processes
from holotype_conformance.run.orphans import adopted

pytestmark = pytest.mark.slow

ROGUES = Path(__file__).with_name("rogues.py")
WORK = KernelWork(length=64, heads=2, kv_heads=2)


@contextmanager
def opened(name: str, **options: float) -> Iterator[tuple[Side, Process]]:
    """A rogue in a process of its own, ready for `WORK`."""
    started: list[Process] = []
    with adopted() as orphans:

        def start() -> Process:
            started.append(Process(orphans=orphans, **options))
            return started[-1]

        try:
            side = Side(start, Open(target=f"{ROGUES}:{name}", kind="attention"))
            yield side, started[0]
        finally:
            for each in started:
                each.__exit__(None, None, None)


def ready(side: Side) -> None:
    assert side.ask(Prepare(work=WORK), Prepared).lacks is None


@pytest.mark.skipif(sys.platform != "linux", reason="no clock of another process")
def test_time_is_read_by_a_clock_that_the_code_under_test_cannot_stop() -> None:
    with opened("stops_clocks") as (side, process):
        ready(side)
        before = process.processor_time()
        taken = side.sample("candidate", 20, 1)
        after = process.processor_time()
    assert before is not None
    assert after is not None
    assert 0 < taken < after - before  # which includes the drawing of the inputs


def test_what_does_not_end_is_late_and_the_rest_still_runs() -> None:
    with opened("hangs_at_length_128", timeout=2.0) as (side, _):
        works = [KernelWork(length=128, heads=1, kv_heads=1), WORK]
        found = run(side, works, [[works[0]]])
    hung, well = found.measured
    assert "no answer within 2 s" in (hung.undecided or "")
    assert (hung.error, hung.seconds) == (None, ())
    assert well.seconds
    assert {verdict.work for verdict in found.verdicts} == {WORK.name}
    assert "no answer" in (found.growth[0].undecided or "")


def test_a_command_that_finds_something_undecided_says_so_with_exit_code_4() -> None:
    arguments = ["bench", f"{ROGUES}:hangs_at_length_128", "--timeout", "2"]
    found = Found()

    def only_128(side: Side, *_: object, **__: object) -> Found:
        found.__dict__.update(vars(run(side, [KernelWork(length=128)], [])))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holotype_conformance.bench.run.run", only_128)
        done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 4, done.output
    assert "undecided: causal 1x8x128x64 forward: no answer within 2 s" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("is undecided")


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1"])
def test_a_limit_that_is_none_is_bad_input(timeout: str) -> None:
    done = CliRunner().invoke(main, ["bench", "sdpa", f"--timeout={timeout}"])
    assert done.exit_code == 2
    assert "--timeout" in done.stderr


def test_what_is_printed_is_neither_an_answer_nor_kept_whole() -> None:
    with opened("floods") as (side, process):
        ready(side)
        assert side.ask(Count(role="candidate"), Counted).flops > 0
        assert 0 < len(process._said()) <= 4000


def test_what_is_no_answer_is_said_to_be_none() -> None:
    with pytest.raises(Unrunnable, match="no answer of ours"), opened("scribbles") as (side, _):
        ready(side)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux")
def test_nothing_that_was_started_outlives_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLOTYPE_DAEMON", "98.765")
    with opened("leaves_a_daemon") as (side, process):
        ready(side)
        below = processes.descendants(process.process.pid)
        assert any("98.765" in processes.command_of(each.pid) for each in below)
    left = processes.descendants(os.getpid())
    assert not any("98.765" in processes.command_of(each.pid) for each in left)
    assert not any("98.765" in processes.command_of(each.pid) for each in below)


def test_which_result_is_verified_is_decided_after_each_call() -> None:
    """Over many samples each of three calls is kept about as often, whatever their number."""
    server = Server()
    side = Side(lambda: server, Open(target=f"{ROGUES}:right", kind="attention"))
    ready(side)
    bench = server.bench
    assert bench is not None
    seen = []
    for _ in range(60):
        bench.draw_sample("candidate", 3, 7)
        assert bench._drawn is not None
        calls = [id(inputs) for inputs in bench._drawn[1]]
        bench.sample()
        assert bench._last is not None
        seen.append(calls.index(id(bench._last[0])))
    assert min(map(seen.count, range(3))) >= 3  # of 60: by chance once in ten million runs


def test_a_process_that_hangs_while_it_is_imported_is_late(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import time\nwhile True: time.sleep(1)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("holotype_conformance.bench.process.OPENING", (2.0, 2.0))
        with pytest.raises(Late), Process() as process:
            Side(lambda: process, Open(target=f"{tmp_path / 'mine.py'}:f", kind="attention"))
