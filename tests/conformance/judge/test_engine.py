"""The engine: how one property is judged. In this process, on subjects and properties made up for the purpose."""

import contextlib
import itertools
import os
import time
import warnings

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers

from holotype_conformance.judge.engine import CaseError, Settings, judge
from holotype_conformance.judge.expected_failures import (
    ExpectedError,
    expect,
    expectation,
    mark_stale,
    read_expected,
    stale,
)
from holotype_conformance.judge.property import ALL_DTYPES, Case, Property, Skip, Violation
from holotype_conformance.judge.records import Result
from holotype_conformance.judge.subject import Subject
from holotype_conformance.judge.time_limit import TimedOut, time_limit
from holotype_conformance.models.properties import all_properties
from holotype_conformance.run.session import RequestError, check_device, select


class Sizes(Case, frozen=True, kw_only=True):
    size: int
    other: int = 0


CASES = st.builds(Sizes, size=st.integers(0, 1000), other=st.integers(0, 1000))


def claim(check, *, examples=20, cases=CASES, needs=(), applies=lambda spec: None, **facts):
    return Property(
        slug="group.claim",
        clause="A clause.",
        level="must",
        meaning="A meaning.",
        catches=(),
        needs=needs,
        applies=applies,
        cases=lambda subject: cases,
        case_type=Sizes,
        check=check,
        examples=examples,
        **facts,
    )


def subject(**capabilities):
    made_up = Subject()
    made_up.spec, made_up.seed, made_up.asked = None, 0, ALL_DTYPES
    made_up.capabilities = capabilities
    return made_up


def run(check, *, settings=None, **facts):
    return judge(subject(), claim(check, **facts), settings or Settings())


def collected(seed):
    seen = []
    run(lambda subject, case: seen.append(case), settings=Settings(seed=seed))
    return seen


# Cases ----------------------------------------------------------------------------------------------------------


def test_a_failure_is_shrunk_to_the_smallest_case():
    def check(subject, case):
        if case.size >= 37:
            raise Violation(f"too big: {case.size}", excess=case.size - 36)

    result = run(check)
    assert (result.outcome, result.reason) == ("failed", "too big: 37")
    assert result.counterexample.case == {"size": 37, "other": 0}
    assert result.counterexample.facts == {"excess": 1}


def test_the_same_seed_draws_the_same_cases_and_another_seed_others():
    assert collected(3) == collected(3)
    assert collected(3) != collected(4)


def test_the_full_profile_draws_ten_times_the_cases():
    assert run(lambda subject, case: None).cases == 20
    full = run(lambda subject, case: None, settings=Settings(profile="full"))
    assert full.cases == pytest.approx(200, abs=5)  # less the few that are drawn twice


def test_a_given_case_alone_is_run():
    seen = []
    result = run(lambda subject, case: seen.append(case), settings=Settings(case='{"size": 8}'))
    assert seen == [Sizes(size=8)]
    assert (result.outcome, result.cases) == ("passed", 1)


@pytest.mark.parametrize("text", ['{"length": 3}', '{"size": "x"}', "[", "3"])
def test_a_case_of_something_else_is_refused_with_the_fields_that_were_expected(text):
    with pytest.raises(CaseError, match="expected a JSON object of size, other"):
        run(lambda subject, case: None, settings=Settings(case=text))


def test_a_candidate_that_answers_differently_each_time_fails_as_first_seen_and_is_not_an_error():
    answers = itertools.cycle([False, True, False])

    def check(subject, case):
        if next(answers):
            raise Violation("sometimes")

    assert (run(check).outcome, run(check).reason) == ("failed", "sometimes")


class Numbers(Case, frozen=True, kw_only=True):
    numbers: tuple[int, ...]


@pytest.mark.slow
def test_shrinking_ends_for_candidates_that_fail_in_endless_ways():
    """Sixty numbers, each with a long way to its smallest value: Hypothesis alone would try five hundred."""
    calls = itertools.count()

    def check(subject, case):
        if next(calls) > 5 and all(number % 7 for number in case.numbers):
            raise Violation("always another way")

    many = st.lists(st.integers(10**6, 10**9), min_size=60, max_size=60).map(tuple)
    result = run(check, cases=st.builds(Numbers, numbers=many), examples=500)
    assert result.outcome == "failed"
    assert next(calls) < 500


