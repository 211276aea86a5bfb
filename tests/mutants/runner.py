"""Runs the suite on an edited `transformers` without touching the installed one.

``python runner.py`` is a server: it imports what every run needs once, and then, for each JSON line that it reads,
forks a child that imports the edited file in the place of the installed one, and afresh whatever holds something of it,
judges it, and answers with a JSON line. `Server` is its client.

In a child no search for a smaller case follows a failure, and nothing is diagnosed: what counts is which property
fails.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

LIMIT = 300  # seconds of computing for one edit on one spec, however busy the machine is
PATIENCE = 3600.0  # seconds of waiting for one that does not even compute
UNUSABLE = "(could not be run)"
RELEASED = "holotype_conformance.models.adapters.hf.released"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the suite says of one edit on one spec.

    Attributes:
        failed: the must-properties that failed, or `UNUSABLE`; nothing of the rest ran when that was asked for.
        passed: how many properties passed.
        errors: what went wrong in the suite itself.
        reasons: for each failed property what was seen.
        seconds: how long it took.
    """

    failed: tuple[str, ...]
    passed: int
    errors: tuple[str, ...]
    reasons: dict[str, str]
    seconds: float


class Server:
    """A running server; a context manager that ends it."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def judge(
        self,
        module: str,
        source: str | None,
        spec: str,
        *,
        stop: bool = True,
        first: Sequence[str] = (),
    ) -> Verdict:
        """Check the `hf` target under `spec` with `source` as the text of `module` (None: as installed).

        Args:
            stop: end at the first property that fails.
            first: properties to begin with, by slug.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job = {
            "module": module,
            "source": source,
            "spec": spec,
            "stop": stop,
            "first": list(first),
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server ended")
        answer = json.loads(line)
        return Verdict(
            **answer | {"failed": tuple(answer["failed"]), "errors": tuple(answer["errors"])}
        )


# In the server --------------------------------------------------------------------------------------------------


class _Edited(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads one module with a text of our own."""

    def __init__(self, module: str, source: str) -> None:
        self.module = module
        self.source = source

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.module:
            return None
        installed = PathFinder.find_spec(name, path)
        assert installed is not None
        assert installed.origin is not None
        return importlib.util.spec_from_file_location(name, installed.origin, loader=self)

    def get_filename(self, name: str) -> str:
        return str(importlib.util.find_spec(name))

    def get_source(self, fullname: str) -> str:
        return self.source

    def exec_module(self, module: ModuleType) -> None:
        assert module.__file__ is not None
        exec(compile(self.source, module.__file__, "exec", dont_inherit=True), module.__dict__)


def main() -> None:
    """Serve until there is no more input. Standard output carries answers and nothing else."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _prepare()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _prepare() -> None:
    """Import what all children share."""
    import torch

    torch.set_num_threads(1)
    import holotype_conformance.models.adapters.hf.released
    from holotype_conformance.models.properties import all_properties

    all_properties()
    del holotype_conformance
    for family in ("gpt2", "bert", "t5", "llama", "mistral"):
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")


def _forget(edited: str) -> None:
    """Have a module imported anew, and with it whatever holds something of it.

    A model's own file is held by nothing of `transformers` but its lazy packages, which ask for it again. Of a file
    that models share, everything is forgotten.
    """
    if not edited.startswith("transformers.models.") or ".modeling_" not in edited:
        for name in list(sys.modules):
            if name.partition(".")[0] == "transformers" or name == RELEASED:
                del sys.modules[name]
        return
    sys.modules.pop(edited, None)
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "transformers":
            for attribute, value in list(vars(module).items()):
                if value is not None and edited in (
                    getattr(value, "__module__", ""),
                    getattr(value, "__name__", ""),
                ):
                    delattr(module, attribute)


def _answer(job: Mapping[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(job, writing)
    os.close(writing)
    answer = _read(reading, child)
    os.close(reading)
    os.waitpid(child, 0)
    return answer | {"seconds": round(time.perf_counter() - start, 2)}


def _read(reading: int, child: int) -> dict[str, Any]:
    """The child's whole answer, or what became of it instead."""
    text = bytearray()
    end = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        while selector.select(max(0.0, end - time.monotonic())):
            chunk = os.read(reading, 65536)
            if not chunk:
                break
            text += chunk
        else:
            os.kill(child, signal.SIGKILL)
            return _nothing(f"no answer within {PATIENCE:g} s")
    if not text:
        return _nothing(f"no answer: a crash, or more than {LIMIT} s of computing")
    found: dict[str, Any] = json.loads(text)
    return found


def _nothing(error: str) -> dict[str, Any]:
    return {"failed": [], "passed": 0, "errors": [error], "reasons": {}}


def _child(job: Mapping[str, Any], writing: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    try:
        if job["source"] is not None:
            _forget(job["module"])
            sys.meta_path.insert(0, _Edited(job["module"], job["source"]))
        answer = _judge(job["spec"], job["stop"], job["first"])
        module = sys.modules.get(job["module"])
        if job["source"] is not None and module and not isinstance(module.__loader__, _Edited):
            answer["errors"].append(f"{job['module']} was judged as it is installed")
    except BaseException:
        answer = _nothing(traceback.format_exc())
    with contextlib.suppress(BrokenPipeError):
        os.write(writing, json.dumps(answer).encode())
    os._exit(0)


def _judge(name: str, stop: bool, first: Sequence[str]) -> dict[str, Any]:
    import holotype_spec
    from holotype_conformance.judge import engine
    from holotype_conformance.judge.guard import CandidateUnusable
    from holotype_conformance.models.properties import all_properties
    from holotype_conformance.models.subject import Subject
    from holotype_conformance.models.targets import resolve

    answer = _nothing("")
    answer["errors"] = []
    subject = Subject(resolve("hf"), holotype_spec.load(name))
    try:
        subject.smoke()
    except CandidateUnusable as error:
        return answer | {"failed": [UNUSABLE], "reasons": {UNUSABLE: str(error)}}
    for property_ in sorted(all_properties(), key=lambda property_: property_.slug not in first):
        result = engine.judge(subject, property_, engine.Settings(limit=0, explained=False))
        if result.outcome == "passed":
            answer["passed"] += 1
        elif result.outcome == "error":
            answer["errors"].append(f"{result.property}: {result.reason}\n{result.details}")
        elif result.breaks:
            answer["failed"].append(result.property)
            answer["reasons"][result.property] = result.reason
            if stop:
                break
    return answer


# The real command -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def overlay(package: Path, file: str, source: str, folder: Path) -> Iterator[Path]:
    """A folder to put first on ``PYTHONPATH``, in which `package` is all links but for `file`."""
    _link(package, folder / package.name, Path(file).parts, source)
    yield folder


def _link(original: Path, copy: Path, parts: Sequence[str], source: str) -> None:
    copy.mkdir()
    for entry in original.iterdir():
        if entry.name == "__pycache__":
            continue
        if entry.name != parts[0]:
            (copy / entry.name).symlink_to(entry)
        elif len(parts) > 1:
            _link(entry, copy / entry.name, parts[1:], source)
        else:
            (copy / entry.name).write_text(source, encoding="utf-8")


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """For JSON."""
    return asdict(verdict)


if __name__ == "__main__":
    main()
