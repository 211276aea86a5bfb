"""The pytest plugin: the suite as pytest items, the decorator, and that nothing run is never green."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from holotype_conformance.judge.property import Case, Property, Violation
from holotype_conformance.models.claims import CLAIMS

pytestmark = pytest.mark.slow

ROGUE = Path(__file__).parents[1] / "rogue.py"
MODEL = """
from torch import nn

def build(spec):
    class Model(nn.Embedding):
        def forward(self, token_ids):
            return super().forward(token_ids)
    return Model(spec.vocab_size, spec.vocab_size)

def build_raises(spec):
    raise ValueError("no such layer")
"""
DECORATED = """
from holotype_conformance import parametrize_properties
import impl

@parametrize_properties(impl.build, spec=["gpt2", "llama-7b"], properties="group.*")
def test_mine(conformance_check):
    conformance_check()
"""


class Sizes(Case, frozen=True, kw_only=True):
    size: int


def holds(subject, case):
    pass


def fails(subject, case):
    if case.size >= 7:
        raise Violation("it is too large", size=case.size)


def hangs(subject, case):
    while True:
        pass


def suite(**checks):
    """A registry of made-up properties: slug (with __ for the dot and _ for the dash) -> check, reason or level."""
    properties = {}
    for name, check in checks.items():
        slug = name.replace("__", ".").replace("_", "-")
        reason = check if isinstance(check, str) else None
        properties[slug] = Property(
            slug=slug,
            clause="A clause.",
            level="should" if "should" in slug else "must",
            meaning="A meaning.",
            catches=(),
            needs=(),
            applies=lambda spec, reason=reason: reason,
            cases=lambda subject: st.builds(Sizes, size=st.integers(0, 50)),
            case_type=Sizes,
            check=check,
            examples=20,
        )
    return properties


@pytest.fixture
def inner(pytester, monkeypatch):
    """Runs pytest in a folder with an implementation, on a suite of made-up properties."""
    pytester.makepyfile(impl=MODEL)
    pytester.syspathinsert()

    def run(properties, *arguments, target="impl.py:build", specs=("gpt2",)):
        monkeypatch.setattr(CLAIMS, "_known", properties)
        given = [f"--holotype-spec={spec}" for spec in specs]
        given += [f"--holotype-target={target}"] if target else []
        return pytester.runpytest_inprocess(*given, *arguments, "-p", "no:cacheprovider")

    return run


WHOLE = ("--pyargs", "holotype_conformance")


def test_being_installed_costs_other_peoples_test_runs_no_heavy_import():
    heavy = "{'torch', 'hypothesis', 'numpy', 'msgspec', 'click', 'holotype_reference', 'holotype_spec'}"
    code = (
        f"import sys, holotype_conformance.pytest_plugin.plugin; print({heavy} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


# The suite ------------------------------------------------------------------------------------------------------


def test_each_property_of_each_spec_is_an_item_with_a_stable_name(inner):
    result = inner(
        suite(group__one=holds, other__two=holds),
        *WHOLE,
        "--collect-only",
        "-q",
        specs=("gpt2", "llama-7b"),
    )
    lines = [line.partition("::")[2] for line in result.outlines if "::" in line]
    assert lines == [
        "gpt2::group.one",
        "gpt2::other.two",
        "llama-7b::group.one",
        "llama-7b::other.two",
    ]


def test_the_suite_runs_from_any_folder_and_explains_what_fails(inner):
    result = inner(
        suite(group__one=holds, group__two=fails, group__three="no cache"), *WHOLE, "-rs"
    )
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "it is too large" in text
    assert "A meaning." in text
    assert (
        "holotype check impl.py:build --spec gpt2 --property group.two --case '{\"size\":7}'"
        in text
    )
    assert "no cache" in text
    assert "Traceback" not in text


def test_items_are_selected_by_glob_and_by_keyword(inner):
    properties = suite(group__one=holds, group__two=fails, other__one=holds)
    result = inner(properties, *WHOLE, "--holotype-property=group.*", "-k", "one")
    result.assert_outcomes(passed=1, deselected=1)


def test_a_given_case_alone_is_run(inner):
    arguments = (*WHOLE, "--holotype-property=group.two")
    small, large = ['--holotype-case={"size":6}', '--holotype-case={"size":7}']
    inner(suite(group__two=fails), *arguments, small).assert_outcomes(passed=1)
    inner(suite(group__two=fails), *arguments, large).assert_outcomes(failed=1)


def test_a_should_that_does_not_hold_is_reported_and_decides_nothing(inner):
    result = inner(suite(group__one=holds, group__should=fails), *WHOLE)
    result.assert_outcomes(passed=1, xfailed=1)
    assert result.ret == pytest.ExitCode.OK


def test_a_must_that_did_not_end_is_red_and_said_to_be_undecided(inner):
    result = inner(suite(group__one=holds, group__two=hangs), *WHOLE, "--holotype-timeout=0.3")
    result.assert_outcomes(passed=1, failed=1)
    assert "group.two (must, undecided)" in result.stdout.str()
    result = inner(suite(group__one=holds, group__should=hangs), *WHOLE, "--holotype-timeout=0.3")
    result.assert_outcomes(passed=1, xfailed=1)


def test_expected_failures_are_strict(inner, pytester):
    pytester.makefile(".toml", expected='"group.one" = "issue 1"\n"group.two" = "issue 2"\n')
    properties = suite(group__one=holds, group__two=fails)
    result = inner(properties, *WHOLE, "--holotype-expected-failures=expected.toml")
    result.assert_outcomes(failed=1, xfailed=1)
    assert "remove the entry" in " ".join(result.stdout.str().split())


def test_a_candidate_that_cannot_be_run_at_all_is_an_error_of_every_property(inner):
    result = inner(suite(group__one=holds, group__two=holds), *WHOLE, target="impl.py:build_raises")
    result.assert_outcomes(errors=2)
    assert "could not be run at all: build raised ValueError: no such layer" in result.stdout.str()


# Never green ----------------------------------------------------------------------------------------------------


def test_a_run_in_which_everything_was_skipped_is_not_green(inner):
    result = inner(suite(group__one="no cache"), *WHOLE)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "every property was skipped, so that nothing was judged" in result.stdout.str()


def test_a_run_in_which_no_number_was_compared_is_not_green(inner, pytester):
    without = suite(agreement__logits="it defines no load", group__one=holds)
    result = inner(without, *WHOLE)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "undecided, because no number was compared with those of gpt2" in result.stdout.str()
    assert inner(without, *WHOLE, specs=("causal-decoder",)).ret == pytest.ExitCode.OK
    assert inner(without, *WHOLE, "--holotype-property=group.*").ret == pytest.ExitCode.OK
    assert inner(suite(agreement__logits=holds, agreement__x="no"), *WHOLE).ret == 0
    pytester.makepyfile(test_mine=DECORATED.replace(', properties="group.*"', ""))
    result = inner(without, "test_mine.py", target=None, specs=())
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "with those of gpt2, llama-7b: an adapter" in result.stdout.str()


def test_a_target_without_the_suite_is_not_green(inner, pytester):
    pytester.makepyfile(test_other="def test_other(): pass")
    result = inner(suite(group__one=holds), "test_other.py")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "add --pyargs holotype_conformance" in result.stdout.str()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"target": None}, "give --holotype-target TARGET and --holotype-spec SPEC"),
        ({"specs": ()}, "give --holotype-target TARGET and --holotype-spec SPEC"),
        ({"specs": ("gtp2",)}, "unknown spec 'gtp2': did you mean gpt2"),
        ({"target": "impl.py:biuld"}, "did you mean build"),
    ],
)
def test_a_request_that_makes_no_sense_is_an_error_in_one_line(inner, facts, said):
    result = inner(suite(group__one=holds), *WHOLE, **facts)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert said in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_other_peoples_tests_are_left_alone(inner, pytester):
    pytester.makepyfile(test_other="def test_other(): pass")
    result = inner(suite(group__one=holds), "test_other.py", target=None, specs=())
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


# The decorator --------------------------------------------------------------------------------------------------


def test_the_decorator_makes_one_test_of_each_property_and_spec(inner, pytester):
    pytester.makepyfile(test_mine=DECORATED)
    properties = suite(
        group__one=holds, group__two=fails, group__three="no cache", other__one=holds
    )
    result = inner(properties, "test_mine.py", "-v", target=None, specs=())
    result.assert_outcomes(passed=2, failed=2, skipped=2)
    text = result.stdout.str()
    assert "test_mine[gpt2::group.one] PASSED" in text
    assert "test_mine[llama-7b::group.two] FAILED" in text
    assert (
        "holotype check impl.py:build --spec gpt2 --property group.two --case '{\"size\":7}'"
        in text
    )


def test_a_decorated_test_that_only_skips_is_not_green(inner, pytester):
    pytester.makepyfile(test_mine=DECORATED)
    result = inner(suite(group__one="no cache"), "test_mine.py", target=None, specs=())
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_the_suite_runs_in_the_processes_of_xdist(pytester):
    """The made-up suite of rogue.py, which it registers in whatever process imports it."""
    result = pytester.runpytest_subprocess(
        *WHOLE,
        f"--holotype-target={ROGUE}:build",
        "--holotype-spec=gpt2",
        "--holotype-property=mood.w*",
        "-n1",
        "-p",
        "no:cacheprovider",
    )
    result.assert_outcomes(passed=2)  # well, warns
    assert result.ret == pytest.ExitCode.OK
