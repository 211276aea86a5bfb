"""Gates on the reference models: they compute what the spec says that a pass costs, and nothing else of weight."""

from __future__ import annotations

import time
from functools import lru_cache

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from holotype_conformance.bench.protocol import (
    Count,
    Counted,
    Open,
    Prepare,
    Prepared,
    Verified,
    Verify,
)
from holotype_conformance.bench.run import roof
from holotype_conformance.bench.server import Server
from holotype_conformance.bench.side import Side
from holotype_conformance.bench.workloads import ModelWork, model_grid
from holotype_spec import load

NAMES = tuple(load(name).name for name in ("gpt2", "llama2-7b", "bert-base", "t5-small"))
# Blocks on the diagonal are computed whole, and T5's biases need a dense mask.
OVER = 1.05
WORKS = [
    work
    for name in NAMES
    for work in model_grid(
        name, "quick", decodes=load(name).architecture.structure != "encoder", longest=256
    )
    if work.batch == 1 and (work.length == 256 or work.part == "decode")
]


@lru_cache(maxsize=1)
def opened() -> Side:
    return Side(Server, Open(target="reference", kind="model", specs=NAMES))


@pytest.mark.benchmark(group="models", timer=time.process_time)
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name.replace(" ", "-"))
def test_a_pass_computes_what_the_spec_says_it_costs(
    benchmark: BenchmarkFixture, work: ModelWork
) -> None:
    side = opened()
    prepared = side.ask(Prepare(work=work), Prepared)
    counted = side.ask(Count(role="candidate"), Counted)
    seconds = benchmark.pedantic(side.sample, args=("candidate", 1, 3), rounds=3)
    least = roof(side, work.dtype, prepared.flops, prepared.bytes)
    benchmark.extra_info["achieved_of_roofline"] = least / seconds
    side.ask(Verify(), Verified)
    assert counted.flops <= OVER * prepared.flops
