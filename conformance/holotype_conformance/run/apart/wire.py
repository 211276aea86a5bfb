"""Messages between the two halves: one ask, one answer, in MessagePack, with tensors as bytes.

Nothing here is ever unpickled: an answer comes from a process in which the candidate can do what it likes.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Mapping
from select import poll
from typing import Any

import msgspec
import torch
from torch import Tensor

from holotype_conformance.judge.declaring import Floor
from holotype_conformance.judge.property import Violation
from holotype_conformance.judge.records import Environment, Request, plain
from holotype_conformance.models.setup import Setup
from holotype_spec.schema import Spec

LARGEST = 1 << 31  # bytes of a message: more is no answer
CHUNK = 1 << 18
HIGH = 900  # file descriptors from here on are seldom met by code that closes or scribbles on all that it can think of
_LENGTH = struct.Struct(">Q")


class Data(msgspec.Struct, frozen=True, array_like=True):
    """A tensor: the name of its dtype, its shape, and its elements in order."""

    dtype: str
    shape: tuple[int, ...]
    elements: bytes


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A subject: the spec's name, the device, and whether its probes take long rows."""

    spec: str
    device: str
    long_rows: bool = False


# Asks ------------------------------------------------------------------------------------------------------------


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask"):
    """One ask. `slug` and `number` say which case of which property it is for, and `seed` the random states of that
    case; `dropped` are models and caches that are needed no more."""

    slug: str = ""
    number: int = 0
    seed: int = 0
    dropped: tuple[int, ...] = ()


class Open(Ask, frozen=True, kw_only=True, tag="open"):
    """Import the target."""

    request: Request


class Smoke(Ask, frozen=True, kw_only=True, tag="smoke"):
    """Build one probe and run it."""

    place: Place


class Tell(Ask, frozen=True, kw_only=True, tag="tell"):
    """One of the things that the candidate states of itself under a spec."""

    place: Place
    what: str


class Settle(Ask, frozen=True, kw_only=True, tag="settle"):
    """A property is done with: put back what was changed in the process, and name it."""


class Build(Ask, frozen=True, kw_only=True, tag="build"):
    """Build a probe and load its weights."""

    place: Place
    setup: Setup


class Load(Ask, frozen=True, kw_only=True, tag="load"):
    """Load these weights."""

    model: int
    weights: dict[str, Data]


class Forward(Ask, frozen=True, kw_only=True, tag="forward"):
    """Run a model on inputs, with a cache if `cached`; `cache` is that of an earlier answer."""

    model: int
    inputs: dict[str, Data]
    cached: bool = False
    cache: int | None = None


class Check(Ask, frozen=True, kw_only=True, tag="check"):
    """Judge one case of a property that needs the model itself."""

    place: Place
    case: bytes


class Diagnose(Ask, frozen=True, kw_only=True, tag="diagnose"):
    """Look for what explains a failure."""

    place: Place
    case: bytes
    summary: str
    facts: dict[str, Any]


AnyAsk = Open | Smoke | Tell | Settle | Build | Load | Forward | Check | Diagnose


# Answers ---------------------------------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer"):
    """One answer."""


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate's statements about itself under one spec; `changed` is the spec with the differences, if any."""

    floor: Floor | None
    routes: bool
    differences: tuple[tuple[str, str], ...] = ()
    changed: Spec | None = None


class Opened(Answer, frozen=True, kw_only=True, tag="opened"):
    """The target is there. `statements` are by the name of the spec."""

    title: str
    environment: Environment
    paths: tuple[str, ...] = ("default",)
    absent: dict[str, str] = {}
    holds: dict[str, str] = {}
    hands_out: bool = False  # the weights that it computes with: then it is judged where it is
    statements: dict[str, Statement] = {}


class Value(Answer, frozen=True, kw_only=True, tag="value"):
    """An answer, in terms of JSON."""

    value: Any = None


class Built(Answer, frozen=True, kw_only=True, tag="built"):
    """A model: its number, and the dtype of its parameters."""

    model: int
    dtype: str


class Returned(Answer, frozen=True, kw_only=True, tag="returned"):
    """The outputs of a model; `cache` is the number of the longer cache."""

    logits: Data
    next_sentence: Data | None = None
    cache: int | None = None


class Checked(Answer, frozen=True, kw_only=True, tag="checked"):
    """The claim holds for this case; `measured` are errors and their budgets, `notes` what is printed beside it."""

    measured: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


class Violated(Answer, frozen=True, kw_only=True, tag="violated"):
    """It does not; `trace` is the traceback of the candidate's own error, `evasion` whether that was no answer."""

    summary: str
    facts: dict[str, Any]
    trace: str | None = None
    evasion: bool = False


class Refused(Answer, frozen=True, kw_only=True, tag="refused"):
    """The request makes no sense, or (`unrunnable`) the candidate cannot be run."""

    message: str
    details: str = ""
    unrunnable: bool = False


class Faulted(Answer, frozen=True, kw_only=True, tag="faulted"):
    """The suite cannot do its part."""

    message: str


