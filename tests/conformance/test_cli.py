"""The command line: what it understands before anything runs, and whole runs of our own models."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from holotype_conformance.cli import main
from holotype_conformance.judge.records import Planned, Result
from holotype_conformance.kernels.targets import KERNELS
from holotype_conformance.run import supervisor
from holotype_conformance.run.supervisor import CandidateUnrunnable, Record, RequestRejected


def holotype(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def supervised(monkeypatch):
    """Stand in for the run: `supervised(outcome, …)` makes it end so; returns what was requested."""
    requests = []

    def ending(*outcomes, error=None, unusable=None):
        def supervise(request, watch):
            requests.append(request)
            if error is not None:
                raise error
            record = Record(title="mine")
            for spec in request.specs:
                if spec in (unusable or {}):
                    record.unusable[spec] = unusable[spec]
                for number, outcome in enumerate(outcomes):
                    facts = {"level": "must", "clause": "A clause."}
                    slug = f"group.claim-{number}"
                    record.plan.append(Planned(spec=spec, property=slug, meaning="", **facts))
                    record.results[spec, slug] = Result(
                        property=slug, outcome=outcome, seconds=0.0, reason="why", **facts
                    )
            return record

        monkeypatch.setattr(supervisor, "supervise", supervise)
        return requests

    return ending


# Parsing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command(flag):
    shown = holotype(flag)
    assert shown.exit_code == 0
    assert all(f"\n  {name} " in shown.output for name in ("check", "explain", "list", "show"))


def test_the_list_of_commands_says_of_each_in_a_whole_sentence_what_it_does():
    *_, commands = holotype("--help").output.partition("Commands:\n")
    assert all(line[-1] in ".?" and line[-2].isalpha() for line in commands.splitlines())


def test_the_help_of_check_attention_names_every_kernel_that_is_built_in():
    shown = holotype("check-attention", "--help").output.replace(",", " ").replace(".", " ").split()
    assert set(KERNELS) <= set(shown)


@pytest.mark.parametrize("command", main.list_commands(None))
def test_the_help_of_every_command_fits_eighty_columns(command):
    assert max(map(len, holotype(command, "--help").output.splitlines())) <= 80


def test_a_misspelt_command_is_told_which_is_meant():
    shown = holotype("lst")
    assert shown.exit_code == 2
    assert "No such command 'lst': did you mean list?" in shown.output


@pytest.mark.slow
def test_an_error_fits_eighty_columns_on_a_terminal_and_is_one_line_elsewhere():
    code = "from holotype_conformance.cli import main; main()"
    command = [sys.executable, "-c", code, "list", "--objective", "x"]
    whole = subprocess.run(command, capture_output=True, text=True, check=False)
    assert whole.stderr.count("\n") == 1
    screen, end = os.openpty()
    with open(screen, closefd=True) as terminal:
        assert subprocess.run(command, stderr=end, check=False).returncode == 2
        os.close(end)
        shown = os.read(terminal.fileno(), 1 << 16).decode().splitlines()
    assert max(map(len, shown)) <= 80
    assert " ".join(shown) == whole.stderr.strip()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("command", ["list", "show gpt2", "audit"])
@pytest.mark.slow
def test_an_output_that_cannot_be_written_is_told_and_is_no_verdict(command):
    code = "from holotype_conformance.cli import main; main()"
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-c", code, *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == 3
    assert run.stderr == "Error: the output cannot be read or written: No space left on device\n"


def test_the_version_is_that_of_the_distribution():
    assert holotype("--version").output.startswith("holotype, version ")


@pytest.mark.slow
def test_the_commands_that_need_no_torch_import_none():
    code = (
        "import sys; from click.testing import CliRunner; from holotype_conformance.cli import main;"
        "import holotype_conformance.run.supervisor, holotype_conformance.run.progress;"
        "assert CliRunner().invoke(main, ['check', '--help']).exit_code == 0;"
        "assert CliRunner().invoke(main, ['check', 'reference', '--spec', 'x']).exit_code == 2;"
        "print({'torch', 'hypothesis', 'pytest', 'numpy', 'rich'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'TARGET'"),
        (["reference"], "give --spec SPEC"),
        (["reference", "--spec", "gtp2"], "unknown spec 'gtp2': did you mean gpt2"),
        (["reference", "--spec", "gpt2", "--case", "{"], "is not JSON"),
        (["reference", "--spec", "gpt2", "--case", "3"], "expected a JSON object"),
        (["reference", "--spec", "gpt2", "--seed", "-1"], "x>=0"),
        (["reference", "--spec", "gpt2", "--timeout", "-1"], "x>=0"),
        (
            ["reference", "--spec", "gpt2", "--timeout", "inf"],
            "a limit of inf s: expected 0, for none",
        ),
        (["reference", "--spec", "gpt2", "--timeout", "nan"], "a limit of nan s"),
        (["reference", "--spec", "gpt2", "--timeout", "1e400"], "a limit of inf s"),
        (
            ["reference", "--spec", "gpt2", "--timeout", "1e7"],
            "up to 1,000,000 s of processor time",
        ),
        (["reference", "--spec", "gpt2", "--seed", "4294967296"], "from 0 to 4,294,967,295"),
        (["reference", "--spec", "gpt2", "--profile", "slow"], "'quick', 'full'"),
        (
            ["reference", "--spec", "gpt2", "--json", "no/such/folder/out.json"],
            "there is no folder",
        ),
        (
            ["reference", "--spec", "gpt2", "--expected-failures", "no.toml"],
            "no.toml: cannot be read",
        ),
    ],
)
def test_bad_input_is_said_on_standard_error_with_exit_code_2_before_anything_runs(
    arguments, said, supervised
):
    requests = supervised("passed")
    run = holotype("check", *arguments)
    assert run.exit_code == 2
    assert said in run.stderr
    assert "Traceback" not in run.output
    assert requests == []


def test_an_unknown_command_is_bad_input():
    assert holotype("chekc").exit_code == 2


# Exit codes and files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (["passed"], 0),
        (["passed", "skipped", "expected-failure"], 0),
        (["expected-failure"], 0),
        (["passed", "failed"], 1),
        (["passed", "unexpected-pass"], 1),
        (["passed", "error"], 1),
        (["error"], 1),
        (["skipped"], 2),
        (["passed", "undecided"], 4),
        (["undecided"], 4),
        (["failed", "undecided"], 1),
        (["error", "undecided"], 1),
        ([], 2),
    ],
)
def test_the_exit_code_follows_from_the_outcomes(outcomes, code, supervised):
    supervised(*outcomes)
    assert holotype("check", "mine:build", "--spec", "gpt2").exit_code == code


def test_one_spec_that_fails_or_did_not_run_keeps_the_whole_from_being_green(supervised):
    specs = ("--spec", "gpt2", "--spec", "llama-7b")
    supervised("passed", unusable={"gpt2": "no"})
    assert holotype("check", "mine:build", *specs).exit_code == 3
    supervised("failed", unusable={"gpt2": "no"})
    assert holotype("check", "mine:build", *specs).exit_code == 1
    supervised("passed", unusable={"gpt2": "no", "llama-7b": "no"})
    assert holotype("check", "mine:build", *specs).exit_code == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RequestRejected("why", "Traceback: deep"), 2),
        (CandidateUnrunnable("why", "Traceback: deep"), 3),
    ],
)
def test_a_traceback_is_shown_on_demand_only(error, code, supervised):
    supervised(error=error)
    run = holotype("check", "mine:build", "--spec", "gpt2")
    assert (run.exit_code, run.stdout) == (code, "")
    assert "why" in run.stderr
    assert "deep" not in run.stderr
    assert "deep" in holotype("check", "mine:build", "--spec", "gpt2", "--verbose").stderr


def test_a_mistake_of_ours_never_has_the_exit_code_of_a_verdict(supervised):
    supervised(error=KeyError("ours"))
    run = holotype("check", "mine:build", "--spec", "gpt2")
    assert run.exit_code == 3
    assert "holotype itself failed with KeyError" in run.stderr


def test_json_is_an_object_for_one_spec_and_a_list_for_several(supervised, tmp_path):
    supervised("passed")
    one = json.loads(holotype("check", "mine:build", "--spec", "gpt2", "--json", "-").stdout)
    assert (one["spec"], one["conforms"], one["candidate"]) == ("gpt2", True, "mine")
    path = tmp_path / "out.json"
    holotype("check", "mine:build", "--spec", "gpt2", "--spec", "llama-7b", "--json", path)
    assert [report["spec"] for report in json.loads(path.read_text())] == ["gpt2", "llama-7b"]


def test_aliases_are_resolved_and_a_spec_named_twice_is_checked_once(supervised):
    requests = supervised("passed")
    holotype("check", "mine:build", "--spec", "gpt2-small", "--spec", "gpt2")
    assert requests[0].specs == ("gpt2",)


def test_the_full_profile_has_ten_times_the_time(supervised):
    requests = supervised("passed")
    holotype("check", "mine:build", "--spec", "gpt2")
    holotype("check", "mine:build", "--spec", "gpt2", "--profile", "full")
    holotype("check", "mine:build", "--spec", "gpt2", "--profile", "full", "--timeout", "5")
    assert [request.limit for request in requests] == [60, 600, 5]


# explain --------------------------------------------------------------------------------------------------------


def test_explain_says_what_a_property_claims_means_and_catches():
    page = holotype("explain", "causality.truncation").output
    assert page.startswith("causality.truncation (must)\n\n")
    assert "\nCatches:\n  - " in page
    assert max(map(len, page.splitlines())) <= 80


def test_explain_says_what_a_deviation_is_and_how_it_shows():
    page = holotype("explain", "heads.interleaved").output
    assert page.startswith("heads.interleaved (deviation)\n\nA candidate that has it agrees with ")
    assert "every head gets a bit of all others" in " ".join(page.split())


def test_explain_says_what_a_change_of_a_kernel_is_and_what_else_is_called_so():
    assert "agrees with the formula if the gradient by k is" in words("gradients.unscaled-k")
    both = words("scale.twice")
    assert "scale.twice (deviation)" in both
    assert "agrees with the formula if the scale is applied twice" in both


def words(slug):
    return " ".join(holotype("explain", slug).output.split())


def test_explain_without_a_name_lists_all():
    page = holotype("explain").output
    assert "\ncausality\n" in page
    assert "  causality.truncation (must)\n" in page


def test_explain_tells_the_nearest_names_of_an_unknown_one():
    run = holotype("explain", "causality.truncatoin")
    assert run.exit_code == 2
    assert "did you mean causality.truncation" in run.stderr


# Whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two specs, two groups, from a folder of its own."""
    folder = tmp_path_factory.mktemp("whole")
    command = [
        sys.executable,
        "-c",
        "from holotype_conformance.cli import main; main()",
        "check",
        "reference",
    ]
    command += [
        "--spec",
        "gpt2",
        "--spec",
        "t5-small",
        "--property",
        "interface.*",
        "--property",
        "padding.source",
    ]
    command += ["--seed", "5", "--json", "out.json"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    return run, json.loads((folder / "out.json").read_text()), folder


@pytest.mark.slow
def test_our_own_models_conform(whole):
    run, reports, _ = whole
    assert run.returncode == 0, run.stdout + run.stderr
    assert [report["conforms"] for report in reports] == [True, True]
    suite = reports[1]["suite"]
    assert suite > 50
    assert (
        run.stdout.splitlines()[-1] == f"reference conforms to t5-small on 4 of {suite} properties"
    )


@pytest.mark.slow
def test_what_does_not_apply_to_a_spec_is_skipped_there_with_a_reason(whole):
    outcomes = [
        {result["property"]: (result["outcome"], result["reason"]) for result in report["results"]}
        for report in whole[1]
    ]
    assert outcomes[0]["padding.source"] == ("skipped", "the spec has no source")
    assert outcomes[1]["padding.source"] == ("passed", None)


@pytest.mark.slow
def test_the_header_has_the_exact_parameters_and_the_seed(whole):
    run, reports, _ = whole
    assert reports[0]["parameters"] == 124_439_808  # the published checkpoint, its tied matrix once
    assert "124,439,808 parameters · quick · seed 5 · cpu" in run.stdout


def test_quiet_when_nobody_is_watching_and_nothing_but_the_report_is_written(whole):
    run, _, folder = whole
    assert run.stderr == ""
    assert [path.name for path in folder.iterdir()] == ["out.json"]
