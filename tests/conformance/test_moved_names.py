"""Names that users import, and that have moved: each still leads to what it named."""

import importlib
import subprocess
import sys

import pytest

MOVED = {
    "candidate": "models.candidate",
    "parametrize": "pytest_plugin.parametrize",
    "plugin": "pytest_plugin.plugin",
    "attention.kernel": "kernels.candidate",
}


def named(old: str) -> object:
    return importlib.import_module(f"holotype_conformance.{old}")


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_moved_module_is_the_same_under_its_old_name(old: str, new: str) -> None:
    assert named(old) is named(new)


@pytest.mark.parametrize(
    ("old", "names"),
    [
        ("candidate", "Candidate Difference Floor FunctionCandidate Inputs Labels Outputs seen"),
        ("parametrize", "parametrize_properties"),
        ("attention.kernel", "FunctionKernel KernelCandidate Sizes"),
    ],
)
def test_what_adapters_import_is_there(old: str, names: str) -> None:
    code = f"from holotype_conformance.{old} import {', '.join(names.split())}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_adapter_of_transformers_has_its_old_name_too() -> None:
    pytest.importorskip("transformers")
    assert named("adapters.hf") is named("models.adapters.hf.released")
