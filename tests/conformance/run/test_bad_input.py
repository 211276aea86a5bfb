"""What candidates can do to the process that runs them, and what is said about it: `holotype check` from the outside.

Each run of the command costs the import of torch, so there are few of them, and each is asserted on many times.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow

ROGUE = Path(__file__).parents[1] / "rogue.py"
MADE_UP = Path(__file__).parents[1] / "made_up_suite"  # makes the worker know rogue.py's properties
PROPERTIES = 30
LIMIT = 4  # seconds for a property; long enough for one small model on a busy machine


def check(folder, target, *arguments):
    """Run ``holotype check`` in `folder`, against gpt2."""
    command = [sys.executable, "-c", "from holotype_conformance.cli import main; main()"]
    command += ["check", str(target), "--spec", "gpt2", *arguments]
    path = os.pathsep.join([str(MADE_UP), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": path},
    )


def paragraph(text):
    """One clear paragraph: no traceback, no more than one line end."""
    assert "Traceback" not in text
    assert text.count("\n") == 1
    return text


class RogueRun:
    def __init__(self, folder):
        (folder / "expected.toml").write_text(
            '"mood.raises" = "issue 1"\n"mood.prints" = "issue 2"\n'
            '"mood.exits" = "issue 4"\n"mood.segfaults" = "issue 5"\n"mood.skips" = "issue 6"\n'
            '"mood.spins" = "issue 7"\n[gpt2]\n"other.stale" = "issue 3"\n'
        )
        self.folder = folder
        self.run = check(
            folder,
            f"{ROGUE}:build",
            *("--timeout", str(LIMIT), "--expected-failures", "expected.toml"),
            *("--json", "out.json", "--junit", "out.xml", "--html", "out.html"),
        )
        self.report = json.loads((folder / "out.json").read_text())
        self.results = {result["property"]: result for result in self.report["results"]}


@pytest.fixture(scope="module")
def rogue(tmp_path_factory):
    return RogueRun(tmp_path_factory.mktemp("rogue"))


# A candidate that can be run, and then misbehaves ---------------------------------------------------------------


def test_the_run_goes_on_to_its_end_and_the_exit_code_says_that_it_does_not_conform(rogue):
    assert rogue.run.returncode == 1
    assert rogue.run.stderr == ""
    assert rogue.report["conforms"] is False
    assert len(rogue.results) == PROPERTIES


@pytest.mark.parametrize(
    "slug", ["mood.well", "mood.scribbles", "mood.warns", "mood.upsets-torch", "torch.as-ever"]
)
def test_what_is_fine_passes_whatever_happened_before(rogue, slug):
    assert rogue.results[slug]["outcome"] == "passed"


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("shape", "the logits have the shape (1, 2, 97); expected (1, 3, 97)"),
        ("dtype", "the logits are torch.float16; expected torch.float64"),
        ("nan", "the logits are not finite"),
        ("dies", "the candidate's process exited with status 3 during this property"),
        (
            "dies-later",
            "forward raised RuntimeError: first (after that its process exited with status 3)",
        ),
        ("exits", "forward raised SystemExit: 4"),
        ("interrupts", "forward raised KeyboardInterrupt: no message (which is no Exception"),
        ("skips", "forward raised Skipped: not today (which steers pytest"),
        ("leaves-pytest", "forward raised Exit: bye (which steers pytest"),
        ("gives-up", "forward raised UnsatisfiedAssumption: reject() in gives_up (line"),
        ("has-nothing-to-say", "forward raised Skip: nothing to say (which steers holotype"),
        ("pretends-the-time-is-up", "forward raised TimedOut: no (which steers holotype"),
        ("talks", "forward raised RuntimeError: xxxx"),
        ("segfaults", "the candidate's process crashed (SIGSEGV) during this property"),
    ],
)
def test_a_misbehaviour_fails_its_property_and_is_named(rogue, mood, said):
    result = rogue.results[f"mood.{mood}"]
    assert result["outcome"] == "failed"
    assert result["reason"].startswith(said)


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("spins", f"no end within {LIMIT} s"),
        ("sleeps", f"no end within {LIMIT} s"),
        (
            "blocks-signals",
            f"the candidate's process did not answer within {LIMIT} s and had to be killed",
        ),
        ("drops-handlers", "the candidate's process crashed (SIGALRM: the alarm of its limit"),
    ],
)
def test_of_what_does_not_end_nothing_is_known(rogue, mood, said):
    result = rogue.results[f"mood.{mood}"]
    assert result["outcome"] == "undecided"
    assert result["reason"].startswith(said)


@pytest.mark.parametrize("mood", ["shape", "dtype", "nan", "exits", "raises"])
def test_what_lets_itself_be_repeated_is_shrunk(rogue, mood):
    assert rogue.results[f"mood.{mood}"]["counterexample"]["case"] == {"size": 7}


@pytest.mark.parametrize("mood", ["spins", "sleeps", "blocks-signals", "dies", "segfaults"])
def test_what_ends_the_run_of_a_property_leaves_the_case_that_was_under_way(rogue, mood):
    found = rogue.results[f"mood.{mood}"]["counterexample"]
    assert found["case"]["size"] >= 7
    assert found["rerun"].endswith(
        f"--property mood.{mood} --case '{{\"size\":{found['case']['size']}}}'"
    )


def test_what_a_candidate_prints_is_neither_an_event_nor_part_of_the_report(rogue):
    assert rogue.results["mood.prints"]["outcome"] == "unexpected-pass"
    assert "rubbish" not in rogue.run.stdout


def test_warnings_are_neither_failures_nor_noise(rogue):
    assert "spam" not in rogue.run.stdout + rogue.run.stderr


def test_a_mistake_of_the_suite_is_an_error_and_not_a_failure(rogue):
    assert rogue.results["other.mistaken"]["outcome"] == "error"


def test_an_unexplained_skip_and_a_stale_expectation_are_errors_and_an_explained_skip_is_not(rogue):
    assert rogue.results["other.unexplained"]["outcome"] == "error"
    assert rogue.results["other.stale"]["outcome"] == "error"
    assert rogue.results["other.skipped"]["outcome"] == "skipped"
    assert rogue.results["other.skipped"]["reason"] == "it does not apply"


def test_an_expected_failure_is_one_with_its_reason(rogue):
    result = rogue.results["mood.raises"]
    assert result["outcome"] == "expected-failure"
    assert result["reason"].startswith("issue 1 (seen: forward raised RuntimeError: boom")


@pytest.mark.parametrize("mood", ["exits", "segfaults", "skips"])
def test_an_expected_failure_absorbs_a_wrong_answer_and_no_exit(rogue, mood):
    result = rogue.results[f"mood.{mood}"]
    assert result["outcome"] == "failed"
    assert result["ended"] is True
    assert result["reason"].endswith("(listed as an expected failure, which is never one of these)")
    assert rogue.results["mood.raises"]["ended"] is False
    assert rogue.results["mood.spins"]["outcome"] == "undecided"


def test_a_message_of_megabytes_is_bounded_in_every_output(rogue):
    assert len(rogue.results["mood.talks"]["reason"]) < 5000
    assert max(path.stat().st_size for path in rogue.folder.iterdir()) < 2_000_000


def test_the_file_holds_the_promised_keys(rogue):
    assert {
        "holotype",
        "spec",
        "candidate",
        "conforms",
        "verdict",
        "conclusion",
        "seed",
        "environment",
        "counts",
        "results",
    } <= set(rogue.report)
    promised = {"property", "level", "outcome", "seconds", "reason", "counterexample", "diagnosis"}
    assert all(promised <= set(result) for result in rogue.report["results"])
    assert sum(rogue.report["counts"].values()) == PROPERTIES
    assert {"python", "torch", "platform", "versions"} <= set(rogue.report["environment"])


def test_junit_and_html_tell_the_same(rogue):
    suite = ElementTree.parse(rogue.folder / "out.xml").getroot()[0]
    counts = [suite.get(name) for name in ("tests", "failures", "errors")]
    assert counts == [str(PROPERTIES), "15", "7"]
    page = (rogue.folder / "out.html").read_text()
    assert "crashed (SIGSEGV)" in page
    assert "<script>" not in page


def test_nothing_else_is_left_in_the_folder(rogue):
    left = {path.name for path in rogue.folder.iterdir()}
    assert left == {"expected.toml", "out.json", "out.xml", "out.html"}


def test_a_run_in_which_only_something_did_not_end_has_the_exit_code_of_the_undecided(tmp_path):
    selection = ("--property", "mood.sleeps", "--property", "mood.well", "--timeout", "1")
    run = check(tmp_path, f"{ROGUE}:build", *selection)
    assert run.returncode == 4
    said = " ".join(run.stdout.split())
    assert "no end within 1 s: case" in said
    assert "s of processor time in" in said
    assert "and waited; a longer --timeout may decide it" in said
    assert f"conforms to gpt2 on 2 of {PROPERTIES} properties is undecided" in said


# A candidate that cannot be run, or is none ---------------------------------------------------------------------


def test_a_build_that_raises_is_said_with_exit_code_3_and_written_to_the_files(tmp_path):
    run = check(tmp_path, f"{ROGUE}:build_raises", "--json", "out.json")
    assert run.returncode == 3
    assert "could not be run at all: build raised RuntimeError: no such kernel" in paragraph(
        run.stderr
    )
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["conforms"] is False
    assert report["counts"]["error"] == len(report["results"]) == PROPERTIES


def test_a_process_that_ends_in_the_first_build_is_said_with_exit_code_3(tmp_path):
    run = check(tmp_path, f"{ROGUE}:build_exits")
    assert run.returncode == 3
    assert "exited with status 3 while one small model was built and run" in paragraph(run.stderr)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import os; os._exit(5)", "its process exited with status 5 while it was imported"),
        ("while True: pass", "did not end within 1 s"),
    ],
)
def test_an_import_that_ends_or_blocks_the_process_is_said_with_exit_code_3(tmp_path, source, said):
    (tmp_path / "mine.py").write_text(source)
    run = check(tmp_path, "mine:build", "--timeout", "1")
    assert run.returncode == 3
    assert said in paragraph(run.stderr)


def test_an_import_that_raises_what_is_no_exception_is_bad_input_and_named(tmp_path):
    (tmp_path / "mine.py").write_text("raise KeyboardInterrupt('x' * 10**7)")
    run = check(tmp_path, "mine:build")
    assert run.returncode == 2
    assert "'mine:build' did not import: it raised KeyboardInterrupt: xxx" in paragraph(run.stderr)
    assert len(run.stderr) < 5000


def test_a_build_with_another_signature_is_bad_input_and_leaves_no_file(tmp_path):
    run = check(tmp_path, f"{ROGUE}:build_takes_two", "--json", "out.json")
    assert run.returncode == 2
    assert "has the signature (spec, size); expected a function" in paragraph(run.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_selection_that_is_skipped_whole_is_bad_input_and_never_green(tmp_path):
    run = check(tmp_path, f"{ROGUE}:build", "--property", "other.skipped")
    assert run.returncode == 2
    assert "nothing ran for gpt2" in paragraph(run.stderr)
    assert "conform" not in run.stdout.replace("conformance/rogue.py", "")
