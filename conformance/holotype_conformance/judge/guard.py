"""The guard around a candidate's code: whatever it raises becomes a `Violation` of the property that was checked.

That includes what is no `Exception`. An exit, an interrupt, a skip of pytest or an exception of Hypothesis or of ours
that a candidate raises is no answer, and none of it may end, skip or pass a property in our name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from holotype_conformance.judge.process_state import settled
from holotype_conformance.judge.property import Skip, SuiteFault, Violation
from holotype_conformance.judge.texts import message_of, type_of
from holotype_conformance.judge.time_limit import TimedOut, is_time_up
from holotype_reference.weights import Weights
from holotype_spec.field_names import ours
from holotype_spec.schema import Spec

# By what others that run tests are steered: the classes that they raise to skip, end or give up something.
_STEERING = {
    "pytest": ("_pytest.outcomes.",),
    "Hypothesis": (
        "hypothesis.errors.UnsatisfiedAssumption",
        "hypothesis.errors.StopTest",
        "hypothesis.errors.Frozen",
    ),
    "unittest": ("unittest.case.SkipTest",),
}


class CandidateUnusable(Exception):
    """The candidate could not be run at all; the message says what it did."""


class Evasion(Violation):
    """In place of an answer the candidate tried to end the process, the test or the case.

    Unlike a wrong answer this is never an expected failure.
    """


class _Interrupts:
    """Whether an interrupt can come from the keyboard: not in a process that has a session of its own."""

    expected = True


def expect_no_interrupts() -> None:
    """From now on a `KeyboardInterrupt` is the candidate's."""
    _Interrupts.expected = False


def is_ours(error: BaseException) -> bool:
    """Whether an exception is meant for us, and must go on: the end of a limit, or an interrupt by the user."""
    return is_time_up(error) or (_Interrupts.expected and type(error) is KeyboardInterrupt)


@contextmanager
def candidate_code(what: str) -> Iterator[None]:
    """Turn whatever the candidate raises, its exits included, into a `Violation`, and put back what it sets."""
    try:
        with settled():
            yield
    except Violation:
        raise
    except BaseException as error:
        if is_ours(error):
            raise
        if _handing_over(error):
            raise SuiteFault(
                "the suite cannot hand over weights under their published names:"
                f" {message_of(error)}"
            ) from error
        raise violation_of(error, what) from error


def _handing_over(error: BaseException | None) -> bool:
    """Whether it was raised by our own code, while a candidate asked for the published names of its weights."""
    while error is not None:
        frames = walk_tb(error.__traceback__)
        if any(frame.f_code is Weights.published.__code__ for frame, _ in frames):
            return True
        error = error.__cause__ or error.__context__
    return False


def violation_of(error: BaseException, what: str) -> Violation:
    """An error that `what` raised, as a violation."""
    said = f"{what} raised {type_of(error)}: {message_of(error)}{_named_here(error)}"
    owner = _steered_by(error)
    if owner is not None:
        return Evasion(f"{said} (which steers {owner}; expected an answer or an error)")
    if not isinstance(error, Exception):
        return Evasion(f"{said} (which is no Exception; expected an answer or an error)")
    return Violation(said)


def _steered_by(error: BaseException) -> str | None:
    """The one who takes an exception for something else than an error, by the classes that it has."""
    if isinstance(error, (Skip, SuiteFault, TimedOut)):
        return "holotype"
    for each in type(error).__mro__:
        name = f"{each.__module__}.{each.__qualname__}"
        for owner, prefixes in _STEERING.items():
            if name.startswith(prefixes):
                return owner
    return None


def _named_here(error: BaseException) -> str:
    """Of a field that a spec was asked for by the name that it has elsewhere, the name that it has here."""
    if not isinstance(error, AttributeError) or not isinstance(error.obj, Spec):
        return ""
    field = ours(error.name or "")
    return (
        f"; a spec calls it {field}"
        if field
        else "; `holotype show SPEC --json` lists the fields of a spec"
    )
