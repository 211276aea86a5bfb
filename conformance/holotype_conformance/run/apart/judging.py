"""The half that judges: subjects whose models live in the other half."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NoReturn, TypeVar
from weakref import finalize

import msgspec
import torch
from torch import Tensor, nn

from holotype_conformance.judge import subject as judged
from holotype_conformance.judge.declaring import Floor
from holotype_conformance.judge.process_state import note_changes
from holotype_conformance.judge.property import Property, Violation, measured, noted
from holotype_conformance.models.candidate import Candidate
from holotype_conformance.models.declarations import Capability, Difference, Form
from holotype_conformance.models.exchange import Inputs, Labels, Outputs
from holotype_conformance.models.setup import Setup
from holotype_conformance.models.subject import Subject
from holotype_conformance.run.apart.outcomes import raise_answer
from holotype_conformance.run.apart.wire import (
    Answer,
    AnyAsk,
    Build,
    Built,
    Check,
    Checked,
    Closed,
    Diagnose,
    Forward,
    Load,
    Opened,
    Place,
    Returned,
    Settle,
    Smoke,
    Tell,
    Value,
    Wire,
    all_data,
    plain_fact,
    tensor,
)
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec

LEAVING = 3.0  # seconds from the end of the wire to the end of the process behind it
A = TypeVar("A", bound=Answer)


class Half:
    """The other half, as this one sees it.

    Args:
        wire: this end.
        process: the other half's process.
    """

    def __init__(self, wire: Wire, process: int) -> None:
        self.wire = wire
        self.process = process
        self.sent = 0
        self.slug = ""  # the property under way
        self.case = 0  # counts the cases of all properties
        self.seed = 0  # of the random states of the case under way
        self.dropped: list[int] = []
        self.another: Callable[
            [], Half
        ]  # makes a half like this one, whose candidate is imported anew
        self.shared: Any = None  # a run in such a half, once one was made that may be used again

    def ask(self, ask: AnyAsk, expected: type[A] | tuple[type[A], ...]) -> A:
        """One answer.

        Raises:
            Violation, CandidateUnusable, Skip, SuiteFault, TimedOut: as in the other half.
            Mistake: its own code raised.
        """
        dropped, self.dropped = tuple(self.dropped), []
        ask = msgspec.structs.replace(
            ask, slug=self.slug, number=self.case, seed=self.seed, dropped=dropped
        )
        self.sent += 1
        try:
            self.wire.send(self.sent, ask)
            answer = self._answer()
            if not isinstance(answer, expected):
                raise_answer(answer)
            return answer
        except Closed:
            follow(self.process)

    def _answer(self) -> Answer:
        try:
            return self._received()
        except BaseException as error:
            if isinstance(error, Closed):
                raise
            os.kill(self.process, signal.SIGALRM)  # the time is up there, too
            self._received()
            raise

    def _received(self) -> Answer:
        while True:
            number, answer = self.wire.receive()
            if number == self.sent:
                return answer  # type: ignore[no-any-return]

    def end(self) -> None:
        """Let it go, and wait for its end, so that its time counts as this process' own."""
        if self.shared is not None:
            self.shared.half.end()
        self.wire.socket.close()
        ended(self.process)

    def keep(self, owner: object, number: int) -> None:
        """Let go of a model or a cache there once `owner` is gone here."""
        finalize(owner, self.dropped.append, number)


