"""In pytest a candidate that leaves is red, whatever it leaves by, and so is a test that judges nothing."""

import os
from typing import Any

import pytest

from holotype_conformance.judge.records import Request
from holotype_conformance.models.targets import as_candidate
from holotype_conformance.pytest_plugin import isolated
from holotype_conformance.pytest_plugin.isolated import IsolatedRun, exit_raises
from holotype_conformance.pytest_plugin.parametrize import parametrize_properties
from holotype_conformance.run.session import Session
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

LEAVING = """
import ctypes, os, signal, sys
import pytest
from torch import nn
from holotype_conformance import parametrize_properties

def leaving(leave):
    def build(spec):  # a closure, which no other process could import
        class Model(nn.Embedding):
            def forward(self, token_ids):
                if token_ids.shape[1] > 3:
                    leave()
                return super().forward(token_ids)
        return Model(spec.vocab_size, spec.vocab_size)
    return build

def stay():
    pass
"""
WAYS = {
    "os._exit": "lambda: os._exit(0)",
    "the C library": "lambda: ctypes.CDLL(None)._exit(0)",
    "SIGKILL": "lambda: os.kill(os.getpid(), signal.SIGKILL)",
    "sys.exit": "lambda: sys.exit(0)",
    "pytest.skip": "lambda: pytest.skip('not today')",
    "pytest.importorskip": "lambda: pytest.importorskip('there_is_none')",
    "pytest.xfail": "lambda: pytest.xfail('known')",
    "pytest.exit": "lambda: pytest.exit('bye', returncode=0)",
}
DECORATED = """
@parametrize_properties(leaving({leave}), spec="gpt2", properties="modes.no-grad")
def test_{name}(conformance_check):
    {body}
"""


def test_what_leaves_or_judges_nothing_is_red_and_the_rest_is_judged(
    pytester: pytest.Pytester,
) -> None:
    call = "conformance_check()"
    tests = [
        DECORATED.format(leave=leave, name=f"way_{number}", body=call)
        for number, leave in enumerate(WAYS.values())
    ]
    tests.append(DECORATED.format(leave="stay", name="staying", body=call))
    tests.append(DECORATED.format(leave="stay", name="never_calling", body="pass"))
    pytester.makepyfile(test_it=LEAVING + "".join(tests))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=len(WAYS) + 1, passed=1)
    result.stdout.fnmatch_lines(["*never called conformance_check(), so that nothing was judged*"])


def test_an_import_that_leaves_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(gone="import os\nos._exit(0)\n")
    arguments = ("--pyargs", "holotype_conformance", "--holotype-spec", "gpt2")
    result = pytester.runpytest_subprocess(*arguments, "--holotype-target", "gone.py:build")
    assert result.ret not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert "SystemExit" in str(result.stdout) + str(result.stderr)


def build(spec: Spec) -> Any:
    os._exit(0)


@pytest.mark.parametrize("nothing", [[], (), ""])
def test_no_spec_and_no_property_are_refused(nothing: Any) -> None:
    with pytest.raises(ValueError, match="names no spec"):
        parametrize_properties(build, spec=nothing)
    with pytest.raises(ValueError, match="selects none"):
        parametrize_properties(build, spec="gpt2", properties=nothing)


@pytest.fixture
def leaves_in_build() -> IsolatedRun:
    request = Request(target="mine", specs=("gpt2",), properties=("modes.kept",))
    return IsolatedRun(Session(request, as_candidate(build, "mine")))


def test_a_first_build_that_leaves_makes_the_candidate_unusable(
    leaves_in_build: IsolatedRun,
) -> None:
    spec = leaves_in_build.specs[0]
    with pytest.raises(isolated.CandidateUnusable, match="its process exited with status 0"):
        leaves_in_build.smoke(spec)


def test_without_a_copy_leaving_raises(
    leaves_in_build: IsolatedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_can_fork", lambda device: False)
    result = leaves_in_build.judge(leaves_in_build.specs[0], leaves_in_build.properties[0])
    assert result.outcome == "failed"
    assert "os._exit(0)" in (result.reason or "")


def test_leaving_is_possible_again_afterwards() -> None:
    leave = os._exit
    with exit_raises():
        assert os._exit is not leave
    assert os._exit is leave
