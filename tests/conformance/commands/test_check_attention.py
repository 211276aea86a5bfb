"""``holotype check-attention`` and what its targets may be."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import torch
from click.testing import CliRunner

from holotype_conformance.cli import main
from holotype_conformance.judge.importing import TargetError
from holotype_conformance.kernels.candidate import FunctionKernel, KernelCandidate
from holotype_conformance.kernels.cases import AttentionCase
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.kernels.targets import as_kernel, resolve_kernel

pytestmark = pytest.mark.slow

MINE = """
import os
import torch

def right(q, k, v, *, causal=False):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

def dies(q, k, v):
    if q.shape[2] == 17:
        os._exit(3)
    return right(q, k, v)

def dies_softly(q, k, v):
    return right(q, k, v) * 1.5

def raises(q, k, v):
    raise RuntimeError("no kernel image")
"""
CONTRACT = ("--property", "contract.*")


def check(folder, *arguments):
    command = [sys.executable, "-c", "from holotype_conformance.cli import main; main()"]
    command += ["check-attention", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_right_function_passes_and_what_it_does_not_take_is_skipped_with_the_reason(folder):
    run = check(
        folder, "mine.py:right", *CONTRACT, "--property", "masks.window", "--json", "out.json"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "mine.py:right conforms to attention" in run.stdout
    report = json.loads((folder / "out.json").read_text())
    assert (report["spec"], report["parameters"], report["conforms"]) == ("attention", None, True)
    results = {result["property"]: result for result in report["results"]}
    assert results["masks.window"]["outcome"] == "skipped"
    assert results["masks.window"]["reason"] == "its signature takes no `window`"


def test_a_kernel_that_ends_the_process_for_one_shape_fails_there_and_the_rest_still_runs(folder):
    run = check(
        folder,
        "mine.py:dies",
        *CONTRACT,
        "--property",
        "extremes.large-scores",
        *("--junit", "out.xml", "--html", "out.html", "--json", "out.json"),
    )
    assert run.returncode == 1
    results = json.loads((folder / "out.json").read_text())["results"]
    assert len(results) == 6
    crashed = [result for result in results if "exited with status 3" in (result["reason"] or "")]
    assert crashed
    found = crashed[0]["counterexample"]
    assert found["case"]["queries"] == 17
    assert found["rerun"].startswith("holotype check-attention mine.py:dies --property contract.")
    suite = ElementTree.parse(folder / "out.xml").getroot()[0]
    assert suite.get("name") == "attention"
    assert "exited with status 3" in (folder / "out.html").read_text()


def test_a_kernel_that_never_runs_is_said_with_exit_code_3(folder):
    run = check(folder, "mine.py:raises")
    assert run.returncode == 3
    assert "could not be run at all: in no dtype" in run.stderr
    assert "no kernel image" in run.stderr


def test_a_rerun_line_runs_exactly_its_case(folder):
    case = '{"queries":3,"keys":4}'
    run = check(
        folder,
        *("mine.py:right", "--property", "contract.result", "--case", case, "--json", "-"),
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["results"][0]["cases"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["spda"], "'spda' is not a kernel"),
        (["sdpa:fast"], "did you mean sdpa"),
        (["mine.py:none"], "has no attribute 'none'"),
        (["mine.py:right", "--property", "nothing.*"], "no property matches 'nothing.*'"),
        (["mine.py:right", "--case", "{}"], "exactly one"),
    ],
)
def test_bad_input_is_said_with_exit_code_2(folder, arguments, said):
    run = check(folder, *arguments)
    assert run.returncode == 2
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_explain_knows_the_properties_of_kernels():
    shown = CliRunner().invoke(main, ["explain", "masks.diagonal"])
    assert shown.exit_code == 0
    assert "A causal mask is aligned to the last key." in shown.output
    assert "Needs of the candidate: causal." in shown.output
    assert "masks.diagonal (must)" in CliRunner().invoke(main, ["explain"]).output


# pytest ---------------------------------------------------------------------------------------------------------


def pytest_run(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider", "-v"]
    command += ["--rootdir", str(folder), "--pyargs", "holotype_conformance", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_properties_of_kernels_run_as_pytest_too(folder):
    run = pytest_run(
        folder,
        *("--holotype-kernel", "mine.py:dies_softly", "--holotype-dtype", "float32"),
        *("--holotype-property", "formula.*"),
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed, 4 skipped" in run.stdout  # other dtypes, and formula.scale: it takes no scale
    assert "attention::formula.float32" in run.stdout
    assert "holotype check-attention mine.py:dies_softly --property formula.float32" in run.stdout


def test_a_kernel_and_a_spec_together_are_refused(folder):
    run = pytest_run(folder, "--holotype-kernel", "mine.py:right", "--holotype-spec", "gpt2")
    assert run.returncode != 0
    assert "a kernel has no spec" in run.stdout


# Targets and adapters -------------------------------------------------------------------------------------------


class Rows(KernelCandidate):
    """A kernel of another layout and with other names."""

    layout = "batch length heads head_dim"

    def attention(self, q, k, v, *, causal=False):
        assert q.stride(-1) == 1
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return mixed.transpose(1, 2)


def test_an_adapter_states_its_layout_and_is_called_in_it():
    subject = KernelSubject(as_kernel(Rows, "rows"))
    case = AttentionCase(queries=3, keys=5, heads=2, kv_heads=2, batch=2)
    problem = subject.problem(case)
    found = subject.output(problem.call)
    assert found.numpy() == pytest.approx(problem.expected().output, abs=1e-14)
    assert subject.capabilities["scale"] == "its signature takes no `scale`"


def test_what_another_library_calls_it_is_for_an_adapter_to_say():
    def attention(q, k, v, attn_mask=None, is_causal=False, softmax_scale=None, window_size=None):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    lacks = KernelSubject(FunctionKernel(attention, "mine")).capabilities
    for capability, ours, theirs in (
        ("boolean-mask", "mask", "attn_mask"),
        ("causal", "causal", "is_causal"),
        ("band", "window", "window_size"),
        ("scale", "scale", "softmax_scale"),
    ):
        said = f"its signature takes no `{ours}`: for `{theirs}` write a KernelCandidate"
        assert lacks[capability] == said


def test_what_is_refused_at_the_plainest_shape_is_a_lack_and_not_a_failure():
    def attention(q, k, v, *, mask=None):
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError("only booleans")
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    subject = KernelSubject(FunctionKernel(attention, "mine"))
    assert subject.capabilities["boolean-mask"] is None
    assert subject.capabilities["additive-mask"].startswith("it refuses an additive mask: ")
    assert "only booleans" in subject.capabilities["additive-mask"]


def test_options_that_disappear_are_not_taken_by_name():
    def attention(q, k, v, **options):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    subject = KernelSubject(FunctionKernel(attention, "mine"))
    assert subject.capabilities["causal"] == "its signature takes no `causal`"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (3, "expected package.module:attribute"),
        (lambda q: q, "expected a function that can be called as attention"),
        (KernelCandidate, "does not define attention"),
    ],
)
def test_what_is_no_kernel_is_refused(found, said):
    with pytest.raises(TargetError, match=said):
        as_kernel(found, "mine")


def test_every_target_that_is_named_is_one():
    assert resolve_kernel("sdpa:math").title == "sdpa:math"
    with pytest.raises(TargetError, match="is not a kernel"):
        resolve_kernel("reference:quick")
    with pytest.raises(TargetError, match=r"no module 'flash_attn'.*attention\(q, k, v"):
        resolve_kernel("flash_attn:flash_attn_func")
    with pytest.raises(TargetError, match=r"no attribute 'flash'; expected .*attention\(q, k, v"):
        resolve_kernel("holotype_conformance.kernels.plain:flash")
