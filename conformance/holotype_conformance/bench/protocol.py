"""Messages between the command and the processes that run the code under test: JSON lines. No torch here."""

from __future__ import annotations

from typing import Literal

import msgspec

from holotype_conformance.bench.workloads import Work
from holotype_conformance.judge.records import Environment, Kind

# Raised when the meaning of a message changes: an earlier version may speak an earlier one. 2 counts the blocks of a
# causal flag, and products that write in place. In 3 a sample is drawn and then run: whoever asks reads the clock.
PROTOCOL = 3
Role = Literal["candidate", "sdpa", "reference"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One line to a worker; it answers each with one line."""


class Open(Ask, frozen=True, kw_only=True, tag="open"):
    """Import the target."""

    target: str
    kind: Kind
    specs: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"


class Prepare(Ask, frozen=True, kw_only=True, tag="prepare"):
    """Get ready for some work: what follows is about it."""

    work: Work


class Draw(Ask, frozen=True, kw_only=True, tag="draw"):
    """Get ready for a sample of `calls` calls on fresh inputs; those of one `number` are the same in every process."""

    role: Role
    calls: int
    number: int


class Go(Ask, frozen=True, kw_only=True, tag="go"):
    """Take the sample that was drawn: nothing is done before the answer but what is timed."""


class Verify(Ask, frozen=True, kw_only=True, tag="verify"):
    """Is what the candidate computed in its last sample right? Of one call, which was chosen after it had returned."""


class Count(Ask, frozen=True, kw_only=True, tag="count"):
    """Count one call."""

    role: Role


class Rate(Ask, frozen=True, kw_only=True, tag="rate"):
    """Measure what this process gets out of the machine just now."""

    dtype: str
    bytes: int
    again: bool = False  # measure anew, and keep the faster of the two


AnyAsk = Open | Prepare | Draw | Go | Verify | Count | Rate


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One line from a worker."""


class Opened(Answer, frozen=True, kw_only=True, tag="opened"):
    """The target is there."""

    protocol: int
    title: str
    environment: Environment


class Prepared(Answer, frozen=True, kw_only=True, tag="prepared"):
    """Ready for the work, or not, with the reason.

    `told` says how the candidate is passed its mask, `roles` who can be timed.
    """

    lacks: str | None = None
    told: str = ""
    roles: tuple[Role, ...] = ()
    flops: int = 0
    bytes: int = 0


class Drawn(Answer, frozen=True, kw_only=True, tag="drawn"):
    """The inputs are there."""


class Sampled(Answer, frozen=True, kw_only=True, tag="sampled"):
    """Seconds of a sample, by a clock of this process: what counts where nobody else can read one."""

    seconds: float


class Verified(Answer, frozen=True, kw_only=True, tag="verified"):
    """It is right."""


class Counted(Answer, frozen=True, kw_only=True, tag="counted"):
    """The cost of one call; see `holotype_conformance.bench.counters`."""

    operators: int
    flops: int
    allocated: int
    peak: int


class Rated(Answer, frozen=True, kw_only=True, tag="rated"):
    """FLOP/s of a matrix product, and bytes/s of memory at that size."""

    flops: float
    bytes: float


class Refused(Answer, frozen=True, kw_only=True, tag="refused"):
    """It did not work: the request makes no sense, the target cannot be run at all, its code is wrong, or ours is."""

    kind: Literal["bad-input", "unrunnable", "wrong", "broken"]
    message: str
    details: str = ""


AnyAnswer = Opened | Prepared | Drawn | Sampled | Verified | Counted | Rated | Refused
