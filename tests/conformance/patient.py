"""A candidate of which one property takes for ever, and that leaves processes behind: for runs that are cut short.

The folder of the run gets a file `waiting` once the patient property is under way, and `daemon` with the number of a
process that has left the worker's session.
"""

import os
import time
from pathlib import Path

from hypothesis import strategies as st
from torch import nn

import holotype_conformance.models.properties  # noqa: F401  the real ones register first, and are then taken out
from holotype_conformance.judge.property import Case, Property, Violation
from holotype_conformance.models.claims import CLAIMS


class Size(Case, frozen=True, kw_only=True):
    size: int


class Model(nn.Embedding):
    def forward(self, token_ids):
        return super().forward(token_ids)


def build(spec):
    return Model(spec.vocab_size, spec.vocab_size)


def holds(subject, case):
    pass


def fails(subject, case):
    raise Violation("it is so", size=case.size)


def leaves_a_daemon(subject, case):
    """Forks twice, in a session of its own: out of reach for its group's signals and for its parent's end."""
    if Path("daemon").exists():
        return
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            Path("daemon.new").write_text(str(os.getpid()))
            os.rename("daemon.new", "daemon")
            os.execvp("sleep", ["sleep", "3211"])
        os._exit(0)
    os.waitpid(child, 0)
    while not Path("daemon").exists():
        time.sleep(0.01)


def waits(subject, case):
    Path("waiting").touch()
    time.sleep(1e6)


CLAIMS._known.clear()
CHECKS = {
    "first.holds": holds,
    "first.fails": fails,
    "second.daemon": leaves_a_daemon,
    "second.waits": waits,
    "third.holds": holds,
}
for slug, check in CHECKS.items():
    CLAIMS.register(
        Property(
            slug=slug,
            clause="A clause.",
            level="must",
            meaning="A meaning.",
            catches=(),
            needs=(),
            applies=lambda spec: None,
            cases=lambda subject: st.builds(Size, size=st.integers(0, 50)),
            case_type=Size,
            check=check,
            examples=2,
        )
    )
