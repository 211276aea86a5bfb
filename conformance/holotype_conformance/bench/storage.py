"""The JSON of a benchmark: the format of pytest-benchmark, so that its own tools read it, with our facts beside it.

``pytest-benchmark compare FILE`` shows the times; what is ours stands under ``extra_info`` of each benchmark, and
the whole report under ``holotype``. Times are of one call, in seconds of CPU time, one a sample.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
from pytest_benchmark import __version__ as their_version
from pytest_benchmark.stats import Stats
from pytest_benchmark.utils import get_machine_id

from holotype_conformance.bench.records import BenchReport, Measured
from holotype_conformance.judge.records import plain


def as_json(report: BenchReport) -> str:
    """The report as the text of a file."""
    timed = [_benchmark(report, measured) for measured in report.measured if measured.seconds]
    now = datetime.now(UTC).isoformat()
    content = {
        "machine_info": _machine(report),
        "commit_info": {
            "id": "unknown",
            "time": None,
            "author_time": None,
            "dirty": False,
            "project": "holotype",
            "branch": "(unknown)",
        },
        "benchmarks": timed,
        "datetime": now,
        "version": their_version,
        "holotype": plain(msgspec.to_builtins(report)),
    }
    return json.dumps(content, indent=2) + "\n"


def _machine(report: BenchReport) -> dict[str, Any]:
    where = report.environment
    return {
        "node": get_machine_id(),  # type: ignore[no-untyped-call]
        "processor": where.device,
        "machine": where.platform,
        "python_version": where.python,
        "system": where.platform,
        "cpu": {},
        "versions": where.versions,
    }


def _benchmark(report: BenchReport, measured: Measured) -> dict[str, Any]:
    stats = Stats()  # type: ignore[no-untyped-call]
    for seconds in measured.seconds:
        stats.update(seconds)  # type: ignore[no-untyped-call]
    work = msgspec.to_builtins(measured.work)
    return {
        "group": measured.work.part,
        "name": f"{report.target}[{measured.work.name}]",
        "fullname": f"{report.target}::{report.target}[{measured.work.name}]",
        "params": work,
        "param": measured.work.name,
        "extra_info": _facts(report, measured),
        "options": {
            "disable_gc": True,
            "timer": "process_time" if report.environment.device == "cpu" else "events",
            "min_rounds": len(measured.seconds),
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": {**stats.as_dict(), "data": stats.data, "iterations": measured.calls},  # type: ignore[no-untyped-call]
    }


def _facts(report: BenchReport, measured: Measured) -> dict[str, Any]:
    return {
        "tokens_per_second": measured.tokens_per_second,
        "flop_per_second": measured.flops / measured.median,
        "achieved_of_roofline": measured.achieved,
        "counts": msgspec.to_builtins(measured.counts),
        "ratios": {each.against: each.ratio for each in measured.comparisons},
        "gates_failed": [
            verdict.gate for verdict in report.failed() if verdict.work == measured.work.name
        ],
    }
