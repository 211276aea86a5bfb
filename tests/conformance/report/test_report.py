"""Reports of one made-up run, as text, JUnit XML and HTML."""

import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from holotype_conformance.judge.records import (
    Counterexample,
    Diagnosis,
    Environment,
    Request,
    Result,
)
from holotype_conformance.judge.verdict import reported
from holotype_conformance.report.html import html
from holotype_conformance.report.junit import junit
from holotype_conformance.report.text import Painter, clean, failure_text, report_text

HOSTILE = "boom \x1b[31m<script>alert(1)</script>\x00 & \ud800 " + "long " * 40
RERUN = "holotype check mine.py:build --spec gpt2 --property a.failed --case '{\"length\":5}'"


def result(slug, outcome, **facts):
    values = {"level": "must", "seconds": 0.25, "clause": f"The clause of {slug}, " + "words " * 20}
    return Result(property=slug, outcome=outcome, **values | facts)


RESULTS = (
    result("a.passed", "passed", cases=1200),
    result(
        "a.failed",
        "failed",
        reason=HOSTILE,
        meaning="Look at the mask.",
        counterexample=Counterexample(
            case={"length": 5, "padding": "left"}, facts={"change": 0.123456789}, rerun=RERUN
        ),
        diagnosis=(Diagnosis(deviation="mask", title="agrees without a mask", residual=1e-15),),
        details="Traceback: deep inside",
    ),
    result("b.should", "failed", level="should", reason="not so nice"),
    result("b.skipped", "skipped", reason="the spec has no cache"),
    result("b.late", "undecided", reason="no end within 60 s"),
    result("b.known", "expected-failure", reason="issue 7"),
    result("b.surprise", "unexpected-pass", reason="remove the entry"),
    result("b.error", "error", reason="the check itself raised KeyError"),
)


def report(results=RESULTS, asked=None, **facts):
    values = {
        "holotype": "1.0",
        "spec": "gpt2",
        "candidate": "mine.py:build",
        "parameters": 124439808,
        "unusable": None,
        "suite": len(results),
        "environment": Environment(
            python="3.11", torch="2.13", platform="Linux", device="cpu", versions={"numpy": "2.4"}
        ),
    }
    request = Request(target="mine.py:build", specs=("gpt2",), seed=3, **asked or {})
    return reported(request, tuple(results), **values | facts)


# Text -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text():
    return report_text(report(), Painter())


def test_every_line_but_the_reruns_fits_80_columns(text):
    assert max(len(line) for line in text.splitlines() if "rerun" not in line) <= 80


@pytest.mark.parametrize("width", [50, 65, 100])
def test_lines_fit_other_widths(width):
    lines = report_text(report(), Painter(width=width)).splitlines()
    assert max(len(line) for line in lines if "rerun" not in line) <= width


def test_the_header_says_what_was_checked_against_what(text):
    assert text.startswith(
        "holotype 1.0: mine.py:build against gpt2\n124,439,808 parameters · quick · seed 3"
    )


def test_properties_stand_under_their_group_with_a_mark_for_the_outcome(text):
    lines = [line for line in text.splitlines() if re.match(r"  [✓✗–~!?] ", line)]
    assert [line.split()[0] for line in lines] == ["✓", "✗", "✗", "–", "?", "~", "!", "!"]
    assert [line.split()[1] for line in lines][:2] == ["passed", "failed"]
    assert "\na\n" in text
    assert "\nb\n" in text


def test_a_failure_shows_what_was_seen_the_case_what_it_means_and_the_line_that_reruns_it(text):
    block = text[text.index("✗ a.failed (must)") :]
    assert "  case      length 5, padding left\n" in block
    assert "  measured  change 0.1235\n" in block
    assert "  diagnosis agrees without a mask (residual 1.0e-15)\n" in block
    assert "  meaning   Look at the mask.\n" in block
    assert f"  rerun     {RERUN}\n" in block


