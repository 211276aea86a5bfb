"""Every class of Hugging Face `transformers` that is offered for causal language modelling, held to `causal-decoder`.

Run it as ``python examples/transformers_classes/sweep.py results.jsonl``; it takes about a quarter of an hour on one
core, appends a line a class, and goes on where it was stopped. With ``--table`` it prints docs/transformers-classes.md
from the lines that are there.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holotype_conformance.judge.records import Result

MEMORY = (
    12 << 30
)  # bytes of address space: a class whose sizes are not found must not take the machine with it
SECONDS = 30.0  # for one property
EXAMPLES = {  # the properties that tell most about an unknown class, and the cases drawn for each
    "interface.outputs": 4,
    "causality.future-perturbation": 12,
    "causality.required-dependence": 2,
    "causality.truncation": 6,
    "padding.right-invariance": 3,
    "padding.left-invariance": 3,
    "batch.size": 3,
    "cache.chunks": 4,
    "causality.long-rows": 2,
    "cache.long-rows": 2,
}

WHO_SEES_WHOM = ("causality.future-perturbation", "causality.long-rows")

HEAD = """\
# Which classes of `transformers` are causal decoders

Every class of `transformers` {version} that is offered for causal language modelling, built small by `hf:ClassName`
and held to the generic spec `causal-decoder`, by ten properties with few cases each, on every attention that it has.
A class whose configuration decides whether it is causal is told so (in brackets).
`python examples/transformers_classes/sweep.py` does it again.

{counts}

A class sees the future where an output moves with a token that comes after it; CPM-Ant does so by design (it reads its
whole prompt both ways), and is called causal all the same, and Reformer beyond 128 tokens, where those that come later
choose the buckets of those before them. Other failures are weaker: what a recurrent cache cannot do,
for instance, is no wrong model, and a class may count its positions through left padding. `holotype explain` says what
each property demands, and `holotype check hf:CLASS --spec causal-decoder` shows a case.

| class | verdict | fails |
| --- | --- | --- |
"""


def names() -> list[str]:
    """Those that the library itself lists, and those that are called so."""
    import transformers

    from holotype_conformance.models.adapters.hf.any_class import CLAIMS

    mapping, ending = CLAIMS["decoder"]
    listed = {name for name in mapping.values() if hasattr(transformers, name)}
    called = {name for name in dir(transformers) if name.endswith(ending)}
    return sorted((listed | called) - {"AutoModelForCausalLM"}, key=str.lower)


def judged(name: str) -> dict[str, Any]:
    """What became of one class."""
    from holotype_conformance.judge.engine import Settings, judge
    from holotype_conformance.models.adapters.hf.any_class import ClassCandidate
    from holotype_conformance.models.properties import all_properties
    from holotype_conformance.models.subject import Subject
    from holotype_spec import load

    try:
        candidate = ClassCandidate(name)
        subject = Subject(candidate, load("causal-decoder"))
        if refusal := candidate.refusal(subject.spec):
            return {"class": name, "title": name, "unusable": refusal}
        subject.smoke()
    except Exception as error:
        return {"class": name, "title": name, "unusable": str(error)}
    results = [
        judge(subject, replace(each, examples=EXAMPLES[each.slug]), Settings(limit=SECONDS))
        for each in all_properties()
        if each.slug in EXAMPLES
    ]
    return {
        "class": name,
        "title": candidate.title.removeprefix("hf:"),
        "passed": [each.property for each in results if each.outcome == "passed"],
        "failed": {
            each.property: {
                "level": each.level,
                "reason": each.reason,
                "path": _facts(each).get("path"),
                "pair": _facts(each).get("pair"),
            }
            for each in results
            if each.outcome in ("failed", "error")
        },
    }


def _facts(result: Result) -> dict[str, Any]:
    return result.counterexample.facts if result.counterexample else {}


def sweep(path: Path) -> None:
    """Judge what has no line yet."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    done = {row["class"] for row in rows(path)}
    with path.open("a", encoding="utf-8") as file:
        for name in names():
            if name not in done:
                row = judged(name)
                print(json.dumps(row), file=file, flush=True)
                print(name, row.get("unusable") or list(row["failed"]) or "conforms", flush=True)


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines that are there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(found: list[dict[str, Any]]) -> str:
    """The page."""
    import transformers

    conforming = [row for row in found if "failed" in row and not _musts(row)]
    unusable = [row for row in found if "unusable" in row]
    future = [row for row in found if _sees_the_future(row)]
    counts = (
        f"Of {len(found)} classes {len(conforming)} conform, {len(found) - len(conforming) - len(unusable)} do not"
        f" ({len(future)} for seeing the future), and {len(unusable)} were not checked, for the reason given."
    )
    lines = sorted(found, key=lambda row: row["class"].lower())
    return HEAD.format(version=transformers.__version__, counts=counts) + "".join(
        f"| {row['title']} | {verdict} | {fails} |\n"
        for row in lines
        for verdict, fails in [_told(row)]
    )


def _musts(row: dict[str, Any]) -> list[str]:
    return [slug for slug, failure in row["failed"].items() if failure["level"] == "must"]


def _sees_the_future(row: dict[str, Any]) -> bool:
    """An output moved with a token that comes after it (and is no padding, which may stand before it too)."""
    failures = (row.get("failed", {}).get(slug, {}) for slug in WHO_SEES_WHOM)
    pairs = [failure["pair"] for failure in failures if failure.get("pair")]
    return any(output < token for output, token in pairs)


def _told(row: dict[str, Any]) -> tuple[str, str]:
    if "unusable" in row:
        return "not checked", " ".join(row["unusable"].split())[:110].replace("|", "/")
    verdict = "does not conform" if _musts(row) else "conforms"
    if _sees_the_future(row):
        verdict = "**sees the future**"
    return verdict, ", ".join(_failures(row))


def _failures(row: dict[str, Any]) -> Iterator[str]:
    for slug, failure in row["failed"].items():
        path = f" ({failure['path']})" if failure["path"] else ""
        should = "" if failure["level"] == "must" else "should: "
        yield f"{should}{slug}{path}"


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--table"]
    results = Path(arguments[0] if arguments else "results.jsonl")
    if "--table" in sys.argv:
        print(table(rows(results)), end="")
    else:
        sweep(results)
