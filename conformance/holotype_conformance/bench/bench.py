"""A target that is benchmarked, opened: what it answers to each ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from random import SystemRandom
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from holotype_conformance.bench import clock
from holotype_conformance.bench.counters import count
from holotype_conformance.bench.protocol import (
    Answer,
    AnyAsk,
    Count,
    Counted,
    Draw,
    Drawn,
    Go,
    Open,
    Prepare,
    Prepared,
    Rate,
    Role,
    Sampled,
    Verified,
    Verify,
)
from holotype_conformance.bench.rates import Rates
from holotype_conformance.judge.property import Violation

# Bound here, before a target is imported: below a number, from the system's own source of chance.
_below = SystemRandom().randrange
WRITES = "it writes into its inputs"
W = TypeVar("W")
I = TypeVar("I")  # noqa: E741  the inputs of one call


class Bench(ABC, Generic[W, I]):
    """A target, opened. What a kernel and a model have in common."""

    title: str
    device: torch.device
    work: W

    def __init__(self) -> None:
        self.seed = 0
        self._last: tuple[I, Any] | None = None
        self._drawn: tuple[Role, list[I]] | None = None

    # What a subclass knows ------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, work: W) -> Prepared:
        """Get ready for `work`."""

    @abstractmethod
    def draw(self, role: Role, number: int) -> I:
        """Fresh inputs, the same for every role."""

    @abstractmethod
    def run(self, role: Role, inputs: I) -> Any:
        """The timed call: nothing but what is measured."""

    @abstractmethod
    def verify(self, inputs: I, result: Any) -> None:
        """Raise `Violation` if the candidate's result is wrong."""

    @abstractmethod
    def given(self, inputs: I) -> Sequence[Tensor]:
        """The tensors that a call is given, and must not write into."""

    def owned(self, role: Role) -> Sequence[Tensor]:
        """Those that were there before it besides: parameters."""
        return ()

    # What is asked --------------------------------------------------------------------------------------------

    def draw_sample(self, role: Role, calls: int, number: int) -> None:
        """Get inputs of its own ready for each of `calls` calls."""
        self._last = None
        self._drawn = role, [self.draw(role, number * 1000 + i) for i in range(calls)]

    def sample(self) -> float:
        """Seconds of the calls that were drawn.

        Which of their results is kept, to be verified, is decided anew after each call has returned: while it runs, no
        code can know whether it counts. Each is kept with the same chance (Vitter 1985, algorithm R).
        """
        assert self._drawn is not None, "it is drawn first"
        (role, batch), self._drawn = self._drawn, None
        versions = [self._versions(inputs) for inputs in batch]
        kept: list[tuple[I, Any]] = []

        def work() -> None:
            for number, inputs in enumerate(batch, 1):
                result = self.run(role, inputs)
                if not _below(number):
                    kept[:] = [(inputs, result)]

        found = clock.seconds(work, self.device)
        if role == "candidate":
            self._last = kept[0]
            if versions != [self._versions(inputs) for inputs in batch]:
                raise Violation(WRITES)
        return found

    def try_out(self) -> None:
        """One call of the candidate, verified."""
        inputs = self.draw("candidate", 0)
        before = self._versions(inputs)
        result = self.run("candidate", inputs)
        if self._versions(inputs) != before:
            raise Violation(WRITES)
        self.verify(inputs, result)

    def _versions(self, inputs: I) -> list[int]:
        return [tensor._version for tensor in self.given(inputs)]

    def count(self, role: Role) -> Counted:
        """Count one call; the first one may have built tables that the second finds."""
        self.run(role, self.draw(role, 1))
        inputs = self.draw(role, 2)
        found = count(
            lambda: self.run(role, inputs), known=[*self.given(inputs), *self.owned(role)]
        )
        return Counted(
            operators=found.operators,
            flops=found.flops,
            allocated=found.allocated,
            peak=found.peak,
        )

    @cached_property
    def _rates(self) -> Rates:
        return Rates(self.device)

    def answer(self, ask: AnyAsk) -> Answer:
        """One answer to one line.

        Raises:
            Violation: the candidate's code is wrong.
        """
        match ask:
            case Prepare(work=work):
                self._last = None
                return self.prepare(work)  # type: ignore[arg-type]
            case Draw(role=role, calls=calls, number=number):
                self.draw_sample(role, calls, number)
                return Drawn()
            case Go():
                return Sampled(seconds=self.sample())
            case Verify():
                assert self._last is not None, "a sample comes first"
                self.verify(*self._last)
                return Verified()
            case Count(role=role):
                return self.count(role)
            case Rate(dtype=dtype, bytes=size, again=again):
                return self._rates.rated(dtype, size, again=again)
            case Open():
                raise AssertionError("it is open already")
