"""The process that judges: ``python -P -m holotype_conformance.run.worker KIND``, started by the supervisor.

It reads one JSON line, the job, from standard input and writes events, a JSON line each, to what was its standard
output. Before anything of the candidate is imported, standard output is pointed at standard error: whatever a
candidate prints, it cannot mix it into the events. Standard input is empty from then on. When the parent is gone
the worker goes too.

Where a process can be copied, it splits in two after its own imports (`holotype_conformance.run.apart`): the
candidate is imported by the other half only. The job comes after the split, and with it the key that signs the
events, so that the candidate's half has never held it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import signal
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from holotype_conformance.judge.records import (
    Collected,
    Done,
    Event,
    Job,
    Kind,
    Ready,
    Resolved,
    signed,
)
from holotype_conformance.judge.time_limit import time_limit
from holotype_conformance.models.targets import is_ours
from holotype_conformance.run.refusals import rejected, title
from holotype_conformance.suites import suite_of

if TYPE_CHECKING:
    from holotype_conformance.run.apart.judging import Half
    from holotype_conformance.run.session import Session


GARBAGE = 20_000  # objects made since the last search for cycles of them: 700 come with every few calls of a model


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
        self._key = b""
        self._sent = 0

    def close(self) -> None:
        """Give up the way to the parent: the candidate's half has none."""
        os.close(self._events)
        os.close(self._control)

    def send(self, event: Event) -> None:
        """Tell the parent; one write, so that a death afterwards loses nothing."""
        self._sent += 1
        line = memoryview(signed(self._key, self._sent, self._encoder.encode(event)) + b"\n")
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
        job = msgspec.json.decode(line, type=Job)
        self._key = job.key.encode()
        return job

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
    kind: Any = sys.argv[1] if len(sys.argv) > 1 else "model"
    gc.disable()  # of what is imported nothing is garbage
    half = _prepared(channel, kind)
    gc.freeze()
    gc.set_threshold(GARBAGE)
    gc.enable()
    job = channel.receive()
    status = 70
    try:
        if _work(channel, job, half):
            channel.send(Done())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        if half is not None:
            half.end()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _prepared(channel: Channel, kind: Kind) -> Half | None:
    """All our own imports, and after them the half that runs the candidate; None where there is none."""
    warnings.simplefilter("ignore")
    import torch

    from holotype_conformance.judge import guard
    from holotype_conformance.run.apart.split import possible, split

    guard.expect_no_interrupts()

    torch.set_num_threads(1)  # probes are tiny: more threads cost more than they give
    _keep_memory()
    suite = suite_of(kind)
    return split(suite, channel.close) if possible(suite) else None


def _keep_memory() -> None:
    """Keep memory after each probe that the system would be asked for again, if the C library has the setting."""
    with suppress(OSError, AttributeError, TypeError):
        tell = ctypes.CDLL(None).mallopt
        tell(-1, 1 << 28)  # M_TRIM_THRESHOLD: bytes that may lie free at the top of the heap
        tell(-2, 1 << 24)  # M_TOP_PAD: bytes to ask for at a time
        tell(-3, 1 << 25)  # M_MMAP_THRESHOLD: bytes from which on a block is mapped on its own


def _session(channel: Channel, job: Job, half: Half | None) -> Session:
    """The session, with its target imported here or in the other half."""
    from holotype_conformance.run.session import Session

    options: dict[str, Any] = {"notify": channel.send, "smoked": job.smoked}
    with time_limit(job.request.limit):
        if half is None or is_ours(job.request.target):  # nothing of ours is out to look right
            candidate = suite_of(job.request.kind).resolve(job.request.target)
            return Session(job.request, candidate, **options)
        from holotype_conformance.run.apart.split import session_here

        return session_here(half, job.request, **options)


def _work(channel: Channel, job: Job, half: Half | None) -> bool:
    """Whether everything was judged."""
    from holotype_conformance.run.session import environment

    request = job.request
    channel.send(Ready(environment=environment("cpu")))
    try:
        run = _session(channel, job, half)
    except BaseException as error:
        channel.send(getattr(error, "told", None) or rejected(error, request))
        return False
    channel.send(Resolved(title=title(run.candidate, request.target)))
    return _judge_all(channel, job, run)


def _judge_all(channel: Channel, job: Job, run: Session) -> bool:
    """Announce what is left and judge it, spec by spec; whether the request makes sense."""
    from holotype_conformance.judge.guard import CandidateUnusable
    from holotype_conformance.run.session import RequestError, plan

    finished = set(job.finished)
    left = {
        spec.name: [each for each in run.properties if (spec.name, each.slug) not in finished]
        for spec in run.specs
    }
    channel.send(
        Collected(
            plan=tuple(
                plan(spec, each) for spec, properties in left.items() for each in properties
            ),
            environment=run.environment,
            suite=len(run.suite.properties()),
            declared=run.declared,
        )
    )
    for spec in run.specs:
        with suppress(CandidateUnusable):  # the run has told why, and goes on with the next
            for number, property_ in enumerate(left[spec.name]):
                if not number:
                    run.smoke(spec)
                try:
                    run.judge(spec, property_)
                except RequestError:  # told too
                    return False
    return True


if __name__ == "__main__":
    main()
