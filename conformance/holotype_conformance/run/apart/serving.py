"""The half that runs the candidate: it answers asks, and never learns what is made of its answers."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, NoReturn

import msgspec
import torch
from torch import Tensor, nn

from holotype_conformance.judge.guard import is_ours
from holotype_conformance.judge.process_state import undisturbed
from holotype_conformance.judge.property import Property, Violation, measurements, notes
from holotype_conformance.judge.randomness import set_states
from holotype_conformance.judge.records import plain
from holotype_conformance.judge.suite import Suite
from holotype_conformance.judge.texts import encodable
from holotype_conformance.judge.time_limit import TimedOut, time_up
from holotype_conformance.models.candidate import Candidate
from holotype_conformance.models.declarations import as_it_has_it, known_differences, stated_floor
from holotype_conformance.models.exchange import Inputs
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.run.apart.outcomes import answer_of
from holotype_conformance.run.apart.wire import (
    Answer,
    AnyAsk,
    Build,
    Built,
    Check,
    Checked,
    Closed,
    Data,
    Diagnose,
    Forward,
    Late,
    Load,
    Open,
    Opened,
    Place,
    Refused,
    Returned,
    Settle,
    Smoke,
    Statement,
    Tell,
    Value,
    Wire,
    data,
    tensor,
)
from holotype_conformance.run.refusals import rejected, title
from holotype_conformance.run.session import Session
from holotype_reference.model import Model
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec

TOLD = frozenset({"capabilities"})


class Server:
    """Answers asks about one target.

    Args:
        suite: that of its kind.
    """

    def __init__(self, suite: Suite[Any]) -> None:
        self.suite = suite
        self.run: Session
        self.kept: dict[int, Any] = {}  # models and caches, by number
        self.builds: dict[int, tuple[Subject, Setup]] = {}
        self.count = 0
        self.slug = ""
        self.case = 0
        self.around = ExitStack()  # what is put back once a property is done with
        self.changed: dict[str, None] = {}  # by the candidate, for `Settle`
        self.busy = False

    def serve(self, wire: Wire) -> None:
        """Answer until the other half is gone."""
        while True:
            number, ask = wire.receive()
            self.busy = True
            try:
                answer = self.answer(ask)
            except TimedOut:  # ours: a candidate's own is a violation
                answer = Late()
            finally:
                self.busy = False
            wire.send(number, answer)

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        """The time is up: what is under way ends, if it lets itself be ended."""
        if self.busy:
            self.busy = False
            raise time_up()

    def answer(self, ask: AnyAsk) -> Answer:
        """One answer; what goes wrong is an answer too."""
        try:
            self._enter(ask)
            return self._answer(ask)
        except BaseException as error:
            return answer_of(error)

    def _enter(self, ask: AnyAsk) -> None:
        """Changes by one property's candidate in the process are put back before the next; each case starts alike."""
        for number in ask.dropped:
            self.kept.pop(number, None)
            self.builds.pop(number, None)
        if ask.slug != self.slug:
            self.around.close()
            if ask.slug:
                self.changed = self.around.enter_context(undisturbed())
            self.slug = ask.slug
        if ask.number != self.case:
            self.case = ask.number
            set_states(ask.seed)

    def _answer(self, ask: AnyAsk) -> Answer:
        match ask:
            case Open():
                return self._open(ask)
            case Smoke(place=place):
                with undisturbed() as changed:
                    self.subject(place).smoke()
                return Value(value=list(changed))
            case Settle():
                self.around.close()
                self.slug, changed = "", self.changed
                self.changed = {}
                return Value(value=list(changed))
            case Tell(place=place, what=what):
                return self._tell(self.subject(place), what)
            case Build(place=place, setup=setup):
                return self._build(self.subject(place), setup)
            case Load():
                return self._load(ask)
            case Forward():
                return self._forward(ask)
            case Check(place=place, case=case):
                property_ = self.property(ask.slug)
                with measurements() as found, notes() as noted:
                    self.subject(place).check(property_, _case(property_, case))
                return Checked(measured=tuple(found), notes=tuple(map(encodable, noted)))
            case Diagnose():
                return self._diagnose(ask)

    # One ask each -----------------------------------------------------------------------------------------

    def _open(self, ask: Open) -> Answer:
        request = ask.request
        try:
            candidate = self.suite.resolve(request.target)
            self.run = Session(request, candidate)
            return self._opened(title(candidate, request.target))
        except BaseException as error:
            if is_ours(error):
                raise
            told = rejected(error, request)
            return Refused(message=told.message, details=told.details, unrunnable=told.unrunnable)

    def _opened(self, name: str) -> Opened:
        run = self.run
        candidate = run.candidate
        return Opened(
            title=name,
            environment=run.environment,
            paths=tuple(candidate.paths),
            absent=dict(candidate.absent),
            hands_out=candidate.overrides("effective_weights"),
            holds=dict(candidate.holds),
            statements={spec.name: _statement(candidate, spec) for spec in run.specs},
        )

    def subject(self, place: Place) -> Any:
        """The candidate itself under that spec."""
        spec = next(spec for spec in self.run.specs if spec.name == place.spec)
        subject = self.run.subject(spec)
        if place.device != str(subject.device):
            subject = subject.on(torch.device(place.device))
        return subject.with_long_rows if place.long_rows else subject

    def property(self, slug: str) -> Property:
        """The property of that name."""
        return next(each for each in self.run.properties if each.slug == slug)

    def _tell(self, subject: Any, what: str) -> Value:
        if what not in TOLD:
            raise ValueError(f"nobody tells {what!r}")
        return Value(value=plain(getattr(subject, what)))

    def _build(self, subject: Subject, setup: Setup) -> Built:
        model = subject.fresh_model(setup)
        number = self._keep(model)
        self.builds[number] = subject, setup
        dtype = subject.dtype_of(model)
        return Built(model=number, dtype=str(dtype).removeprefix("torch."))

    def _load(self, ask: Load) -> Value:
        subject, setup = self.builds[ask.model]
        tensors = {name: tensor(each) for name, each in ask.weights.items()}
        spec = subject.probe(setup.layers, setup.long)
        subject.load(self.kept[ask.model], Weights(spec, tensors))
        return Value()

    def _forward(self, ask: Forward) -> Returned:
        subject, model = self.builds[ask.model][0], self.kept[ask.model]
        inputs = Inputs(
            **{name: tensor(each).to(subject.device) for name, each in ask.inputs.items()}
        )
        with torch.no_grad(), _own_work(subject.candidate):
            if ask.cached:
                cache = None if ask.cache is None else self.kept[ask.cache]
                outputs = subject.call_cached(model, inputs, cache)
            else:
                outputs = subject.call(model, inputs)
        sentence = outputs.next_sentence
        return Returned(
            logits=_data(outputs.logits, "logits"),
            next_sentence=None if sentence is None else _data(sentence, "next-sentence logits"),
            cache=None if outputs.cache is None else self._keep(outputs.cache),
        )

    def _diagnose(self, ask: Diagnose) -> Value:
        subject, property_ = self.subject(ask.place), self.property(ask.slug)
        violation = Violation(ask.summary, **ask.facts)
        case = _case(property_, ask.case)
        found = self.run.diagnose(subject, property_, case, violation)
        return Value(value=plain(list(found)))

    def _keep(self, what: nn.Module | Any) -> int:
        self.count += 1
        self.kept[self.count] = what
        return self.count


