"""The sweep over the classes of `transformers`: what its page says of a row, and that the page is whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "transformers_classes" / "sweep.py"
PAGE = ROOT / "docs" / "transformers-classes.md"


def sweep() -> Any:
    spec = importlib.util.spec_from_file_location("sweep", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(slug: str, *, pair: list[int] | None = None, level: str = "must") -> dict[str, Any]:
    failure = {"level": level, "reason": "it moved", "path": "eager", "pair": pair}
    return {
        "class": "XForCausalLM",
        "title": "XForCausalLM",
        "passed": [],
        "failed": {slug: failure},
    }


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (row("causality.future-perturbation", pair=[0, 3]), "**sees the future**"),
        # A token of padding stands before the output: nothing was foreseen.
        (row("causality.future-perturbation", pair=[3, 0]), "does not conform"),
        (row("causality.future-perturbation"), "does not conform"),
        (row("cache.chunks"), "does not conform"),
        (row("cache.chunks", level="should"), "conforms"),
        ({"class": "Y", "title": "Y", "unusable": "no"}, "not checked"),
    ],
)
def test_a_class_sees_the_future_only_where_a_later_token_moved_an_output(
    found: dict[str, Any], verdict: str
) -> None:
    pytest.importorskip("transformers")
    page = sweep().table([found])
    assert f"| {found['title']} | {verdict} |" in page


@pytest.mark.slow
def test_the_page_has_a_line_for_every_class_of_the_version_that_it_names() -> None:
    transformers = pytest.importorskip("transformers")
    page = PAGE.read_text(encoding="utf-8")
    if f"`transformers` {transformers.__version__} " not in page.replace("\n", " "):
        pytest.skip("the page is of another version of transformers")
    for name in sweep().names():
        assert f"\n| {name}" in page
