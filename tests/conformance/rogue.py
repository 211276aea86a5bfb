"""A candidate that misbehaves on demand, and a suite of properties that demand it.

As a target (``rogue.py:build``) it replaces the suite in the worker that imports it, so that one run can show
everything that a candidate can do to the process it runs in.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
import warnings

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

import holotype_conformance.models.properties  # noqa: F401  the real ones register first, and are then taken out
from holotype_conformance.judge.property import Case, Property, Skip, Violation
from holotype_conformance.judge.time_limit import TimedOut
from holotype_conformance.models.claims import CLAIMS
from holotype_conformance.models.setup import Setup

SMALLEST = 7  # the least size at which the misbehaviour shows
MOOD = "well"
DYING = False


class Rogue(nn.Module):
    """Logits that depend on the last token seen; everything else is mood."""

    def __init__(self, vocabulary):
        super().__init__()
        self.table = nn.Embedding(vocabulary, vocabulary)

    def forward(self, token_ids):
        return MOODS[MOOD](self.table(token_ids))


def build(spec):
    return Rogue(spec.vocab_size)


def build_raises(spec):
    raise RuntimeError("no such kernel")


def build_exits(spec):
    os._exit(3)


def build_takes_two(spec, size):
    return Rogue(size)


# Moods: logits -> what the model returns ---------------------------------------------------------------------


def spins(logits):
    while True:
        pass


def sleeps(logits):
    time.sleep(1e6)


def blocks_signals(logits):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(1e6)


def drops_handlers(logits):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    time.sleep(1e6)


def dies(logits):
    os._exit(3)


def dies_later(logits):
    """A failure, and in the search for a smaller case the end of the process."""
    global DYING
    if DYING:
        os._exit(3)
    DYING = True
    raise RuntimeError("first")


def exits(logits):
    sys.exit(4)


def segfaults(logits):
    ctypes.string_at(0)


def interrupts(logits):
    raise KeyboardInterrupt


def skips(logits):
    pytest.skip("not today")


def leaves_pytest(logits):
    pytest.exit("bye", returncode=0)


def gives_up(logits):
    hypothesis.reject()


def has_nothing_to_say(logits):
    raise Skip("nothing to say")


def pretends_the_time_is_up(logits):
    raise TimedOut("no")


def talks(logits):
    raise RuntimeError("x" * 20_000_000)


def prints(logits):
    print('{"event": "done"}', flush=True)
    os.write(1, b'{"event": "done"}\n\x00\xff rubbish \x1b[31m\n')
    return logits


def scribbles(logits):
    for descriptor in range(3, 32):
        with contextlib.suppress(OSError):
            os.write(descriptor, b'{"event": "nonsense"}\n\xff\n')
    return logits


def warns(logits):
    warnings.warn("spam", stacklevel=1)
    return logits


def raises(logits):
    raise RuntimeError("boom <b>&\x1b[31m\x00")


def upsets_torch(logits):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    return logits


MOODS = {
    "well": lambda logits: logits,
    "shape": lambda logits: logits[:, :-1],
    "dtype": lambda logits: logits.half(),
    "nan": lambda logits: logits * float("nan"),
    "spins": spins,
    "sleeps": sleeps,
    "blocks-signals": blocks_signals,
    "drops-handlers": drops_handlers,
    "dies": dies,
    "dies-later": dies_later,
    "exits": exits,
    "segfaults": segfaults,
    "interrupts": interrupts,
    "skips": skips,
    "leaves-pytest": leaves_pytest,
    "gives-up": gives_up,
    "has-nothing-to-say": has_nothing_to_say,
    "pretends-the-time-is-up": pretends_the_time_is_up,
    "talks": talks,
    "prints": prints,
    "scribbles": scribbles,
    "warns": warns,
    "raises": raises,
    "upsets-torch": upsets_torch,
}


# Properties ---------------------------------------------------------------------------------------------------


class Size(Case, frozen=True, kw_only=True):
    size: int


def demand(mood):
    """A check that asks for `mood` from the smallest size on."""

    def check(subject, case):
        global MOOD
        model = subject.model(Setup())
        MOOD = mood if case.size >= SMALLEST else "well"
        try:
            subject.forward(model, subject.inputs(tokens=(1, 3)))
        finally:
            MOOD = "well"

    return check


def claim(slug, check, *, level="must", applies=lambda spec: None):
    CLAIMS.register(
        Property(
            slug=slug,
            clause=f"The clause of {slug}.",
            level=level,
            meaning=f"The meaning of {slug}.",
            catches=("a bug",),
            needs=(),
            applies=applies,
            cases=lambda subject: st.builds(Size, size=st.integers(0, 50)),
            case_type=Size,
            check=check,
            examples=20,
        )
    )


def mistaken(subject, case):
    raise KeyError("a mistake of the suite")


def untrue(subject, case):
    raise Violation("it is not so", measured=float("nan"), where="<script>")


def torch_is_as_ever(subject, case):
    if torch.get_default_dtype() != torch.float32 or not torch.is_grad_enabled():
        raise Violation("an earlier property left torch changed")


CLAIMS._known.clear()
for mood in MOODS:
    claim(f"mood.{mood}", demand(mood))
claim("torch.as-ever", torch_is_as_ever)
claim("other.should", untrue, level="should")
claim("other.mistaken", mistaken)
claim("other.skipped", untrue, applies=lambda spec: "it does not apply")
claim("other.unexplained", untrue, applies=lambda spec: "")
claim("other.stale", untrue, applies=lambda spec: "it does not apply")
