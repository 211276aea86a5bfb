"""The suite must fail every edit of `transformers` that changes what a model does, and none that does not.

What runs is chosen by the environment:

HOLOTYPE_MUTANTS=all           every edit; otherwise the fixed subset that CI runs
HOLOTYPE_MUTANTS_SHARD=i/n     the i-th of n equal parts, counted from 1
HOLOTYPE_KILL_MATRIX=FOLDER    judge every property on every edit, and write kills.json and kills.md there
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import matrix
from .catalogue import FOLDER, VERSION, DoesNotApply, Edit, edits, installed, package
from .runner import UNUSABLE, Server, Verdict, overlay

EDITS = edits()
PAIRS = [(edit, spec) for edit in EDITS for spec in edit.specs]
EVERYTHING = os.environ.get("HOLOTYPE_MUTANTS") == "all"
MATRIX = os.environ.get("HOLOTYPE_KILL_MATRIX")
KILLERS: dict[str, str] = json.loads((FOLDER / "killers.json").read_text())

needs_release = pytest.mark.skipif(
    installed() != VERSION,
    reason=f"the edits quote transformers {VERSION}, here is {installed() or 'none'}",
)


def chosen() -> list[tuple[Edit, str]]:
    """The pairs of edit and spec that this run judges."""
    pairs = [(edit, spec) for edit, spec in PAIRS if EVERYTHING or edit.fast]
    shard = os.environ.get("HOLOTYPE_MUTANTS_SHARD", "1/1")
    index, _, count = shard.partition("/")
    if not 1 <= int(index) <= int(count):
        raise pytest.UsageError(
            f"HOLOTYPE_MUTANTS_SHARD is {shard!r}; expected i/n with 1 <= i <= n"
        )
    return pairs[int(index) - 1 :: int(count)]


def name(pair: object) -> str | None:
    return pair.id if isinstance(pair, Edit) else None


def only(*, observable: bool) -> list[Any]:
    return [
        pytest.param(
            *pair, marks=[pytest.mark.xfail(reason=pair[0].survives)] * bool(pair[0].survives)
        )
        for pair in chosen()
        if pair[0].observable is observable
    ]


@pytest.fixture(scope="session")
def verdicts() -> Iterator[list[tuple[Edit, str, Verdict]]]:
    """Collects verdicts; at the end the kill matrix is written, if it was asked for."""
    found: list[tuple[Edit, str, Verdict]] = []
    yield found
    if MATRIX and found:
        matrix.write(Path(MATRIX), found)


def judged(server: Server, edit: Edit, spec: str) -> Verdict:
    """The verdict; the property that is known to fail goes first, because any failure will do."""
    first = [KILLERS[edit.id]] if edit.id in KILLERS else []
    return server.judge(edit.module, edit.mutated(), spec, stop=not MATRIX, first=first)


@pytest.mark.mutants
@needs_release
@pytest.mark.parametrize(("edit", "spec"), only(observable=True), ids=name)
def test_an_edit_that_changes_the_model_is_caught(
    server: Server, verdicts: list[tuple[Edit, str, Verdict]], edit: Edit, spec: str
) -> None:
    verdict = judged(server, edit, spec)
    verdicts.append((edit, spec, verdict))
    assert not verdict.errors, "\n".join(verdict.errors)
    assert verdict.failed, f"{edit.title}: nothing failed, {verdict.passed} properties passed"
    assert verdict.failed != (UNUSABLE,), f"{edit.title}: refused, not judged: {verdict.reasons}"


@pytest.mark.mutants
@needs_release
@pytest.mark.parametrize(("edit", "spec"), only(observable=False), ids=name)
def test_an_edit_that_changes_nothing_is_not_flagged(
    server: Server, verdicts: list[tuple[Edit, str, Verdict]], edit: Edit, spec: str
) -> None:
    verdict = server.judge(edit.module, edit.mutated(), spec, stop=False)
    verdicts.append((edit, spec, verdict))
    assert not verdict.errors, "\n".join(verdict.errors)
    assert not verdict.failed, f"{edit.title}: {verdict.reasons}"
    assert verdict.passed > 20


HOLOTYPE = "from holotype_conformance.cli import main; main()"
END_TO_END = [
    ("gpt2-scale-dropped", "gpt2", "agreement.logits", 1),
    ("bert-pooler-last-token", "bert-base-uncased", "agreement.logits", 1),
    ("mask-window-one-wider", "mistral-7b-v0.1", "causality.future-perturbation", 1),
    ("cache-query-offset-zero", "llama-7b", "cache.chunks", 1),
    ("equal-default-scale", "bert-base-uncased", "agreement.*", 0),
]


@pytest.mark.mutants
@needs_release
@pytest.mark.parametrize(("id_", "spec", "glob", "code"), END_TO_END)
def test_the_command_exits_with_the_verdict(
    tmp_path: Path, id_: str, spec: str, glob: str, code: int
) -> None:
    edit = next(edit for edit in EDITS if edit.id == id_)
    with overlay(package(), edit.file, edit.mutated(), tmp_path) as folder:
        environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", HOLOTYPE, "check", "hf", "--spec", spec, "--property", glob],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == code, done.stdout + done.stderr
    assert code == 0 or glob in done.stdout


@needs_release
@pytest.mark.parametrize("file", sorted({edit.file for edit in EDITS}))
def test_edits_change_exactly_one_line_and_compile(file: str) -> None:
    before = (package() / file).read_text(encoding="utf-8")
    for edit in (edit for edit in EDITS if edit.file == file):
        after = edit.apply(before)
        pairs = zip(before.splitlines(), after.splitlines(), strict=True)
        assert sum(old != new for old, new in pairs) == 1, edit.id
        compile(after, edit.file, "exec", dont_inherit=True)


def test_an_edit_whose_text_is_gone_is_an_error() -> None:
    edit = EDITS[0]
    with pytest.raises(DoesNotApply, match=edit.id):
        edit.apply("def nothing(): ...")


def test_an_edit_whose_text_is_ambiguous_is_an_error() -> None:
    edit = next(edit for edit in EDITS if not edit.after)
    with pytest.raises(DoesNotApply, match="more than once"):
        edit.apply(f"{edit.old}\n{edit.old}\n")


def test_ids_are_unique() -> None:
    assert len({edit.id for edit in EDITS}) == len(EDITS)


def test_enough_edits_of_every_kind_are_kept() -> None:
    caught = [edit for edit in EDITS if edit.observable]
    assert len(caught) >= 90
    assert len(EDITS) - len(caught) >= 6
    assert sum(edit.fast for edit in caught) >= 40
    families = {spec for edit in caught for spec in edit.specs}
    assert families >= {
        "gpt2",
        "bert-base-uncased",
        "t5-small",
        "llama-7b",
        "llama2-70b",
        "llama3-8b",
        "mistral-7b-v0.1",
    }
