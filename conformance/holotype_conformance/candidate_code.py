"""What candidate code raises: a violation of the property that was being checked, unless it was ours to raise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from holotype_conformance.process_state import settled
from holotype_conformance.property import SuiteFault, Violation
from holotype_reference.weights import Weights
from holotype_spec.field_names import ours
from holotype_spec.schema import Spec


@contextmanager
def candidate_code(what: str) -> Iterator[None]:
    """Turn whatever the candidate raises, its exits included, into a `Violation`, and put back what it sets."""
    try:
        with settled():
            yield
    except Violation:
        raise
    except (Exception, SystemExit) as error:
        message = str(error).strip().split("\n")[0] or "no message"
        if _handing_over(error):
            raise SuiteFault(
                f"the suite cannot hand over weights under their published names: {message}"
            ) from error
        raise Violation(
            f"{what} raised {type(error).__name__}: {message}{_named_here(error)}"
        ) from error


def _handing_over(error: BaseException | None) -> bool:
    """Whether it was raised by our own code, while a candidate asked for the published names of its weights."""
    while error is not None:
        frames = walk_tb(error.__traceback__)
        if any(frame.f_code is Weights.published.__code__ for frame, _ in frames):
            return True
        error = error.__cause__ or error.__context__
    return False


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
