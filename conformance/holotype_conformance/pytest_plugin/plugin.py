"""The pytest plugin: the suite as a collectable file, its options, and the rule that nothing run is never green.

It is loaded in every pytest run of anyone who installs us, so it imports nothing but pytest until it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from holotype_conformance.pytest_plugin.stash import RESULT

PACKAGE = Path(__file__).parents[1]
SUITE = Path(__file__).with_name("items.py")
_ATTRIBUTE = "holotype_outcome"
_COMPARES = "holotype_compares"
_RAN = ("passed", "failed", "expected-failure", "unexpected-pass")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(
        "holotype", "conformance of language models (--pyargs holotype_conformance)"
    )
    add = group.addoption
    add(
        "--holotype-target",
        metavar="TARGET",
        help="the implementation: module:attribute, file.py:attribute, hf, …",
    )
    add(
        "--holotype-kernel",
        metavar="TARGET",
        help="an attention kernel instead of a model, as for holotype check-attention",
    )
    add(
        "--holotype-spec",
        action="append",
        default=[],
        metavar="SPEC",
        help="what it claims to be; may be repeated",
    )
    add(
        "--holotype-property",
        action="append",
        default=[],
        metavar="GLOB",
        help="only these properties; may be repeated",
    )
    add(
        "--holotype-profile",
        choices=("quick", "full"),
        default="quick",
        help="how many cases are drawn",
    )
    add(
        "--holotype-seed",
        type=int,
        default=0,
        metavar="N",
        help="same seed, same cases and weights",
    )
    add("--holotype-case", metavar="JSON", help="run exactly this case of one property")
    add("--holotype-device", default="cpu", metavar="DEVICE", help="where models live: cpu, cuda")
    add(
        "--holotype-dtype",
        action="append",
        choices=("float64", "float32", "bfloat16", "float16"),
        default=[],
        help="compare numbers in this dtype only; may be repeated",
    )
    add(
        "--holotype-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="limit for one property, 0 for none",
    )
    add("--holotype-expected-failures", metavar="FILE", help='TOML lines, "property" = "reason"')


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    collected = yield
    if PACKAGE not in file_path.parents:
        return collected
    if file_path != SUITE or not _asked_for(parent):
        return []
    from holotype_conformance.pytest_plugin.items import SuiteFile

    return [SuiteFile.from_parent(parent, path=file_path)]


def _asked_for(parent: pytest.Collector) -> bool:
    """Whether the suite was named, or a target was: ``pytest .`` in our own repository means neither."""
    named = parent.session.isinitpath(PACKAGE) or parent.session.isinitpath(SUITE)
    return named or _given(parent.config)


def _given(config: pytest.Config) -> bool:
    """Whether a model or a kernel was named."""
    options = ("holotype_target", "holotype_kernel")
    return any(config.getoption(name) is not None for name in options)


# Never green without a verdict ------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and report.passed and _never_called(item):
        report.outcome = "failed"
        said = "never called conformance_check(), so that nothing was judged"
        report.longrepr = f"{item.name} {said}; expected it to call its argument"
    outcome = _outcome(item)
    if call.when == "call" and outcome is not None:
        setattr(report, _ATTRIBUTE, outcome)  # travels from the workers of pytest-xdist
        setattr(report, _COMPARES, _compares(item))
    return report


def _outcome(item: pytest.Item) -> str | None:
    check = _check(item)
    return item.stash.get(RESULT, None) if check is None else check.outcome


def _check(item: pytest.Item) -> Any:
    """The target of a decorated test of someone's own, or None."""
    parametrize = sys.modules.get("holotype_conformance.pytest_plugin.parametrize")
    if parametrize is None:
        return None
    parameters: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    checks = [value for value in parameters.values() if isinstance(value, parametrize.Check)]
    return checks[0] if checks else None


def _compares(item: pytest.Item) -> str | None:
    """The spec with whose numbers the item's property compares, or None."""
    from holotype_conformance.judge.verdict import COMPARISONS

    judged: Any = item if _check(item) is None else _check(item)
    generic = getattr(getattr(judged.spec, "family", None), "generic", True)
    compares = judged.property.slug.startswith(COMPARISONS) and not generic
    return judged.spec.name if compares else None


def _never_called(item: pytest.Item) -> bool:
    """Whether it is a decorated test that has not called its argument."""
    check = _check(item)
    return check is not None and check.outcome is None


class _Counting:
    """Counts verdicts; under pytest-xdist in the process that collects the reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.outcomes: list[str] = []
        self.compared: dict[
            str, list[str]
        ] = {}  # by spec, the outcomes of what compares with its numbers

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        outcome = getattr(report, _ATTRIBUTE, None)
        if outcome is not None:
            self.outcomes.append(outcome)
            spec = getattr(report, _COMPARES, None)
            self.compared.setdefault(spec or "", []).append(outcome)

    @property
    def complaint(self) -> str | None:
        if any(outcome in _RAN for outcome in self.outcomes):
            return self._uncompared
        if self.outcomes:
            return "holotype: every property was skipped, so that nothing was judged"
        if _given(self.config):
            return "holotype: a target was given, but no property ran (add --pyargs holotype_conformance)"
        return None

    @property
    def _uncompared(self) -> str | None:
        """The undecided results where no number was compared, though some were to be."""
        compared = {spec: outcomes for spec, outcomes in self.compared.items() if spec}
        specs = [spec for spec, outcomes in compared.items() if set(outcomes) == {"skipped"}]
        if not specs:
            return None
        return (
            f"holotype: undecided, because no number was compared with those of {', '.join(specs)}: an adapter's"
            " `load` can hand weights over, and --holotype-property or a generic spec asks only for what needs none"
        )

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        quiet = hasattr(self.config, "workerinput") or self.config.option.collectonly
        if exitstatus == pytest.ExitCode.OK and self.complaint and not quiet:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: int
    ) -> None:
        green = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if green and self.complaint and not self.config.option.collectonly:
            terminalreporter.write_line(self.complaint, red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Counting(config), "holotype-counting")
