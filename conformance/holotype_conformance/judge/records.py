"""The records of a run: requests, events, results and reports. No torch here.

The parent process, the worker that runs the candidate and the pytest plugin speak these structs to each other, as
JSON lines; reports are drawn from them.
"""

from __future__ import annotations

import builtins
import math
import shlex
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from holotype_conformance.judge.texts import encodable as encodable

Outcome = Literal[
    "passed",
    "failed",
    "expected-failure",
    "unexpected-pass",
    "undecided",
    "not-run",
    "skipped",
    "error",
]
Verdict = Literal["conforms", "does-not-conform", "undecided", "not-run"]
Level = Literal["must", "should"]
Profile = Literal["quick", "full"]
DType = Literal["float64", "float32", "bfloat16", "float16"]
Kind = Literal["model", "attention"]
OUTCOMES: tuple[Outcome, ...] = (
    "passed",
    "failed",
    "expected-failure",
    "unexpected-pass",
    "undecided",
    "not-run",
    "skipped",
    "error",
)

REFUSES = (
    "it refuses "  # how the reason begins for which a kernel is not asked for what it seems to have
)


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """A deviation with which the reference agrees with the candidate, up to `residual`."""

    deviation: str
    title: str
    residual: float | None = None


class Counterexample(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest case found that breaks a property, what was measured, and the line that reruns it."""

    case: dict[str, Any]
    facts: dict[str, Any]
    rerun: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one property under one spec.

    `reason` says in a sentence what was seen (or why it was skipped); it is None only for a plain pass. What is
    `undecided` was begun and did not end: it says nothing for the candidate and nothing against it. What is `not-run`
    was to come when the run was cut short.
    `ended` says that the candidate ended its process, or tried to, in place of an answer. `fault` says that the suite
    itself went wrong, which says nothing against the candidate either.
    `cases` is the number of cases judged, those of the shrinking included. `details` is a traceback or what
    the candidate printed, for `--verbose`. `error` and `budget` are of the comparison that came nearest its budget,
    where errors were measured. `undiagnosed` says why the search for a diagnosis came to no end; it is None where
    the search ended, whether it found something or not.
    `depends` completes "it depends …" where a failure does not come about on a fresh model; `history` are then the
    cases that had to run before, in their order, where these are known.
    `left_changed` names what the candidate changed in the process and left so; it was put
    back.
    """

    property: str
    level: Level
    outcome: Outcome
    seconds: float
    reason: str | None = None
    counterexample: Counterexample | None = None
    diagnosis: tuple[Diagnosis, ...] = ()
    undiagnosed: str | None = None
    clause: str = ""
    meaning: str = ""
    cases: int = 0
    ended: bool = False
    fault: bool = False
    details: str | None = None
    error: float | None = None
    budget: float | None = None
    left_changed: tuple[str, ...] = ()
    depends: str | None = None
    history: tuple[dict[str, Any], ...] = ()

    @builtins.property  # `property` is a field here
    def ran(self) -> bool:
        """Whether the candidate was judged by this property."""
        return self.outcome not in ("undecided", "not-run", "skipped", "error")

    @builtins.property  # `property` is a field here
    def undecided(self) -> bool:
        """Whether this result alone leaves open whether the candidate conforms."""
        open_ = self.outcome in ("undecided", "not-run") and self.level == "must"
        return open_ or self.fault

    @builtins.property  # `property` is a field here
    def breaks(self) -> bool:
        """Whether this result alone makes the candidate not conform."""
        must_failed = self.outcome == "failed" and self.level == "must"
        wrong = self.outcome == "unexpected-pass" or (self.outcome == "error" and not self.fault)
        return must_failed or wrong


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The environment of a run; `versions` is by distribution name.

    `arithmetic` are torch's settings of precision while properties were judged.
    """

    python: str
    torch: str
    platform: str
    device: str
    versions: dict[str, str]
    threads: int = 1
    arithmetic: dict[str, str] = {}


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a candidate says of itself, which was believed.

    `kind`: what it cannot do, how it holds its weights, how far off it may be (`allowed`, relative), where it is known
    to differ from the spec, and of a kernel which sizes it takes and what it must always be told. `name` is the
    capability, form, quantity, field, axis or parameter.
    """

    kind: Literal["absent", "holds", "floor", "difference", "sizes", "required"]
    name: str
    reason: str
    allowed: float | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One spec's part of a run: what ``--json`` writes.

    `verdict` is what came of it, `conclusion` the same in a sentence, and `conforms` whether it is "conforms":
    `holotype_conformance.judge.verdict` makes them. `unusable` is the reason why the candidate could not be run at
    all, else None; `parameters` is the exact count of the full-size spec. `suite` counts the properties of the whole
    suite, of which `results` are those that were asked for. `uncompared` is the reason why no number was held against
    the reference's, where that was asked for. `declared` is what the candidate says of itself. `interrupted` is what
    cut the run short, and `left` names processes that the candidate had left running when it was done, and that were
    ended.
    """

    holotype: str
    spec: str
    candidate: str
    conforms: bool
    verdict: Verdict
    conclusion: str
    seed: int
    profile: Profile
    parameters: int | None
    unusable: str | None
    environment: Environment | None
    counts: dict[Outcome, int]
    results: tuple[Result, ...]
    suite: int = 0
    uncompared: str | None = None
    interrupted: str | None = None
    left: tuple[str, ...] = ()
    declared: tuple[Declaration, ...] = ()

    @property
    def ran(self) -> int:
        """The number of properties that judged the candidate."""
        return sum(result.ran for result in self.results)

    @property
    def left_changed(self) -> dict[str, int]:
        """Each thing that the candidate changed in the process and left so -> in how many properties."""
        names = [name for result in self.results for name in result.left_changed]
        return {name: names.count(name) for name in names}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is asked for.

    `target` and `specs` stand as the user wrote them; `written` gives for the name of a spec what was written
    where that is something else (the path of a file). `dtypes` is empty for all of them. `limit` is in seconds for a
    property, 0 for none. `kind` is what sort of thing the target is; a kernel has no spec to be named.
    """

    target: str
    specs: tuple[str, ...]
    properties: tuple[str, ...] = ()
    profile: Profile = "quick"
    seed: int = 0
    device: str = "cpu"
    dtypes: tuple[DType, ...] = ()
    case: str | None = None
    limit: float = 60.0
    expected: dict[str, str] = {}
    written: dict[str, str] = {}
    kind: Kind = "model"

    def rerun(self, spec: str, slug: str, case: Mapping[str, Any] | None) -> str:
        """The command that reruns exactly one case (or, without one, one property)."""
        if self.kind == "attention":
            words = ["holotype", "check-attention", self.target]
        else:
            words = ["holotype", "check", self.target, "--spec", self.written.get(spec, spec)]
        words += ["--property", slug]
        if self.device != "cpu":
            words += ["--device", self.device]
        for dtype in self.dtypes if case is None else ():
            words += ["--dtype", dtype]
        if self.seed:
            words += ["--seed", str(self.seed)]
        if case is None:
            words += ["--profile", self.profile] if self.profile != "quick" else []
        else:
            words += ["--case", msgspec.json.encode(case).decode()]
        return shlex.join(words)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """The task of a worker: the request, what is finished already, and the specs that need no first run.

    `finished` are (spec, slug) pairs. `key` signs the worker's events.
    """

    request: Request
    finished: tuple[tuple[str, str], ...] = ()
    smoked: tuple[str, ...] = ()
    key: str = ""


# Events: what a worker tells its parent, one JSON line each ---------------------------------------------------


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """One line from the worker."""


class Ready(Event, frozen=True, tag="ready"):
    """Our own imports are done; the target comes next."""

    environment: Environment


class Resolved(Event, frozen=True, tag="resolved"):
    """The target was imported."""

    title: str


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One property that is going to run (or to be skipped) under one spec."""

    spec: str
    property: str
    level: Level
    clause: str
    meaning: str


class Collected(Event, frozen=True, tag="collected"):
    """Everything that this worker is going to report on; `suite` counts the properties of the whole suite, and
    `declared` is what the candidate declares under each spec."""

    plan: tuple[Planned, ...]
    environment: Environment
    suite: int = 0
    declared: dict[str, tuple[Declaration, ...]] = {}


class Smoke(Event, frozen=True, tag="smoke"):
    """The first run of a spec starts: one probe, one forward."""

    spec: str


class Unusable(Event, frozen=True, tag="unusable"):
    """The candidate cannot be run at all under this spec."""

    spec: str
    reason: str


class Started(Event, frozen=True, tag="started"):
    """A property starts."""

    spec: str
    property: str


class Trying(Event, frozen=True, tag="trying"):
    """A case of the property under way starts; if the process dies, this one was the last."""

    case: dict[str, Any]


class Broken(Event, frozen=True, tag="broken"):
    """A case fails; what follows is the search for a smaller one."""

    spec: str
    result: Result


class Judged(Event, frozen=True, tag="judged"):
    """A property has failed; what follows is the search for a diagnosis."""

    spec: str
    result: Result


class Finished(Event, frozen=True, tag="finished"):
    """All is said about a property."""

    spec: str
    result: Result


class Rejected(Event, frozen=True, tag="rejected"):
    """The request makes no sense (a target that does not import, a glob that matches nothing, …), or, if
    `unrunnable`, the candidate cannot be run at all."""

    message: str
    details: str = ""
    unrunnable: bool = False


class Left(Event, frozen=True, tag="left"):
    """Processes that the candidate had left running, by the commands that started them; they were ended."""

    processes: tuple[str, ...]


class Stopped(Event, frozen=True, tag="stopped"):
    """A signal ended the run before its time."""

    signal: int


class Done(Event, frozen=True, tag="done"):
    """The worker has nothing more to say."""


def signed(key: bytes, number: int, line: bytes) -> bytes:
    """An event's line behind its signature, by which the parent knows that it is the worker's, and the next one."""
    told = blake2b(number.to_bytes(8, "big") + line, key=key, digest_size=16)
    return told.hexdigest().encode() + b" " + line


AnyEvent = (
    Ready
    | Resolved
    | Collected
    | Smoke
    | Unusable
    | Started
    | Trying
    | Broken
    | Judged
    | Finished
    | Rejected
    | Left
    | Stopped
    | Done
)


def plain(value: Any) -> Any:
    """`value` in terms that JSON can carry: a NaN or an infinity as its name, anything unknown as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, int) or value is None:
        return value
    if isinstance(value, dict):
        return {encodable(str(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(entry) for entry in value]
    if isinstance(value, msgspec.Struct):
        return plain(msgspec.to_builtins(value))
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return plain(value.item())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return encodable(str(value))


def count(results: tuple[Result, ...]) -> dict[Outcome, int]:
    """The number of results of each outcome, zeros included."""
    return {outcome: sum(result.outcome == outcome for result in results) for outcome in OUTCOMES}