def test_the_report_ends_with_the_counts_and_the_verdict(text):
    assert text.endswith(
        "\n1 passed, 2 failed, 1 expected failure, 1 unexpected pass, 1 undecided, 1"
        "\nskipped, 1 error (1,200 cases in 2.0 s)"
        "\nmine.py:build agrees without a mask: this explains 1 of 2 failures"
        "\nmine.py:build does not conform to gpt2"
    )


def test_a_report_of_a_conforming_candidate_says_so():
    good = report_text(report(RESULTS[:1]), Painter())
    assert good.endswith("mine.py:build conforms to gpt2")


def uncompared(**facts):
    skipped = result("agreement.logits", "skipped", reason="it defines no `load`")
    return report((*RESULTS[:1], skipped), **facts)


def test_a_candidate_whose_numbers_were_compared_with_nothing_is_undecided_in_every_output():
    said = (
        "whether mine.py:build conforms to gpt2 is undecided:"
        " no number was compared with gpt2's (it defines no `load`)"
    )
    assert report_text(uncompared(), Painter(width=200)).endswith(f"\n{said}")
    assert said in unescape(html([uncompared()]))
    suite = ElementTree.fromstring(junit([uncompared()]).encode())[0]
    assert suite.find("properties/property[@name='conclusion']").get("value") == said
    assert suite.find("testcase/error").get("type") == "undecided"
    assert (suite.get("tests"), suite.get("errors")) == ("3", "1")
    assert (uncompared().verdict, uncompared().conforms) == ("undecided", False)
    assert uncompared().uncompared == "it defines no `load`"


def test_a_verdict_claims_no_more_than_was_judged():
    def said(*results, **facts):
        return report(results, **facts).conclusion

    good = RESULTS[0]
    known = [result(f"b.{name}", "expected-failure", reason="issue 7") for name in ("x", "y")]
    assert said(good) == "mine.py:build conforms to gpt2"
    assert said(good, suite=45) == "mine.py:build conforms to gpt2 on 1 of 45 properties"
    assert said(good, known[0]) == "mine.py:build conforms to gpt2, but for 1 expected failure"
    assert said(good, *known, suite=45).endswith(
        "on 3 of 45 properties, but for 2 expected failures"
    )
    assert said(good, asked={"dtypes": ("float32",)}).endswith("conforms to gpt2 in float32 only")
    assert said(good, suite=45, asked={"case": "{}"}).endswith("in one case on 1 of 45 properties")
    late = [result(f"c.{name}", "undecided", reason="no end") for name in "xyzu"]
    assert said(good, late[0]).endswith(
        "is undecided: 1 of the properties that it must have is open (c.x)"
    )
    assert said(*late).endswith("it must have are open (c.x, c.y, c.z, …)")
    assert said(RESULTS[1], *late) == "mine.py:build does not conform to gpt2"


def test_processes_that_were_left_running_are_named_in_every_output():
    one = report(RESULTS[:1], left=("sleep 3 (process 7)",))
    assert "a process running, which was ended: sleep 3 (process 7)" in " ".join(
        report_text(one, Painter()).split()
    )
    many = report(RESULTS[:1], left=tuple(f"sleep {number}" for number in range(1000)))
    text = report_text(many, Painter())
    assert "had left 1000 processes running" in " ".join(text.split())
    assert len(text) < 1000
    assert "sleep 19 and 980 more" in html([many])
    suite = ElementTree.fromstring(junit([one]).encode())[0]
    assert suite.find("properties/property[@name='left running']").get("value") == one.left[0]


def test_a_run_that_was_cut_short_says_so_in_every_output():
    late = result("c.late", "not-run", reason="not run: the run was cut short by SIGTERM")
    cut = report((RESULTS[0], late), interrupted="SIGTERM")
    said = "is undecided: the run was cut short by SIGTERM; 1 of the properties"
    assert said in " ".join(report_text(cut, Painter()).split())
    assert said in html([cut])
    assert "1 not run" in report_text(cut, Painter())
    suite = ElementTree.fromstring(junit([cut]).encode())[0]
    assert suite.find("testcase/error").get("type") == "not-run"
    nothing = report((), interrupted="SIGTERM")
    assert nothing.verdict == "not-run"
    assert report_text(nothing, Painter()).endswith("the run was cut short by\nSIGTERM")


