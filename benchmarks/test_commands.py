"""Gates on whole commands: the CPU time of the process and of all its children, imports included.

CPU time and not wall time, because other work on the machine hardly moves it; the median of a few runs. Each is held
to a yardstick in the same run: a process of like work, which takes longer on a slower machine, as the command does.
Measured on a quiet machine, the commands took three quarters of their limits.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import sysconfig
from statistics import median

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


# What an interpreter does, and what a check does: small operations of torch in float64, after its import.
PLAIN = """
import json, tomllib
for _ in range(250):
    json.loads(json.dumps({str(each): [each, each / 7, str(each)] for each in range(400)}))
"""
TORCH = """
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(2, 16, 64, dtype=torch.float64)
w = torch.randn(64, 64, dtype=torch.float64)
for _ in range(40_000):
    x = torch.nn.functional.layer_norm(x @ w, (64,)).reshape(2, 16, 64).softmax(-1)
"""


def run_yardstick(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, stdin=subprocess.DEVNULL)


@pytest.mark.benchmark(timer=children_cpu, group="commands")
@pytest.mark.parametrize(
    ("command", "program", "most", "rounds"),
    [
        pytest.param("list", PLAIN, 2.2, 7, id="list"),
        pytest.param("show gpt2", PLAIN, 1.0, 7, id="show"),
        pytest.param("diff gpt2 llama-7b", PLAIN, 1.0, 7, id="diff"),
        pytest.param("audit", PLAIN, 2.8, 5, id="audit"),
        pytest.param("check reference --spec gpt2", TORCH, 5.8, 3, id="check-reference"),
        pytest.param("check hf --spec gpt2", TORCH, 9.6, 3, id="check-hf"),
    ],
)
def test_command_takes_less_than_so_many_yardsticks(
    benchmark: BenchmarkFixture, command: str, program: str, most: float, rounds: int
) -> None:
    if " hf " in command:
        pytest.importorskip("transformers")
    ratios = []

    def paired() -> None:
        start = children_cpu()
        run_yardstick(program)
        between = children_cpu()
        run(*command.split())
        ratios.append((children_cpu() - between) / (between - start))

    benchmark.pedantic(paired, rounds=rounds)
    benchmark.extra_info["yardsticks"] = median(ratios)
    assert median(ratios) < most, ratios


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
