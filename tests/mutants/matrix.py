"""The kill matrix: which property fails on which edit, as JSON and as a page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from .catalogue import Edit
from .runner import Verdict

Judged = tuple[Edit, str, Verdict]


def write(folder: Path, judged: Iterable[Judged]) -> None:
    """Add these verdicts to ``kills.json`` in `folder`, and draw ``kills.md`` anew."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kills{_worker()}.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for edit, spec, verdict in judged:
        rows[f"{edit.id} {spec}"] = row(edit, spec, verdict)
    path.write_text(json.dumps(rows, indent=1))
    path.with_suffix(".md").write_text(page(list(rows.values())))


def row(edit: Edit, spec: str, verdict: Verdict) -> dict[str, object]:
    """One line of the matrix."""
    return {
        "id": edit.id,
        "spec": spec,
        "title": edit.title,
        "report": edit.report,
        "observable": edit.observable,
        "failed": list(verdict.failed),
        "errors": list(verdict.errors),
    }


def page(rows: list[dict[str, object]]) -> str:
    """Markdown: how many edits each property catches, how many it alone, and each edit's catchers."""
    observable = [row for row in rows if row["observable"]]
    alone = [row["failed"][0] for row in observable if len(row["failed"]) == 1]  # type: ignore[arg-type, index]
    catchers = [slug for row in observable for slug in row["failed"]]  # type: ignore[attr-defined]
    lines = ["| property | catches | alone |", "| --- | --- | --- |"]
    for slug in sorted(set(catchers)):
        lines.append(f"| `{slug}` | {catchers.count(slug)} | {alone.count(slug)} |")
    lines += ["", "| edit | spec | what it does | caught by |", "| --- | --- | --- | --- |"]
    for row in rows:
        found = ", ".join(f"`{slug}`" for slug in row["failed"])  # type: ignore[attr-defined]
        nothing = "**survives**" if row["observable"] else "nothing, as it must"
        lines.append(f"| {row['id']} | {row['spec']} | {row['title']} | {found or nothing} |")
    return "\n".join(lines) + "\n"


def _worker() -> str:
    """A part of the file's name, so that parallel processes do not overwrite each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return f"-{worker}" if worker else ""