def test_a_should_that_did_not_end_leaves_no_must_open():
    late = result("b.late", "undecided", level="should", reason="no end")
    assert report((RESULTS[0], late)).verdict == "conforms"
    document = junit([report((RESULTS[0], late))])
    suite = ElementTree.fromstring(document.encode())[0]
    assert (suite.get("errors"), suite.get("skipped")) == ("0", "1")


def test_the_page_says_in_words_why_what_was_skipped():
    page = html([report()])
    assert "<td>the spec has no cache</td><td>b.skipped</td>" in page
    assert "<h2>Skipped</h2>" not in html([report(RESULTS[:1])])


def test_a_generic_spec_has_no_numbers_to_compare_and_its_verdict_is_whole():
    generic = uncompared(parameters=None)
    assert report_text(generic, Painter()).endswith("\nmine.py:build conforms to gpt2")


def test_what_many_properties_see_alike_is_told_once_with_the_names_of_all():
    def raised(slug, path="default", **facts):
        case = Counterexample(
            case={"length": 2}, facts={"path": path, **facts}, rerun=f"rerun {slug}"
        )
        said = f"forward raised ValueError: {len(slug)} is too long"
        return result(slug, "failed", reason=said, counterexample=case)

    results = (
        raised("a.first"),
        raised("a.other"),
        raised("b.far", path="fused"),
        raised("b.more"),
    )
    text = report_text(report(results), Painter())
    assert text.count("ValueError: 7 is too long") == 2 + 1  # two in the table, one below it
    assert "  also      2 more see the same: a.other, b.more\n" in text
    assert "rerun b.far" in text  # another path of the candidate
    measured = (raised("a.first", error=0.5), raised("a.other", error=0.5))
    assert "also" not in report_text(report(measured), Painter())


def test_failures_of_one_diagnosis_are_told_once_unless_all_is_asked_for():
    def explained(slug, title):
        case = Counterexample(case={"length": 2}, facts={"error": 0.5}, rerun=f"rerun {slug}")
        found = Diagnosis(deviation="x", title=title, residual=len(slug) / 1e16)
        return result(slug, "failed", reason=slug, counterexample=case, diagnosis=(found,))

    results = (explained("a.first", "one"), explained("a.second", "two"), explained("b.x", "one"))
    text = report_text(report(results), Painter())
    assert "  also      1 more with this diagnosis: b.x\n" in text
    assert [slug for slug in ("a.first", "a.second", "b.x") if f"rerun {slug}" in text] == [
        "a.first",
        "a.second",
    ]
    assert "rerun b.x" in report_text(report(results), Painter(), verbose=True)


def test_one_case_is_no_cases():
    once = report_text(report([result("a.passed", "passed", cases=1)]), Painter())
    assert "1 passed (1 case in 0.2 s)" in once


def test_a_run_in_which_nothing_ran_gives_no_verdict():
    assert "conform" not in report_text(report(RESULTS[3:4]), Painter())


def test_terminal_escapes_of_the_candidate_do_not_reach_the_terminal(text):
    assert "\x1b" not in text
    assert "\x00" not in text
    assert clean("a\x1b]0;title\x07b\x9b31mc\td") == "a]0;titleb31mc\td"


def test_colours_are_drawn_only_where_they_are_wanted(text):
    coloured = report_text(report(), Painter(colour=True))
    assert "\x1b[31m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == text


def test_an_encoding_without_our_marks_gets_ascii():
    plain = report_text(report(), Painter(unicode=False))
    assert plain.isascii()
    assert "  + passed" in plain
    assert "  x failed" in plain


