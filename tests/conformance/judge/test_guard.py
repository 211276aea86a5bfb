"""Whatever a candidate raises is a violation, named as what it is, in a text of bounded length."""

import time
import unittest

import pytest
from hypothesis.errors import StopTest, UnsatisfiedAssumption

from holotype_conformance.judge import guard
from holotype_conformance.judge.guard import Evasion, candidate_code, expect_no_interrupts
from holotype_conformance.judge.property import Skip, Violation
from holotype_conformance.judge.texts import (
    DETAILS,
    MESSAGE,
    bounded,
    bounded_facts,
    first_line,
    message_of,
    title_of,
    trace_of,
    type_of,
)
from holotype_conformance.judge.time_limit import TimedOut, time_limit


class Own(BaseException):
    pass


def raised(error):
    with pytest.raises(Violation) as caught, candidate_code("forward"):
        raise error
    return caught.value


def outcome(function, *arguments):
    """What one of pytest's functions raises."""
    try:
        function(*arguments)
    except BaseException as error:
        return error


# What is raised -------------------------------------------------------------------------------------------------


def test_an_error_of_the_candidate_is_a_violation_with_its_message():
    violation = raised(KeyError("scale"))
    assert str(violation) == "forward raised KeyError: 'scale'"
    assert not isinstance(violation, Evasion)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(0), "forward raised SystemExit: 0 (which is no Exception; expected an answer"),
        (GeneratorExit(), "forward raised GeneratorExit: no message (which is no Exception"),
        (Own("so"), "forward raised Own: so (which is no Exception"),
        (outcome(pytest.skip, "not today"), "raised Skipped: not today (which steers pytest"),
        (outcome(pytest.xfail, "known"), "raised XFailed: known (which steers pytest"),
        (outcome(pytest.exit, "bye"), "raised Exit: bye (which steers pytest"),
        (unittest.SkipTest("no"), "raised SkipTest: no (which steers unittest"),
        (UnsatisfiedAssumption(), "(which steers Hypothesis"),
        (StopTest(1), "(which steers Hypothesis"),
        (Skip("nothing to say"), "raised Skip: nothing to say (which steers holotype"),
        (TimedOut("no"), "raised TimedOut: no (which steers holotype"),
    ],
)
def test_what_would_end_skip_or_pass_something_is_a_violation_that_is_never_expected(error, said):
    violation = raised(error)
    assert isinstance(violation, Evasion)
    assert said in str(violation)
    assert violation.__cause__ is error


def test_the_end_of_a_limit_goes_through_the_guard():
    with pytest.raises(TimedOut), time_limit(0.1), candidate_code("forward"):
        time.sleep(60)


def test_an_interrupt_is_the_users_where_there_is_a_keyboard_and_else_the_candidates(monkeypatch):
    monkeypatch.setattr(guard._Interrupts, "expected", True)
    with pytest.raises(KeyboardInterrupt), candidate_code("forward"):
        raise KeyboardInterrupt
    expect_no_interrupts()
    assert isinstance(raised(KeyboardInterrupt()), Evasion)


# What is said ---------------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("str fails")


class Liar(type):
    __name__ = property(lambda self: "X" * 10**7)


def test_a_message_that_cannot_be_read_is_said_to_be_one():
    assert str(raised(Mute())) == (
        "forward raised Mute: a message that cannot be read: asking for it raised RuntimeError"
    )


def test_a_message_of_twenty_megabytes_is_cut_in_the_middle_at_once():
    began = time.process_time()
    said = str(raised(RuntimeError("head" + "x" * 20_000_000 + "tail")))
    assert len(said) < MESSAGE + 200
    assert said.startswith("forward raised RuntimeError: headxxx")
    assert said.endswith("xxxtail")
    assert "characters left out] …" in said
    assert len(trace_of(RuntimeError("x" * 20_000_000))) < DETAILS + 100
    assert time.process_time() - began < 10


def test_only_the_first_line_of_a_message_is_told():
    assert first_line("\n  one\ntwo") == "one"
    assert first_line("x" * 10**6 + "\nsecond").endswith("x")
    assert message_of(RuntimeError()) == "no message"


def test_a_short_text_is_left_as_it_is_and_a_long_one_says_how_much_is_missing():
    assert bounded("abc", 3) == "abc"
    assert bounded("abcdef", 3) == "ab … [3 characters left out] … f"


def test_the_name_of_a_type_is_the_one_that_it_has():
    assert type_of(Liar("Own", (), {})()) == "Own"
    assert len(type_of(type("n" * 10**6, (), {})())) < 200


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("mine", "mine"),
        (None, "target"),
        (7, "target"),
        ("", "target"),
        ("a\x1b[31m red\nline\x07", "a red line"),
        ("\ud800", "?"),
    ],
)
def test_a_title_is_one_line_of_text(title, told):
    assert title_of(title, "target") == told
    assert len(title_of("x" * 10**6, "target")) < 200


def test_facts_are_bounded_wherever_they_are_long():
    facts = bounded_facts(
        {"a": "x" * 10**6, "b": list(range(5000)), "c": {"d": "y" * 10**6}, "e": 1}
    )
    assert len(str(facts)) < 20_000
    assert facts["b"][-1] == "[4,000 more]"
    assert facts["e"] == 1
