"""Gates on size: a model of 175 billion parameters is counted and built without its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

PEAK_MIB = 300
STATUS = Path("/proc/self/status")

# Brown et al. 2020, table 2.1, in the architecture of GPT-2.
GPT3 = """
import re, msgspec, holotype_spec
spec = msgspec.structs.replace(
    holotype_spec.load("gpt2"), layers=96, hidden_size=12_288, heads=96, kv_heads=96, head_dim=128,
    ffn_size=49_152, max_positions=2048,
)
"""
COUNT = "total = holotype_spec.count_parameters(spec).total"
TABLE = (
    "from math import prod; total = sum(prod(p.shape) for p in holotype_spec.parameter_table(spec))"
)
META = """
import torch, holotype_reference.model
with torch.device("meta"):
    model = holotype_reference.model.build(spec)
total = sum(parameter.numel() for parameter in model.parameters())
"""
# Not getrusage, whose peak begins with that of the process which started this one.
REPORT = r"""
print(total, int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) // 1024)
"""

# By hand: d = 12,288; a layer has 12 d² + 13 d, the embeddings (50,257 + 2048) d, the last norm 2 d.
D = 12_288
TOTAL = 96 * (12 * D**2 + 13 * D) + (50_257 + 2048) * D + 2 * D


def measure(code: str) -> tuple[int, int]:
    """What `code` counts and the peak resident MiB of its process."""
    done = subprocess.run(
        [sys.executable, "-c", GPT3 + code + REPORT], check=True, capture_output=True, text=True
    )
    total, peak = done.stdout.split()
    return int(total), int(peak)


@pytest.mark.skipif(not STATUS.exists(), reason="the peak is read from /proc/self/status")
@pytest.mark.benchmark(group="175 billion parameters")
@pytest.mark.parametrize("code", [COUNT, TABLE, META], ids=["count", "table", "meta-device"])
def test_175_billion_parameters_are_counted_exactly_in_under_300_mib(
    benchmark: BenchmarkFixture, code: str
) -> None:
    total, peak = benchmark.pedantic(measure, args=[code], rounds=1)
    assert total == TOTAL == 174_604_259_328
    assert peak < PEAK_MIB
