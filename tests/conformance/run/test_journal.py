"""Outputs: none over another, each written whatever becomes of the others, and results that outlive them."""

import json
import os

import msgspec
import pytest
from click.testing import CliRunner

from holotype_conformance.cli import main
from holotype_conformance.judge.records import (
    Collected,
    Environment,
    Finished,
    Planned,
    Request,
    Resolved,
    Result,
    Trying,
)
from holotype_conformance.run import supervisor
from holotype_conformance.run.journal import Begun, Journal, read_reports
from holotype_conformance.run.run_record import Record
from holotype_spec.reading import Unreadable

pytestmark = pytest.mark.slow

FACTS = {"level": "must", "clause": "A clause.", "meaning": "A meaning."}
ENVIRONMENT = Environment(python="3.11", torch="2", platform="x", device="cpu", versions={})
PLAN = tuple(Planned(spec="gpt2", property=f"group.{name}", **FACTS) for name in ("one", "two"))
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")


def result(name, outcome="passed"):
    return Result(property=f"group.{name}", outcome=outcome, seconds=0.5, reason="why", **FACTS)


def events(*results):
    """What a worker says of them."""
    yield Resolved(title="mine")
    yield Collected(plan=PLAN, environment=ENVIRONMENT, suite=2)
    for each in results:
        yield Trying(case={"size": 1})
        yield Finished(spec="gpt2", result=each)


@pytest.fixture
def check(monkeypatch, tmp_path):
    """``holotype check`` in an empty folder, with a made-up run; says whether that took place."""
    monkeypatch.chdir(tmp_path)
    ran = []

    def supervise(request, watch):
        ran.append(request)
        record = Record()
        for event in events(result("one"), result("two", "failed")):
            record.take(event)
            watch(event, record)
        return record

    monkeypatch.setattr(supervisor, "supervise", supervise)

    def invoke(*arguments):
        run = CliRunner().invoke(main, ["check", "mine:build", "--spec", "gpt2", *arguments])
        return run, len(ran)

    return invoke


# Writing --------------------------------------------------------------------------------------------------------


@needs_full
def test_an_output_that_fails_takes_neither_the_others_nor_the_text_with_it(check, tmp_path):
    run, _ = check("--json", "/dev/full", "--junit", "out.xml", "--html", "out.html")
    assert run.exit_code == 2
    assert run.stderr.startswith("Error: cannot write /dev/full: No space left on device")
    assert "mine does not conform to gpt2" in run.stdout
    assert "group.two" in (tmp_path / "out.xml").read_text()
    assert "group.two" in (tmp_path / "out.html").read_text()
    assert f"`holotype report {'out.xml.partial'}` has the results" in run.stderr
    again = CliRunner().invoke(main, ["report", "out.xml.partial"])
    assert (again.exit_code, again.stdout) == (1, run.stdout)


def test_nothing_is_left_beside_outputs_that_were_written(check, tmp_path):
    run, _ = check("--json", "out.json", "--junit", "out.xml")
    assert run.exit_code == 1
    assert {path.name for path in tmp_path.iterdir()} == {"out.json", "out.xml"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "out", "--junit", "out"),
        ("--json", "out", "--html", "./out"),
        ("--json", "-", "--junit", "-"),
        ("--json", "link", "--html", "out"),
    ],
)
def test_two_outputs_to_one_file_are_refused_before_the_work(check, tmp_path, arguments):
    (tmp_path / "out").touch()
    (tmp_path / "link").symlink_to("out")
    run, runs = check(*arguments)
    assert (run.exit_code, runs) == (2, 0)
    assert "is the same file as --json" in run.stderr


def test_what_is_read_is_not_written_over(check, tmp_path):
    (tmp_path / "known.toml").write_text('"group.one" = "issue 1"\n')
    run, runs = check("--expected-failures", "known.toml", "--json", "known.toml")
    assert (run.exit_code, runs) == (2, 0)
    assert "known.toml is the same file as known.toml" in run.stderr


def test_a_name_that_no_file_can_have_is_bad_input(check):
    run, runs = check("--json", "x" * 5000)
    assert (run.exit_code, runs) == (2, 0)
    assert "cannot write" in run.stderr


# The journal ----------------------------------------------------------------------------------------------------


def begun():
    request = Request(target="mine:build", specs=("gpt2",), expected={"group.two": "issue 2"})
    return Begun(holotype="1.0", request=request, parameters={"gpt2": 124})


def write_journal(path, *results, end=False):
    kept, record = Journal(path, begun()), Record()
    for event in events(*results):
        record.take(event)
        kept.watch(event, record)
    if end:
        kept.end()
    kept.close()


def test_a_journal_begins_with_the_first_result(tmp_path):
    write_journal(tmp_path / "x.partial")
    assert not (tmp_path / "x.partial").exists()
    write_journal(tmp_path / "x.partial", result("one"))
    (report,) = read_reports(str(tmp_path / "x.partial"))
    assert [each.outcome for each in report.results] == ["passed", "not-run"]
    assert (report.candidate, report.parameters, report.verdict) == ("mine", 124, "undecided")
    assert "the run was cut short by the end of its process" in report.conclusion


def test_a_journal_of_a_whole_run_gives_the_report_that_the_run_gave(tmp_path):
    path = tmp_path / "x.partial"
    write_journal(path, result("one"), result("two", "skipped"), end=True)
    (report,) = read_reports(str(path))
    assert report.interrupted is None
    assert report.results[1].outcome == "error"  # listed as an expected failure, and skipped


def test_a_line_that_was_cut_in_two_loses_nothing_else(tmp_path):
    path = tmp_path / "x.partial"
    write_journal(path, result("one"), result("two"))
    path.write_bytes(path.read_bytes()[:-20])
    (report,) = read_reports(str(path))
    assert [each.outcome for each in report.results] == ["passed", "not-run"]


def test_where_no_journal_can_be_written_the_run_goes_on(tmp_path):
    write_journal(tmp_path / "no" / "folder", result("one"), end=True)
    write_journal(None, result("one"), end=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no report of this version of holotype"),
        (b"[]", "holds no report"),
        (b'{"spec": 3}', "is no report of this version"),
        (b'{"x":' + b"[" * 200_000, "is nested too deeply"),
        (b'{"event":"begun"}\n', "is no report of this version"),
        (b"\xff\xfe", "is no report of this version"),
    ],
)
def test_what_is_no_report_is_bad_input(tmp_path, content, said):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=said):
        read_reports(str(path))
    run = CliRunner().invoke(main, ["report", str(path)])
    assert run.exit_code == 2
    assert said in run.stderr


def test_a_report_of_several_specs_is_read_whole(tmp_path):
    write_journal(tmp_path / "x.partial", result("one"), result("two"), end=True)
    (report,) = read_reports(str(tmp_path / "x.partial"))
    other = msgspec.structs.replace(report, spec="llama-7b")
    (tmp_path / "two.json").write_bytes(msgspec.json.encode([report, other]))
    run = CliRunner().invoke(main, ["report", str(tmp_path / "two.json"), "--json", "-"])
    assert [each["spec"] for each in json.loads(run.stdout)] == ["gpt2", "llama-7b"]
