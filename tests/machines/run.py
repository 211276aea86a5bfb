"""Check transformers' models as on other processors, with other seeds and under load: ``run.py --help``.

What is done is kept in a file, a line of JSON for each run, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec

from holotype_spec import complete
from holotype_spec.probes import LONG, ROWS, WINDOW, probe
from holotype_spec.schema import Spec

ROOT = Path(__file__).parents[2]
MAIN = (
    "t5-small",
    "gpt2",
    "bert-base-uncased",
    "llama2-7b",
    "mistral-7b-v0.1",
    "mixtral-8x7b",
    "deepseek-v2-lite",
)
# Which instructions torch's own kernels, those of oneDNN and those of MKL use: one machine behaves like another.
MACHINES: dict[str, dict[str, str]] = {
    "as-it-is": {},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "onednn-sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "onednn-avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "mkl-compatible": {"MKL_CBWR": "COMPATIBLE"},
}
SEEDS = range(4)
CHECK = "import sys; from holotype_conformance.cli import main; sys.exit(main())"
WORDS = {0: "conforms", 1: "DOES NOT CONFORM", 3: "COULD NOT BE RUN", 4: "UNDECIDED"}
BUSY = "while True: pass"


class Run(NamedTuple):
    """One call of `holotype check hf`."""

    spec: str
    machine: str
    seed: int


def plan(every: bool = False) -> list[Run]:
    """The main models on each machine with each seed; then one of each set of models whose probes are alike, or all."""
    runs = [Run(*each) for each in product(MAIN, MACHINES, SEEDS)]
    rest = (
        alike[: None if every else 1] for alike in probed_alike() if every or not {*MAIN} & {*alike}
    )
    return runs + [Run(name, "as-it-is", 0) for names in rest for name in names if name not in MAIN]


def probed_alike() -> list[list[str]]:
    """The specs that have a class and a table of names, those with the same probes together."""
    groups: dict[str, list[str]] = {}
    for spec in complete():
        if spec.family.transformers != "none" and spec.family.checkpoint != "none":
            groups.setdefault(_seen_of(spec), []).append(spec.name)
    return list(groups.values())


def _seen_of(spec: Spec) -> str:
    """All that a check sees of a spec, but for its counts at full size."""
    head = {"name", "aliases", "parameters", "family", "stated", "derives_from", "training"}
    found: list[Any] = [spec.family.checkpoint, msgspec.to_builtins(spec.family.transformers)]
    for rows in (ROWS, min(spec.max_positions, LONG)):
        for layers in (1, 2):
            small = probe(spec, layers=layers, rows=rows, window=WINDOW)
            found.append({k: v for k, v in msgspec.to_builtins(small).items() if k not in head})
    return json.dumps(found, sort_keys=True)


def shard(runs: Sequence[Run], part: str) -> list[Run]:
    """Every n-th run, as in "2/4": the second quarter of them."""
    number, _, count = part.partition("/")
    if not (count.isdecimal() and number.isdecimal() and 1 <= int(number) <= int(count)):
        raise SystemExit(f"--shard {part}: expected a part such as 2/4")
    return list(runs[int(number) - 1 :: int(count)])


def judged(run: Run, properties: Iterable[str]) -> dict[str, Any]:
    """What `holotype check hf` said: its exit code, and its reports or what it wrote instead."""
    named = [word for glob in properties for word in ("--property", glob)]
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-c", CHECK, "check", "hf", "--spec", run.spec]
        command += ["--seed", str(run.seed), "--json", str(report), *named]
        done = subprocess.run(
            command,
            env=os.environ | MACHINES[run.machine],
            capture_output=True,
            text=True,
            check=False,
        )
        told = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None
    facts: dict[str, Any] = {**run._asdict(), "code": done.returncode, "failed": _failed(told)}
    return facts if done.returncode in (0, 1, 4) else facts | {"said": done.stderr.strip()[-2000:]}


def _failed(told: Any) -> list[str]:
    """The properties that failed or came to no end, with their reasons, wherever the report has them."""
    if isinstance(told, list):
        return [line for each in told for line in _failed(each)]
    if not isinstance(told, dict):
        return []
    if {"property", "outcome"} <= told.keys():
        bad = told["outcome"] not in ("passed", "skipped")
        return [f"{told['property']}: {told.get('reason')}"] if bad else []
    return [line for each in told.values() for line in _failed(each)]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that compute beside the checks, for as long as they run."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> int:
    """The exit code: 0 where all conform."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, default=ROOT / ".machines.jsonl", help="what is done")
    parser.add_argument("--shard", default="1/1", help="such as 2/4: the second quarter")
    parser.add_argument("--every", action="store_true", help="models with the same probes, too")
    parser.add_argument("--spec", action="append", default=[], help="these models alone")
    parser.add_argument("--machine", action="append", choices=list(MACHINES), help="these alone")
    parser.add_argument("--seed", action="append", type=int, help="these alone")
    parser.add_argument("--property", action="append", default=[], help="these alone, as a glob")
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    told = parser.parse_args()
    wanted = [
        run
        for run in shard(plan(told.every or bool(told.spec)), told.shard)
        if (not told.spec or run.spec in told.spec)
        and (not told.machine or run.machine in told.machine)
        and (not told.seed or run.seed in told.seed)
    ]
    lines = told.log.read_text(encoding="utf-8").splitlines() if told.log.is_file() else []
    done = {Run(*map(each.get, Run._fields)): each for each in map(json.loads, lines)}
    with busy(told.busy):
        for run in (run for run in wanted if run not in done):
            done[run] = judged(run, told.property)
            with told.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(done[run]) + "\n")
            print(*run, WORDS.get(done[run]["code"], "FAILED"), *done[run]["failed"], flush=True)
    bad = [run for run in wanted if done[run]["code"] != 0]
    print(f"{len(wanted) - len(bad)} of {len(wanted)} runs conform; the log is {told.log}")
    for run in bad:
        print(" ", *run, WORDS.get(done[run]["code"], "FAILED"), *done[run]["failed"], sep="  ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