def _data(found: Any, what: str) -> Data:
    if not isinstance(found, Tensor):
        raise Violation(f"the {what} are a {type(found).__name__}; expected a tensor")
    return data(found, what)


def _case(property_: Property, text: bytes) -> Any:
    return msgspec.json.decode(text, type=property_.case_type)


def _statement(candidate: Candidate, spec: Spec) -> Statement:
    differences = known_differences(candidate, spec)
    changed = as_it_has_it(candidate, spec)
    return Statement(
        floor=stated_floor(candidate, spec),
        routes=bool(candidate.routes(changed)),
        differences=tuple((each.field, each.reason) for each in differences),
        changed=changed if differences else None,
    )


# The reference is no candidate's own work ----------------------------------------------------------------------------


@contextmanager
def _own_work(candidate: Candidate) -> Iterator[None]:
    """Demand that the candidate does not hand out what the reference computes.

    Only models that the suite offers itself are the reference. Whoever copies its code instead of calling it is not
    noticed: see docs/trust.md.
    """
    if _offered(candidate):
        yield
        return
    own = Model.forward

    def refused(self: Model, *arguments: Any, **named: Any) -> Any:
        raise Violation(
            "the candidate calls the reference (holotype_reference), whose outputs are what it is compared with;"
            " expected outputs that it computes by itself"
        )

    Model.forward = refused  # type: ignore[method-assign]
    try:
        yield
    finally:
        Model.forward = own  # type: ignore[method-assign]


def _offered(candidate: Candidate) -> bool:
    """Whether it is one of the targets that the suite offers itself."""
    return type(candidate).__module__.startswith(
        ("holotype_conformance.models.adapters.", "holotype_conformance.models.deviations.")
    )


def leave(server: Server, wire: Wire) -> NoReturn:
    """Serve to the end, and leave without ceremony."""
    status = 70
    try:
        server.serve(wire)
    except Closed:
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
