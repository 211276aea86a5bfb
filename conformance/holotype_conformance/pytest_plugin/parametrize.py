"""The suite inside a test file of one's own: one test function, parametrised over the properties."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from holotype_conformance.judge.property import Property
from holotype_conformance.judge.records import DType, Profile, Request
from holotype_conformance.models.targets import as_candidate, resolve
from holotype_conformance.pytest_plugin.isolated import IsolatedRun, exit_raises
from holotype_conformance.pytest_plugin.items import conclude
from holotype_conformance.run.session import Session
from holotype_spec.schema import Spec


class Check:
    """One property of one spec, to be called.

    It raises `AssertionError` where the property does not hold, or where it must and is undecided, and skips where it
    says nothing.
    """

    def __init__(self, run: IsolatedRun, spec: Spec, property_: Property) -> None:
        self.run = run
        self.spec = spec
        self.property = property_
        self.outcome: str | None = None

    def __call__(self) -> None:
        __tracebackhide__ = True
        result = self.run.judge(self.spec, self.property)
        self.outcome = result.outcome
        conclude(result)

    def __repr__(self) -> str:
        return f"{self.spec.name}::{self.property.slug}"


def parametrize_properties(
    candidate: Any,
    *,
    spec: str | Sequence[str],
    properties: str | Sequence[str] | None = None,
    profile: Profile = "quick",
    seed: int = 0,
    device: str = "cpu",
    dtypes: Sequence[DType] = (),
    timeout: float = 60.0,
    expected_failures: dict[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Parametrise a test over the properties of the suite.

    The candidate is judged in a copy of the process that is made before it is first called, so that one that crashes or
    leaves fails its property and ends nothing. What fixtures change later does not reach it.

    The test takes one argument, ``conformance_check``, and calls it; one that passes without having done so fails::

        @parametrize_properties(build, spec="gpt2")
        def test_mine(conformance_check):
            conformance_check()

    Args:
        candidate: a build function, a `Candidate` object or class, or a target as on the command line.
        spec: the name of what it claims to be, or several.
        properties: globs that select properties; all by default, and never none.
        profile: quick, or full with ten times the cases.
        seed: same seed, same cases and weights.
        device: where models live.
        dtypes: compare numbers in these only; all by default.
        timeout: seconds for one property, 0 for no limit.
        expected_failures: slug -> reason; strict.

    Raises:
        TargetError: the candidate is not something that can be checked.
        ValueError: no spec or an unknown one, no glob or one that matches nothing.
    """
    if not spec:
        raise ValueError(
            f"spec={spec!r} names no spec, so that nothing would be judged; expected one, or several"
        )
    if properties is not None and not properties:
        raise ValueError(
            f"properties={properties!r} selects none, so that nothing would be judged; leave it out for all of them"
        )
    named = isinstance(candidate, str)
    target = candidate if named else _target_of(candidate)
    request = Request(
        target=target,
        specs=_words(spec),
        properties=_words(properties or ()),
        profile=profile,
        seed=seed,
        device=device,
        dtypes=tuple(dtypes),
        limit=timeout,
        expected=expected_failures or {},
    )
    with exit_raises():  # importing a target runs its code here
        found = resolve(candidate) if named else as_candidate(candidate, target)
        run = IsolatedRun(Session(request, found))
    checks = [Check(run, spec, property_) for spec in run.specs for property_ in run.properties]
    return pytest.mark.parametrize("conformance_check", checks, ids=repr)


def _words(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _target_of(candidate: Callable[..., Any] | object) -> str:
    """The target by which the command line would name it, as far as that can be known."""
    named = candidate if hasattr(candidate, "__qualname__") else type(candidate)
    try:
        path = Path(inspect.getfile(named))  # type: ignore[arg-type]
    except (TypeError, OSError):
        return repr(candidate)
    return f"{os.path.relpath(path)}:{named.__qualname__}"
