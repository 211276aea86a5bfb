"""LLaMA is read in one sitting: what a call passes on its way from `build` to the softmax is counted, not promised."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import torch

import holotype_reference
import holotype_spec
from holotype_reference.model import build
from holotype_spec.schema import Spec

FOLDER = Path(holotype_reference.__file__).parent
# One of each kind: heads of their own, and heads that share keys and values.
LLAMAS = [holotype_spec.load(name).probe() for name in ("llama-2-7b", "llama3-8b")]
SCREEN = 50


def passed(call: Callable[[], Any]) -> set[CodeType]:
    """The functions of the reference that a call enters, comprehensions counted as such."""
    entered: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(FOLDER)):
            entered.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return entered


def read(spec: Spec) -> set[CodeType]:
    """What a reader passes who follows a batch of token ids through a model that is built for it."""
    tokens = torch.ones(2, 7, dtype=torch.long)
    return passed(lambda: build(spec, path="eager")(tokens))


@pytest.mark.parametrize("spec", LLAMAS, ids=lambda spec: spec.name)
def test_llama_is_read_in_ten_files_of_1300_lines_and_sixty_functions(spec: Spec) -> None:
    functions = read(spec)
    files = {Path(code.co_filename) for code in functions}
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    named = sorted(str(file.relative_to(FOLDER)) for file in files)
    assert len(files) <= 10, named
    assert lines <= 1300, named
    assert len(functions) <= 60, sorted(code.co_qualname for code in functions)
    assert {"model.py", "attention.py"} <= set(named)
    assert "eager" in {code.co_qualname for code in functions}


def test_the_guide_names_the_files_of_llama() -> None:
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    llama = guide.partition("## LLaMA")[2].partition("\n## ")[0]
    for code in read(LLAMAS[0]):
        name = str(Path(code.co_filename).relative_to(FOLDER))
        assert f"`{name}`" in llama, name


def test_the_files_that_the_guide_names_are_there() -> None:
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = {part for part in guide.split("`") if part.endswith(".py")}
    assert len(named) > 20
    assert [name for name in sorted(named) if not (FOLDER / name).is_file()] == []


def sources() -> Iterator[Path]:
    return FOLDER.rglob("*.py")


def test_no_file_of_the_reference_is_crammed() -> None:
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in sources()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_every_function_of_the_reference_fits_a_screen() -> None:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{file.name}: {node.name}": node.end_lineno - node.lineno
        for file in sources()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, functions) and node.end_lineno is not None
        if node.end_lineno - node.lineno >= SCREEN
    }
    assert long == {}


def test_what_only_others_need_is_not_read_with_llama() -> None:
    entered = {Path(code.co_filename).name for code in read(LLAMAS[0])}
    others = ("two_streams.py", "mask_decoder.py", "two_dimensional.py", "disentangled.py")
    assert entered.isdisjoint(others)
    for code in read(LLAMAS[0]):
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        assert set(arguments).isdisjoint({"order", "right_to_left", "memory", "distances"}), code
