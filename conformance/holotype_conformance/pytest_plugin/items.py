"""The suite as pytest sees it: a file, in it the specs, in each the properties.

``pytest --pyargs holotype_conformance --holotype-target T --holotype-spec S`` collects this file through
`holotype_conformance.pytest_plugin.plugin`; the items are called ``…items.py::<spec>::<property>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from holotype_conformance.judge.expected_failures import ExpectedError, read_expected
from holotype_conformance.judge.guard import CandidateUnusable
from holotype_conformance.judge.importing import TargetError
from holotype_conformance.judge.property import Property
from holotype_conformance.judge.records import Kind, Request, Result
from holotype_conformance.pytest_plugin.isolated import IsolatedRun, exit_raises
from holotype_conformance.pytest_plugin.stash import RESULT
from holotype_conformance.report.text import failure_text
from holotype_conformance.run.session import RequestError, Session
from holotype_conformance.suites import suite_of
from holotype_spec.schema import Spec

RUN = pytest.StashKey[Session | IsolatedRun]()


class PropertyFailed(AssertionError):
    """A property does not hold; the message is what a person reads."""


class PropertyUndecided(AssertionError):
    """A property that must hold is open: pytest has no word between red and green, and this is red."""


class SuiteFile(pytest.File):
    """Everything that was asked for on the command line."""

    def collect(self) -> Iterator[SpecNode]:
        run = run_of(self.config)
        for spec in run.specs:
            yield SpecNode.from_parent(self, name=spec.name, run=run, spec=spec)

    def repr_failure(self, excinfo, style=None):  # type: ignore[no-untyped-def]
        refused = isinstance(excinfo.value, pytest.UsageError)
        return str(excinfo.value) if refused else super().repr_failure(excinfo)


class SpecNode(pytest.Collector):
    """The properties of one spec; the candidate is run once before the first of them."""

    def __init__(self, *, run: Session | IsolatedRun, spec: Spec, **keywords: object) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]
        self.run = run
        self.spec = spec

    def collect(self) -> Iterator[PropertyItem]:
        for property_ in self.run.properties:
            yield PropertyItem.from_parent(
                self, name=property_.slug, run=self.run, spec=self.spec, property_=property_
            )

    def setup(self) -> None:
        try:
            self.run.smoke(self.spec)
        except CandidateUnusable as error:
            pytest.fail(f"the candidate could not be run at all: {error}", pytrace=False)


class PropertyItem(pytest.Item):
    """One property under one spec."""

    def __init__(
        self, *, run: Session | IsolatedRun, spec: Spec, property_: Property, **keywords: object
    ) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]
        self.run = run
        self.spec = spec
        self.property = property_

    def runtest(self) -> None:
        result = self.run.judge(self.spec, self.property)
        self.stash[RESULT] = result.outcome
        conclude(result)

    def repr_failure(self, excinfo, style=None):  # type: ignore[no-untyped-def]
        if isinstance(excinfo.value, (PropertyFailed, PropertyUndecided)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.spec.name}::{self.name}"


def conclude(result: Result) -> None:
    """Say a result in pytest's terms. A `should` that failed or is open is reported, and decides nothing."""
    __tracebackhide__ = True
    if result.outcome == "passed":
        return
    if result.outcome == "skipped":
        pytest.skip(result.reason or "")
    if result.undecided:
        raise PropertyUndecided(failure_text(result))
    if result.outcome == "expected-failure":
        pytest.xfail(result.reason or "")
    if not result.breaks:
        pytest.xfail(f"{result.property} should hold: {result.reason}")
    raise PropertyFailed(failure_text(result))


def run_of(config: pytest.Config) -> Session | IsolatedRun:
    """The run that the options describe."""
    if RUN not in config.stash:
        config.stash[RUN] = _run_from_options(config)
    return config.stash[RUN]


def _run_from_options(config: pytest.Config) -> IsolatedRun:
    target = config.getoption("holotype_target")
    kernel = config.getoption("holotype_kernel")
    specs = config.getoption("holotype_spec")
    if kernel and (target or specs):
        _refuse(
            "a kernel has no spec: give --holotype-kernel TARGET alone, or a target and its specs"
        )
    if not kernel and not (target and specs):
        _refuse(
            "holotype_conformance checks one target against one spec or several:"
            " give --holotype-target TARGET and --holotype-spec SPEC, or --holotype-kernel TARGET"
        )
    try:
        with exit_raises():  # importing a target runs its code here
            run = (
                _session(config, kernel, ("attention",), "attention")
                if kernel
                else _session(config, target, specs)
            )
        return IsolatedRun(run)
    except (TargetError, RequestError, ExpectedError, ValueError) as error:
        _refuse(str(error))


def _session(
    config: pytest.Config, target: str, specs: Sequence[str], kind: Kind = "model"
) -> Session:
    request = Request(target=target, specs=tuple(specs), kind=kind, **_asked(config))
    return Session(request, suite_of(kind).resolve(target))


def _asked(config: pytest.Config) -> dict[str, Any]:
    """The options that a model and a kernel have in common."""
    expected = config.getoption("holotype_expected_failures")
    return {
        "properties": tuple(config.getoption("holotype_property")),
        "profile": config.getoption("holotype_profile"),
        "seed": config.getoption("holotype_seed"),
        "device": config.getoption("holotype_device"),
        "dtypes": tuple(config.getoption("holotype_dtype")),
        "case": config.getoption("holotype_case"),
        "limit": config.getoption("holotype_timeout"),
        "expected": read_expected(Path(expected)) if expected else {},
    }


def _refuse(message: str) -> NoReturn:
    raise pytest.UsageError(f"holotype: {message}")
