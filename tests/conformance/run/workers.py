"""Workers of a few lines in place of ours, for the tests of the supervisor.

They speak the protocol by themselves, without a line of ours and without torch, so that each costs some hundredths of
a second.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holotype_conformance.judge.records import AnyEvent, Request, Result
from holotype_conformance.run.supervisor import (
    Record,
    supervise,
)

SPEAKING = """#!{python} -IS
import hashlib, json, os, signal, subprocess, sys, time

HERE = {folder!r}
environment = {{
    "python": "3", "torch": "2", "platform": "here", "device": "cpu", "versions": {{}},
}}
number = 0

def line(event, fields):
    text = json.dumps({{"event": event, **fields}}).encode()
    signature = hashlib.blake2b(number.to_bytes(8, "big") + text, key=key, digest_size=16)
    return signature.hexdigest().encode() + b" " + text + b"\\n"

def write(text):
    os.write(1, text)

def say(event, **fields):
    global number
    number += 1
    write(line(event, fields))

def result(slug, outcome="passed", **fields):
    return {{"property": slug, "level": "must", "outcome": outcome, "seconds": 0.5, **fields}}

def planned(*slugs, spec="gpt2"):
    names = ("spec", "property", "level", "clause", "meaning")
    plan = [dict(zip(names, (spec, slug, "must", "A clause.", "A meaning."))) for slug in slugs]
    say("collected", plan=plan, environment=environment, suite=9, declared={{}})

def until_planned(*slugs):
    say("ready", environment=environment)
    say("resolved", title="mine")
    planned(*slugs)

def passes(slug, spec="gpt2"):
    say("started", spec=spec, property=slug)
    say("finished", spec=spec, result=result(slug))

def left_alone():
    time.sleep(8)  # whoever is not killed ends by itself
    os._exit(9)

def spin():
    end = time.process_time() + 8
    while time.process_time() < end:
        pass
    os._exit(9)

written = sys.stdin.readline()
job = json.loads(written)
with open(HERE + "/jobs", "a") as jobs:
    jobs.write(json.dumps(job) + "\\n")
key = job["key"].encode()
finished = [slug for spec, slug in job["finished"]]
"""
TARGET = "mine.py:build"


class Run:
    """One run with workers that do what `script` says, and what was told of it."""

    def __init__(self, folder: Path, script: str, request: Request) -> None:
        self.folder = folder
        path = folder / "worker"
        path.write_text(SPEAKING.format(python=sys.executable, folder=str(folder)) + script)
        path.chmod(0o755)
        self.request = request
        self.reactions: dict[str, Callable[[], None]] = {}  # to an event
        self.events: list[AnyEvent] = []
        self.record: Record | None = None

    def __call__(self) -> Record:
        def watch(event: AnyEvent, record: Record) -> None:
            self.events.append(event)
            self.record = record
            self.reactions.get(type(event).__name__, lambda: None)()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(self.folder / "worker"))
            return supervise(self.request, watch)

    @property
    def told(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "jobs").read_text().splitlines()]


Made = Callable[..., Run]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    def make(script: str, **request: Any) -> Run:
        return Run(tmp_path, script, Request(target=TARGET, specs=("gpt2",), **request))

    return make


def of(record: Record, slug: str, spec: str = "gpt2") -> Result:
    return record.results[spec, slug]


def two(doing: str) -> str:
    """A worker that does `doing` in the property a.b, and another one that finishes c.d."""
    indented = "\n".join(f"    {line}" for line in doing.splitlines())
    return f"""
until_planned("a.b", "c.d")
if "a.b" not in finished:
    say("started", spec="gpt2", property="a.b")
    say("trying", case={{"size": 7}})
{indented}
passes("c.d")
say("done")
"""


def runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