def ended(process: int) -> int | None:
    """The exit code of a process that is about to end, negative for a signal; None if it had to be killed."""
    deadline = time.monotonic() + LEAVING
    while not (found := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


def follow(process: int) -> NoReturn:
    """End as the other half has ended, so that whoever started both learns what it was."""
    faulthandler.disable()
    code = ended(process)
    if code is None:  # it has closed the wire, or answers nonsense
        os._exit(74)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# Subjects --------------------------------------------------------------------------------------------------------


class Stated(Candidate):
    """The candidate as it is known here: by its statements."""

    def __init__(self, opened: Opened) -> None:
        self.title = opened.title
        self.paths = opened.paths
        self.absent: Mapping[Capability, str] = opened.absent  # type: ignore[assignment]
        self.holds: Mapping[Form, str] = opened.holds  # type: ignore[assignment]
        self.statements = opened.statements
        self.hands_out = opened.hands_out

    def refusal(self, spec: Spec) -> None:
        """The other half has asked the candidate."""

    def routes(self, spec: Spec) -> bool:
        return self.statements[spec.name].routes

    def floor(self, spec: Spec) -> Floor | None:
        return self.statements[spec.name].floor

    def differences(self, spec: Spec) -> Sequence[Difference]:
        stated = self.statements[spec.name]
        changed = spec if stated.changed is None else stated.changed
        return [
            Difference(field=field, reason=reason, change=lambda _: changed)
            for field, reason in stated.differences
        ]


class ModelThere(nn.Module):
    """A model of the other half: its number, and its dtype."""

    def __init__(self, built: Built) -> None:
        super().__init__()
        self.number = built.model
        self.marker = nn.Parameter(torch.zeros(1, dtype=getattr(torch, built.dtype)))


class CacheThere:
    """A cache of the other half."""

    def __init__(self, number: int) -> None:
        self.number = number


class Asking(judged.Subject):
    """The base of subjects of models and of kernels.

    A property that is judged here runs its check on this subject; of the others each case is judged there.
    """

    half: Half
    place: Place
    judged_there = False  # whether everything is

    def check(self, property_: Property, case: Any, seed: int = 0) -> None:
        """Judge one case, in random states of its own."""
        self.half.case += 1
        self.half.seed = seed
        self.half.slug = property_.slug
        if property_.apart and not self.judged_there:
            super().check(property_, case, seed)
            return
        ask = Check(place=self.place, case=msgspec.json.encode(case))
        checked = self.half.ask(ask, Checked)
        for error, budget in checked.measured:
            measured(error, budget)
        for note in checked.notes:
            noted(note)

    def diagnose(self, _property: Property, case: Any, violation: Violation) -> Any:
        """Explanations of a failure, as data."""
        ask = Diagnose(
            place=self.place,
            case=msgspec.json.encode(case),
            summary=violation.summary,
            facts={name: plain_fact(fact) for name, fact in violation.facts.items()},
        )
        return self.half.ask(ask, Value).value

    def smoke(self) -> None:
        """Build one probe there and run it once.

        Raises:
            CandidateUnusable: it cannot be built or called.
        """
        note_changes(self.half.ask(Smoke(place=self.place), Value).value)

    def settle(self) -> None:
        """Have what was changed there put back, and name it here."""
        self.half.slug = ""
        note_changes(self.half.ask(Settle(), Value).value)

    def told(self, what: str) -> Any:
        """A statement of the candidate about itself."""
        return self.half.ask(Tell(place=self.place, what=what), Value).value


class SubjectThere(Asking, Subject):
    """One candidate under one spec, whose models live in the other half."""

    def __init__(self, half: Half, candidate: Stated, spec: Spec, **options: Any) -> None:
        super().__init__(candidate, spec, **options)
        self.half = half
        self.candidate: Stated = candidate
        self.place = Place(spec.name, str(self.device), self.long_rows)
        # The weights that it computes with are there, and the reference has to have them too.
        self.judged_there = candidate.hands_out

    def alike(self, candidate: Candidate | None = None, **changes: Any) -> Subject:
        assert candidate is None, "other candidates are run where the models are"
        options = {"seed": self.seed, "device": str(self.device), "dtypes": self.asked}
        options |= {"long_rows": self.long_rows}
        return SubjectThere(self.half, self.candidate, self.stated, **options | changes)

    @cached_property
    def capabilities(self) -> dict[Capability, str | None]:
        return dict(self.told("capabilities"))

    def fresh_model(self, setup: Setup) -> nn.Module:
        model = ModelThere(self.half.ask(Build(place=self.place, setup=setup), Built))
        self.half.keep(model, model.number)
        self._dtypes[model] = model.marker.dtype
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        ask = Load(model=number(model), weights=all_data(weights))
        self.half.ask(ask, Value)

    def forward(self, model: nn.Module, inputs: Inputs, *, grad: bool = False) -> Outputs:
        assert not grad, "gradients stay where the model is"
        return self._asked(model, inputs, Forward(model=number(model), inputs={}))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        earlier = None if cache is None else cache.number
        ask = Forward(model=number(model), inputs={}, cached=True, cache=earlier)
        return self._asked(model, inputs, ask)

    def _asked(self, model: nn.Module, inputs: Inputs, ask: Forward) -> Outputs:
        return self._checked(model, inputs, self._returned(inputs, ask))

    def _returned(self, inputs: Inputs, ask: Forward) -> Outputs:
        given = all_data(inputs.tensors())
        found = self.half.ask(msgspec.structs.replace(ask, inputs=given), Returned)
        if ask.cached and found.cache is None:
            raise Violation(
                "forward_cached returned no cache; expected the one to hand to the next call"
            )
        outputs = Outputs(
            logits=self._own(found.logits),
            next_sentence=None if found.next_sentence is None else self._own(found.next_sentence),
            cache=None if found.cache is None else CacheThere(found.cache),
        )
        if found.cache is not None:
            self.half.keep(outputs.cache, found.cache)
        return outputs

    def _own(self, found: Any) -> Tensor:
        try:
            return tensor(found).to(self.device)
        except ValueError as error:
            raise Violation(f"the outputs are no tensor: {error}") from error

    def _there(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("a property that needs this is judged where the model is")

    call: Callable[..., Outputs] = _there
    call_cached: Callable[..., Outputs] = _there
    restored: Callable[..., nn.Module] = _there

    def loss(
        self, model: nn.Module, inputs: Inputs, labels: Labels, *, grad: bool = False
    ) -> Tensor:
        self._there()


def number(model: nn.Module) -> int:
    """The number of a model of the other half."""
    assert isinstance(model, ModelThere)
    return model.number
