"""The process that runs the candidate: ``python -P -m holotype_conformance.worker``, started by the supervisor.

It reads one JSON line, the job, from standard input and writes events, a JSON line each, to what was its standard
output. Before anything of the candidate is imported, standard output is pointed at standard error: whatever a
candidate prints, it cannot mix it into the events. Standard input is empty from then on. When the parent is gone
the worker goes too.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
import warnings
from typing import Any

import msgspec

from holotype_conformance.limits import is_time_up, time_limit
from holotype_conformance.records import (
    Collected,
    Done,
    Event,
    Job,
    Kind,
    Planned,
    Ready,
    Rejected,
    Request,
    Resolved,
)
from holotype_conformance.texts import (
    REASON,
    bounded,
    encodable,
    message_of,
    title_of,
    trace_of,
    type_of,
)


class Channel:
    """The way to the parent; takes standard output and input away from everyone else."""

    def __init__(self) -> None:
        self._events = os.dup(1)
        self._control = os.dup(0)
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self._encoder = msgspec.json.Encoder()

    def send(self, event: Event) -> None:
        """Tell the parent; one write, so that a death afterwards loses nothing."""
        line = memoryview(self._encoder.encode(event) + b"\n")
        while line:
            line = line[os.write(self._events, line) :]

    def receive(self) -> Job:
        """The job, and from then on a watch for the parent's end."""
        line = bytearray()
        while not line.endswith(b"\n"):
            chunk = os.read(self._control, 65536)
            if not chunk:
                os._exit(1)
            line += chunk
        threading.Thread(target=self._watch, daemon=True).start()
        return msgspec.json.decode(line, type=Job)

    def _watch(self) -> None:
        while os.read(self._control, 1):
            pass
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)  # what the candidate has started goes too
        os._exit(1)


def main() -> None:
    """Do the job and leave without ceremony: what a candidate left running must not keep the process alive."""
    channel = Channel()
    faulthandler.enable()
    job = channel.receive()
    status = 70
    try:
        if _work(channel, job):
            channel.send(Done())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _work(channel: Channel, job: Job) -> bool:
    """Whether everything was judged."""
    warnings.simplefilter("ignore")
    import torch

    from holotype_conformance import guard, runs

    guard.expect_no_interrupts()

    torch.set_num_threads(1)  # probes are tiny: more threads cost more than they give
    request = job.request
    resolve, run_class = _kind(request.kind)
    channel.send(Ready(environment=runs.environment("cpu")))
    try:
        with time_limit(request.limit):
            candidate = resolve(request.target)
        run = run_class(request, candidate, notify=channel.send, smoked=job.smoked)
    except BaseException as error:
        channel.send(_rejected(error, request))
        return False
    channel.send(Resolved(title=_title(candidate, request.target)))
    return _run_pytest(channel, job, run)


def _rejected(error: BaseException, request: Request) -> Rejected:
    """Why there is nothing to check: what was asked for makes no sense, or the candidate did not let itself be had."""
    details = encodable(trace_of(error))
    if isinstance(error, ValueError):
        said = encodable(bounded(str(error), REASON))
        return Rejected(message=said, details=details)
    did = f"raised {type_of(error)}: {message_of(error)}"
    if is_time_up(error):
        did = f"did not end within {request.limit:g} s ({error})"
    said = encodable(f"importing {request.target!r} {did}")
    return Rejected(message=said, details=details, unrunnable=True)


def _title(candidate: Any, target: str) -> str:
    """What the candidate calls itself, if that can be had."""
    try:
        return title_of(candidate.title, target)
    except BaseException:  # its code may do anything; what follows judges the candidate
        return title_of(None, target)


def _kind(kind: Kind) -> tuple[Any, Any]:
    """How a target of this kind is resolved and run, with its properties imported."""
    if kind == "attention":
        from holotype_conformance.attention.claims import kernel_properties
        from holotype_conformance.attention.runs import KernelRun
        from holotype_conformance.attention.targets import resolve_kernel

        kernel_properties()
        return resolve_kernel, KernelRun
    from holotype_conformance.property import all_properties
    from holotype_conformance.runs import Run
    from holotype_conformance.targets import resolve

    all_properties()
    return resolve, Run


def _run_pytest(channel: Channel, job: Job, run: object) -> bool:
    import pytest

    from holotype_conformance.plugin import PACKAGE, SUITE

    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    left_out = (
        "cacheprovider",
        "warnings",
        "faulthandler",
        "logging",
        "unraisableexception",
        "threadexception",
    )
    arguments = [
        str(SUITE),
        "-c",
        os.devnull,
        "--rootdir",
        str(PACKAGE),
        "--noconftest",
        "-q",
        "-s",
    ]
    arguments += [word for name in left_out for word in ("-p", f"no:{name}")]
    arguments += ["-p", "holotype_conformance.plugin"]
    code = pytest.main(arguments, plugins=[_Reporting(channel, job, run)])
    return code in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    )


class _Reporting:
    """Hands the prepared run to the suite, leaves out what is finished, and announces the rest."""

    def __init__(self, channel: Channel, job: Job, run: object) -> None:
        self.channel = channel
        self.finished = set(job.finished)
        self.run = run

    def pytest_configure(self, config) -> None:  # type: ignore[no-untyped-def]
        from holotype_conformance.suite import RUN

        config.stash[RUN] = self.run

    def pytest_collection_modifyitems(self, items) -> None:  # type: ignore[no-untyped-def]
        items[:] = [item for item in items if (item.spec.name, item.name) not in self.finished]

    def pytest_collection_finish(self, session) -> None:  # type: ignore[no-untyped-def]
        from holotype_conformance.runs import plan

        planned: tuple[Planned, ...] = tuple(
            plan(item.spec.name, item.property) for item in session.items
        )
        environment = self.run.environment  # type: ignore[attr-defined]
        suite = len(self.run.known())  # type: ignore[attr-defined]
        declared = self.run.declared  # type: ignore[attr-defined]
        self.channel.send(
            Collected(plan=planned, environment=environment, suite=suite, declared=declared)
        )


if __name__ == "__main__":
    main()