class Skipped(Answer, frozen=True, kw_only=True, tag="skipped"):
    """Nothing can be said on this machine."""

    reason: str


class Raised(Answer, frozen=True, kw_only=True, tag="raised"):
    """Our own code raised."""

    kind: str
    message: str
    trace: str


class Late(Answer, frozen=True, kw_only=True, tag="late"):
    """It was interrupted."""


AnyAnswer = (
    Opened
    | Value
    | Built
    | Returned
    | Checked
    | Violated
    | Refused
    | Faulted
    | Skipped
    | Raised
    | Late
)


# Tensors ---------------------------------------------------------------------------------------------------------


def data(tensor: Tensor, what: str) -> Data:
    """A tensor as data; `what` names it for the message.

    Raises:
        Violation: it holds no elements that could be read.
    """
    try:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        if plain.dtype is torch.bfloat16:  # which NumPy does not know
            plain = plain.contiguous().view(torch.int16)
        elements = plain.numpy().tobytes()
    except Exception as error:
        said = str(error).strip().split("\n")[0]
        raise Violation(
            f"the {what} cannot be read as numbers ({tensor.layout} on {tensor.device}): {said}; expected"
            " an ordinary tensor"
        ) from error
    return Data(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), elements)


def tensor(found: Data) -> Tensor:
    """A tensor of one's own.

    Raises:
        ValueError: dtype, shape and elements do not belong together.
    """
    dtype = getattr(torch, found.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{found.dtype!r} is no dtype")
    count = 1
    for size in found.shape:
        count *= size
    if min(found.shape, default=0) < 0 or count * dtype.itemsize != len(found.elements):
        raise ValueError(f"{len(found.elements)} bytes are no {dtype} tensor {found.shape}")
    if not count:
        return torch.empty(found.shape, dtype=dtype)
    return torch.frombuffer(bytearray(found.elements), dtype=dtype).reshape(found.shape)


def all_data(tensors: Mapping[str, Tensor]) -> dict[str, Data]:
    """Several, by name."""
    return {name: data(each, name) for name, each in tensors.items()}


def plain_fact(fact: Any) -> Any:
    """A fact as data: a number stays one, a NaN too."""
    return fact if type(fact) is float else plain(fact)


# The way between -------------------------------------------------------------------------------------------------


class Closed(Exception):
    """The other half is gone, or said what is no message."""


class Wire:
    """One end: whole messages, each with the number of the ask that it is or answers.

    Args:
        end: of the pair of sockets.
        type_: of the messages that come in.
        alarmed: an alarm may interrupt a wait for a message. It never tears one: alarms are held back while bytes move.
    """

    def __init__(self, end: socket.socket, type_: Any, *, alarmed: bool) -> None:
        self.alarmed = alarmed
        self.socket = _high(end)
        self.encoder = msgspec.msgpack.Encoder()
        self.decoder = msgspec.msgpack.Decoder(tuple[int, type_])
        self.ready = poll()
        self.ready.register(self.socket, 1)  # POLLIN
        self.buffer = bytearray()

    def send(self, number: int, message: msgspec.Struct) -> None:
        """Send one message.

        Raises:
            Closed: nobody reads it.
        """
        body = self.encoder.encode((number, message))
        try:
            with _Undisturbed():
                self.socket.sendall(_LENGTH.pack(len(body)) + body)
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self) -> tuple[int, Any]:
        """Wait for the next message.

        Raises:
            Closed: there is none.
        """
        try:
            while True:
                if (found := self._first()) is not None:
                    return found
                if self.alarmed:
                    self.ready.poll()
                with _Undisturbed():
                    chunk = self.socket.recv(CHUNK)
                    self.buffer += chunk
                if not chunk:
                    raise Closed("end of file")
        except (OSError, msgspec.MsgspecError) as error:
            raise Closed(str(error)) from error

    def _first(self) -> tuple[int, Any] | None:
        """The first message, once all of it is there."""
        with _Undisturbed():
            if len(self.buffer) < _LENGTH.size:
                return None
            length: int = _LENGTH.unpack_from(self.buffer)[0]
            if length > LARGEST:
                raise Closed(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self.buffer) < end:
                return None
            body = self.buffer[_LENGTH.size : end]
            del self.buffer[:end]
            found: tuple[int, Any] = self.decoder.decode(body)
            return found


_HELD = {signal.SIGALRM, signal.SIGPROF, signal.SIGVTALRM, signal.SIGXCPU}


class _Undisturbed:
    """No alarm inside."""

    def __enter__(self) -> None:
        self.before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self.before)


def _high(end: socket.socket) -> socket.socket:
    """The same end under a number that nobody guesses by accident, where there are as many."""
    import fcntl

    try:
        number = fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:  # fewer descriptors are allowed
        return end
    end.close()
    return socket.socket(fileno=number)


def inherited(end: socket.socket) -> None:
    """Close an end that belongs to the other half."""
    os.close(end.detach())
