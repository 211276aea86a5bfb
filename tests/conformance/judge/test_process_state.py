"""What a candidate changes in its process harms neither our arithmetic nor the next property, and is named."""

import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.process_state import ARITHMETIC, PROCESS, settled, undisturbed
from holotype_conformance.judge.records import Request, Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.properties.agreement import logits
from holotype_conformance.models.subject import Subject
from holotype_conformance.pytest_plugin.items import run_of  # noqa: F401  imported early, as a worker does
from holotype_conformance.run.session import Session
from holotype_conformance.torch_tools.backends import serial_compiler
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

GPT2 = load("gpt2")


class Annihilating(TorchFunctionMode):
    """Makes every difference zero."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found * 0 if getattr(func, "__name__", "") in ("sub", "__sub__") else found


def every_module_doubles() -> None:
    from torch.nn.modules.module import register_module_forward_hook

    register_module_forward_hook(
        lambda module, _, output: 2 * output if isinstance(module, nn.Embedding) else None
    )


ARITHMETICAL: dict[str, Callable[[], Any]] = {
    "the default device (meta)": lambda: torch.set_default_device("meta"),
    "torch's function modes (Annihilating)": lambda: Annihilating().__enter__(),
    "the default dtype (torch.float16)": lambda: torch.set_default_dtype(torch.float16),
    "whether gradients are computed (on)": lambda: torch.set_grad_enabled(True),
    "autocast (cpu)": lambda: torch.set_autocast_enabled("cpu", True),
    "the precision of float32 products (medium)": lambda: torch.set_float32_matmul_precision(
        "medium"
    ),
    "deterministic algorithms (on)": lambda: torch.use_deterministic_algorithms(True),
    "torch's number of threads (2)": lambda: torch.set_num_threads(2),
    "hooks of all modules": every_module_doubles,
    "Python's recursion limit (150)": lambda: sys.setrecursionlimit(150),
    "Python's trace function": lambda: sys.settrace(lambda *_: None),
    "Python's profile function": lambda: sys.setprofile(lambda *_: None),
}
OF_THE_PROCESS: dict[str, Callable[[], Any]] = {
    "the working directory (/)": lambda: os.chdir("/"),
    "environment variables (HOLOTYPE_TEST)": lambda: os.environ.update(HOLOTYPE_TEST="1"),
    "signal handlers": lambda: signal.signal(signal.SIGUSR1, lambda *_: None),
    "timers": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 1e6),
    "the standard streams of Python": lambda: setattr(sys, "stderr", None),
    "filters of warnings": lambda: warnings.simplefilter("error"),
    "NumPy's handling of errors": lambda: np.seterr(all="raise"),
    "blocked signals": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
}


class Leaving(ReferenceCandidate):
    """The reference, times `factor`; `leave` is done in every forward."""

    paths = ("fused",)

    def __init__(self, leave: Callable[[], Any], factor: float = 1.0) -> None:
        self.leave = leave
        self.factor = factor

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        outputs = super().forward(model, inputs)
        self.leave()
        return Outputs(logits=self.factor * outputs.logits)


def verdict(candidate: ReferenceCandidate) -> Result:
    subject = Subject(candidate, GPT2)
    return judge(subject, logits, Settings(case='{"length": 3}'))


@pytest.mark.parametrize("name", ARITHMETICAL | OF_THE_PROCESS)
def test_what_is_left_behind_is_put_back_and_named(name: str) -> None:
    everything = (*ARITHMETIC, *PROCESS)
    before = [setting.read() for setting in everything]
    result = verdict(Leaving((ARITHMETICAL | OF_THE_PROCESS)[name]))
    assert result.outcome == "passed", result.reason
    assert name in result.left_changed  # torch itself changes more with some
    assert [setting.read() for setting in everything] == before


@pytest.mark.parametrize("name", ARITHMETICAL)
def test_a_wrong_model_stays_wrong_whatever_it_leaves_behind(name: str) -> None:
    result = verdict(Leaving(ARITHMETICAL[name], factor=1.5))
    assert result.outcome == "failed"
    assert "differ by" in (result.reason or "")


def test_one_that_leaves_nothing_is_told_nothing() -> None:
    assert verdict(Leaving(lambda: None)).left_changed == ()


def test_settings_are_put_back_after_an_exception_too() -> None:
    def fails() -> None:
        torch.set_default_dtype(torch.float64)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), settled():
        fails()
    assert torch.get_default_dtype() == torch.float32


def test_inference_mode_and_flushed_numbers_end_with_the_call() -> None:
    guard = torch.inference_mode()
    with undisturbed() as changed, settled():
        guard.__enter__()
        torch.set_flush_denormal(True)
    assert not torch.is_inference_mode_enabled()
    smallest = np.nextafter(0.0, 1.0)
    assert smallest > 0
    assert {"inference mode (on)", "flushing of denormal numbers (on)"} <= changed.keys()


class AtFirst(ReferenceCandidate):
    """Changes a setting in its first build, and never again."""

    paths = ("fused",)
    built = 0

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        self.built += 1
        if self.built == 1:
            torch.use_deterministic_algorithms(True)
        return super().build(spec, path)


def test_what_only_the_first_run_changes_is_told_with_the_next_result() -> None:
    request = Request(target="mine", specs=("gpt2",), properties=("agreement.logits",))
    run = Session(request, AtFirst())
    run.smoke(run.specs[0])
    result = run.judge(run.specs[0], run.properties[0])
    assert result.left_changed == ("deterministic algorithms (on)",)


def test_what_the_compiler_sets_is_not_laid_to_the_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_FREEZING", "0")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with undisturbed() as changed, serial_compiler():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = "anywhere"  # as torch does once it compiles
        os.environ["TORCHINDUCTOR_FREEZING"] = "1"
        os.environ["CANDIDATES_OWN"] = "1"
    assert list(changed) == ["environment variables (CANDIDATES_OWN)"]
    assert os.environ["TORCHINDUCTOR_FREEZING"] == "0"
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
