"""Gates on whole commands: the CPU time of the process and of all its children, imports included.

CPU time and not wall time, because other work on the machine hardly moves it; the median of a few runs.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import sysconfig

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


def children_cpu() -> float:
    """CPU seconds, user and system, of all child processes that have ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(*arguments: str) -> None:
    """Run `holotype` in a fresh process on one thread, and demand exit code 0."""
    command = shutil.which("holotype", path=sysconfig.get_path("scripts"))
    assert command, "holotype is not installed beside this interpreter"
    done = subprocess.run(
        [command, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.benchmark(timer=children_cpu, group="commands")
@pytest.mark.parametrize(
    ("command", "seconds", "rounds"),
    [
        pytest.param("list", 0.3, 7, id="list"),
        pytest.param("show gpt2", 0.3, 7, id="show"),
        pytest.param("diff gpt2 llama-7b", 0.3, 7, id="diff"),
        pytest.param("audit", 1.0, 5, id="audit"),
        pytest.param("check reference --spec gpt2", 10.0, 3, id="check-reference"),
        pytest.param("check hf --spec gpt2", 20.0, 3, id="check-hf"),
    ],
)
def test_command_stays_within_its_cpu_seconds(
    benchmark: BenchmarkFixture, command: str, seconds: float, rounds: int
) -> None:
    if " hf " in command:
        pytest.importorskip("transformers")
    benchmark.pedantic(run, args=command.split(), rounds=rounds)
    assert benchmark.stats.stats.median < seconds


COUNTS = """
import sys
import holotype_spec
counts = [holotype_spec.overview.exact(entry) for entry in holotype_spec.entries()]
assert len(counts) > 240 and sum(count is not None for count in counts) > 200
assert not {"torch", "numpy"} & set(sys.modules)
"""


def count_all() -> None:
    subprocess.run([sys.executable, "-c", COUNTS], check=True, stdin=subprocess.DEVNULL)


@pytest.mark.benchmark(timer=children_cpu, group="commands")
def test_the_exact_counts_of_the_whole_catalogue_take_less_than_a_second(
    benchmark: BenchmarkFixture,
) -> None:
    benchmark.pedantic(count_all, rounds=5)
    assert benchmark.stats.stats.median < 1.0