def test_known_failures_are_explained_only_on_demand():
    assert "~ b.known (" not in report_text(report(), Painter())
    assert "~ b.known (" in report_text(report(), Painter(), verbose=True)


def test_tracebacks_are_shown_only_on_demand():
    assert "deep inside" not in report_text(report(), Painter())
    assert "deep inside" in report_text(report(), Painter(), verbose=True)


def test_a_candidate_that_could_not_be_run_gets_its_reason_instead_of_a_table():
    said = report_text(report(unusable="build raised ValueError: no"), Painter())
    assert said.endswith("mine.py:build could not be run at all: build raised ValueError: no")
    assert "a.failed" not in said


def test_pytest_shows_the_same_block_without_colours():
    assert failure_text(RESULTS[1]).startswith("✗ a.failed (must)\n  seen      boom <script>")


# Reruns ---------------------------------------------------------------------------------------------------------


def test_a_rerun_line_repeats_what_decides_the_case_and_is_quoted_for_the_shell():
    request = Request(target="my file.py:build", specs=("gpt2",), seed=7, device="cuda")
    assert request.rerun("gpt2", "a.failed", {"length": 5}) == (
        "holotype check 'my file.py:build' --spec gpt2 --property a.failed --device cuda --seed 7"
        " --case '{\"length\":5}'"
    )


def test_a_rerun_line_names_the_file_of_a_spec_of_ones_own():
    request = Request(target="reference", specs=("my.toml",), written={"mine": "my.toml"})
    assert "--spec my.toml" in request.rerun("mine", "a.failed", None)


# JUnit ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def suites():
    document = junit([report(), report(RESULTS[:1], spec="t5-small")])
    return ElementTree.fromstring(document.encode())


def test_there_is_one_suite_a_spec_and_one_case_a_property(suites):
    assert [suite.get("name") for suite in suites] == ["gpt2", "t5-small"]
    names = [case.get("name") for case in suites[0].iter("testcase")]
    assert names == [each.property for each in RESULTS]


def test_the_counts_of_a_suite_are_those_of_its_cases(suites):
    assert {name: suites[0].get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "8",
        "failures": "2",  # the must, and the unexpected pass
        "errors": "2",  # the mistake of the suite, and what did not end
        "skipped": "3",  # skipped, the expected failure and the should
    }
    assert suites.get("tests") == "9"
    assert float(suites[0].get("time")) == pytest.approx(8 * 0.25)


def test_a_failed_case_carries_the_whole_explanation(suites):
    failure = suites[0].find("testcase[@name='a.failed']/failure")
    assert failure.get("message").startswith("boom <script>")
    assert RERUN in failure.text


def test_a_spec_of_which_nothing_could_be_run_is_an_error_in_junit():
    document = junit([report((), unusable="the process exited with status 3")])
    suite = ElementTree.fromstring(document.encode())[0]
    assert suite.get("errors") == "1"
    assert suite.find("testcase/error").get("message") == "the process exited with status 3"


# HTML -----------------------------------------------------------------------------------------------------------


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.references, self.ids = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        self.references += [given[name] for name in ("src", "href") if name in given]
        self.ids += [given["id"]] if "id" in given else []


@pytest.fixture(scope="module")
def page():
    return html([report(), report(RESULTS[:1], spec="t5-small")])


def test_the_page_is_whole_without_a_network(page):
    reader = Reader()
    reader.feed(page)
    assert all(reference.startswith("#") for reference in reader.references)
    assert {reference[1:] for reference in reader.references} <= set(reader.ids)


def test_nothing_from_a_candidate_is_markup(page):
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert "&lt;script&gt;" in page


def test_the_page_has_a_column_for_each_spec_and_explains_each_failure(page):
    assert "<th>gpt2</th><th>t5-small</th>" in page
    for each in RESULTS[1:3]:
        assert f'id="gpt2-{each.property}"' in page
    assert "--property a.failed --case" in page