@pytest.mark.slow
def test_nothing_is_written_to_the_folder_of_the_caller(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(lambda subject, case: None, settings=Settings(profile="full"))
    assert os.listdir(tmp_path) == []


def test_what_stands_in_the_callers_modules_has_no_effect_on_the_cases(monkeypatch):
    """Hypothesis would read them all, and mix their numbers in."""

    def read():
        raise LookupError("read the modules of the caller")

    monkeypatch.setattr(providers, "_get_local_constants", read)
    assert run(lambda subject, case: None, settings=Settings(profile="full")).outcome == "passed"


def test_each_case_is_announced_before_it_runs():
    order = []
    settings = Settings(trying=lambda case: order.append(case["size"]))

    def check(subject, case):
        assert order[-1] == case.size
        order.append("ran")

    run(check, settings=settings, examples=3)
    assert order[1::2] == ["ran"] * 3


# Verdicts -------------------------------------------------------------------------------------------------------


def test_a_mistake_of_the_check_is_an_error_with_its_traceback_and_not_a_failure():
    def check(subject, case):
        raise KeyError("ours")

    result = run(check)
    assert result.outcome == "error"
    assert result.reason == "the check itself raised KeyError: 'ours'"
    assert 'raise KeyError("ours")' in result.details
    assert result.fault
    assert result.undecided
    assert not result.breaks


def test_an_assertion_of_our_own_is_an_error_and_not_a_failure():
    def check(subject, case):
        raise AssertionError

    assert run(check).outcome == "error"


def test_a_property_that_does_not_apply_is_skipped_with_its_reason():
    result = run(None, applies=lambda spec: "the spec has no cache")
    assert (result.outcome, result.reason) == ("skipped", "the spec has no cache")
    assert not result.ran


def test_a_skip_without_a_reason_is_an_error():
    assert run(None, applies=lambda spec: "").outcome == "error"


def test_a_missing_capability_skips_with_the_reason_why_it_is_missing():
    property_ = claim(lambda subject, case: None, needs=("cache",))
    assert judge(subject(cache=None), property_, Settings()).outcome == "passed"
    without = judge(subject(cache="it has none"), property_, Settings())
    assert (without.outcome, without.reason) == ("skipped", "it has none")


def test_a_check_that_can_say_nothing_on_this_machine_is_skipped_with_its_reason():
    calls = []

    def check(subject, case):
        calls.append(case)
        raise Skip("no CUDA device")

    result = run(check)
    assert (result.outcome, result.reason) == ("skipped", "no CUDA device")
    assert len(calls) == 1


def test_a_property_of_other_dtypes_than_those_asked_for_is_skipped():
    asked = subject()
    asked.asked = ("bfloat16",)
    property_ = claim(lambda subject, case: None, dtypes=("float64", "float32"))
    result = judge(asked, property_, Settings())
    assert result.outcome == "skipped"
    assert result.reason == "it runs in float64 or float32, which --dtype leaves out"
    anything = claim(lambda subject, case: None, dtypes=())
    assert judge(asked, anything, Settings()).outcome == "passed"


@pytest.mark.parametrize(
    ("settings", "cases"),
    [
        (Settings(), 0),
        (Settings(named=True), 4),
        (Settings(profile="full"), 4),
        (Settings(case='{"size":1}'), 1),
    ],
)
def test_what_is_costly_runs_on_demand_only_and_no_oftener_then(settings, cases):
    result = run(lambda subject, case: None, costly=True, examples=4, settings=settings)
    assert result.outcome == ("passed" if cases else "skipped")
    assert result.cases == cases
    assert cases or "--profile full" in result.reason


def test_a_candidate_that_fails_while_it_is_asked_what_it_can_do_fails_the_property():
    class Failing(Subject):
        spec, seed, asked = None, 0, ALL_DTYPES

        @property
        def capabilities(self):
            raise Violation("build raised ValueError: no")

    result = judge(Failing(), claim(None, needs=("cache",)), Settings())
    assert (result.outcome, result.reason) == ("failed", "build raised ValueError: no")


@pytest.mark.slow
def test_a_property_that_accepts_no_case_is_an_error_and_not_a_pass():
    nothing = CASES.filter(lambda case: False)
    assert run(lambda subject, case: None, cases=nothing).outcome == "error"


def test_the_candidates_own_traceback_is_kept():
    def check(subject, case):
        try:
            raise RuntimeError("deep inside")
        except RuntimeError as error:
            raise Violation("forward raised") from error

    assert "RuntimeError: deep inside" in run(check).details


def test_measurements_that_json_cannot_carry_become_text():
    def check(subject, case):
        raise Violation(
            "no", nan=float("nan"), tensor=torch.tensor(2.5), row=torch.tensor([1, 2]), what=dict
        )

    facts = run(check).counterexample.facts
    assert facts == {"nan": "nan", "tensor": 2.5, "row": [1, 2], "what": "<class 'dict'>"}


def test_what_a_candidate_sets_for_the_whole_process_is_put_back():
    def check(subject, case):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        warnings.warn("spam", stacklevel=1)  # an error in this test run, were it not kept away

    threads = torch.get_num_threads()
    assert run(check).outcome == "passed"
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads


# Time -----------------------------------------------------------------------------------------------------------


def spin():
    while True:
        pass


@pytest.mark.parametrize("wait", [lambda: time.sleep(60), spin])
def test_what_does_not_end_is_undecided_at_the_limit_with_the_case_under_way(wait):
    def check(subject, case):
        if case.size > 0:
            wait()

    result = run(check, settings=Settings(limit=0.2))
    assert result.outcome == "undecided"
    assert result.reason.startswith("no end within 0.2 s: case ")
    assert result.counterexample.case["size"] > 0
    assert 0.15 < result.seconds < 30


def test_a_limit_that_is_reached_while_shrinking_keeps_the_failure_found():
    failed = []

    def check(subject, case):
        if case.size >= 500:
            failed.append(case)
            raise Violation("large")
        if failed:
            time.sleep(60)

    result = run(check, settings=Settings(limit=0.5))
    assert result.reason.startswith("large (the search for a smaller case stopped")


def test_a_limit_inside_another_leaves_the_outer_one_standing():
    def outer():
        with time_limit(0.3):
            with time_limit(30):
                pass
            time.sleep(30)

    with pytest.raises(TimedOut):
        outer()


def test_a_candidate_cannot_take_the_end_of_its_time_for_an_exception_of_its_own():
    def swallowing():
        with time_limit(0.1), contextlib.suppress(Exception):  # what a candidate may well do
            time.sleep(30)

    with pytest.raises(TimedOut):
        swallowing()


# Diagnosis ------------------------------------------------------------------------------------------------------


def always(subject, case):
    raise Violation("no")


def test_a_failure_is_announced_before_its_diagnosis_and_then_carries_it():
    found = {"deviation": "eps", "title": "agrees if eps is 1e-6", "residual": 1e-15}
    announced = []
    settings = Settings(judged=announced.append, diagnose=lambda *failure: [found])
    result = run(always, settings=settings)
    assert [entry.outcome for entry in announced] == ["failed"]
    assert result.diagnosis[0].title == "agrees if eps is 1e-6"


def test_a_diagnosis_that_fails_takes_nothing_from_the_verdict():
    def diagnose(*_):
        raise RuntimeError("no idea")

    result = run(always, settings=Settings(diagnose=diagnose))
    assert (result.outcome, result.reason, result.diagnosis) == ("failed", "no", ())
    assert result.undiagnosed == "the search for a diagnosis raised RuntimeError: no idea"


# Expected failures ----------------------------------------------------------------------------------------------


def result(outcome, slug="group.claim"):
    return Result(property=slug, level="must", outcome=outcome, seconds=0.0, reason="seen")


def test_expected_failures_turn_failures_and_only_them():
    assert expect(result("failed"), "issue 1").outcome == "expected-failure"
    assert expect(result("passed"), "issue 1").outcome == "unexpected-pass"
    assert expect(result("error"), "issue 1").outcome == "error"
    assert expect(result("failed"), None).outcome == "failed"


def test_an_entry_holds_for_all_specs_or_for_one():
    expected = {"group.claim": "everywhere", "gpt2.other.claim": "there"}
    assert expectation(expected, "t5-small", "group.claim") == "everywhere"
    assert expectation(expected, "gpt2", "other.claim") == "there"
    assert expectation(expected, "t5-small", "other.claim") is None


def test_an_entry_whose_property_did_not_run_is_an_error():
    expected = {"group.claim": "issue 1", "group.ran": "issue 2"}
    entries = stale(expected, [("gpt2", "group.ran")])
    assert entries == {"group.claim"}
    assert mark_stale("gpt2", result("skipped"), entries).outcome == "error"
    assert mark_stale("gpt2", result("passed"), entries).outcome == "passed"


def test_a_list_of_expected_failures_is_read_with_and_without_headings(tmp_path):
    path = tmp_path / "expected.toml"
    path.write_text('"group.claim" = "a"\n[gpt2]\n"other.claim" = "b"\n')
    assert read_expected(path) == {"group.claim": "a", "gpt2.other.claim": "b"}


@pytest.mark.parametrize("text", ["not toml", '"group.claim" = 3', '"group.claim" = ""'])
def test_a_malformed_list_is_refused(tmp_path, text):
    path = tmp_path / "expected.toml"
    path.write_text(text)
    with pytest.raises(ExpectedError, match="expected"):
        read_expected(path)


# Selection ------------------------------------------------------------------------------------------------------


def test_globs_select_properties_in_the_order_of_the_suite():
    slugs = [
        property_.slug
        for property_ in select(["padding.*", "causality.truncation"], all_properties())
    ]
    assert slugs[0] == "causality.truncation"
    assert all(slug.startswith("padding.") for slug in slugs[1:])


def test_every_glob_must_match_something_and_the_nearest_names_are_told():
    with pytest.raises(
        RequestError, match=r"'causality.truncatoin': did you mean causality.truncation"
    ):
        select(["padding.*", "causality.truncatoin"], all_properties())


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(RequestError, match="cannot be used here"):
        check_device("no-such-device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused_with_how_to_mend_it():
    with pytest.raises(RequestError, match="leave out --device for the CPU"):
        check_device("cuda")


def test_a_device_without_numbers_is_refused():
    with pytest.raises(RequestError, match="'meta' holds no numbers"):
        check_device("meta")
