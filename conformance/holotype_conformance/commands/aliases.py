"""``holotype show --aliases``: the facts of one spec under the names of other projects' configurations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from holotype_conformance.commands.pages import section
from holotype_conformance.report.terminal import WIDTH
from holotype_spec.field_names import FIELD_NAMES, FieldNames
from holotype_spec.identify import configuration, value_of
from holotype_spec.schema import LatentAttention, RMSNorm

if TYPE_CHECKING:
    from holotype_spec import Spec

Project = Literal["transformers", "gguf", "litgpt"]


def aliases(spec: Spec) -> dict[str, Any]:
    """The same facts three times, each under the names of a project: name -> value.

    In `transformers` these are the arguments of the class that is this model, dotted where they stand in a table, and
    where it has none the customary names. The keys of GGUF follow the name of the architecture in a file.
    """
    theirs = spec.family.transformers
    return {
        "name": spec.name,
        "transformers_class": None if theirs == "none" else theirs.config_class,
        "transformers": dict(_named(spec, "transformers"))
        if theirs == "none"
        else msgspec.to_builtins(configuration(spec)),
        "gguf": dict(_named(spec, "gguf")),
        "litgpt": dict(_named(spec, "litgpt")),
    }


def page(told: dict[str, Any]) -> str:
    """The same for people."""
    name = told["transformers_class"]
    titles = {
        "transformers": f"transformers, {name}"
        if name
        else "transformers, which has no such class",
        "gguf": "GGUF, after the name of the architecture",
        "litgpt": "LitGPT, Config",
    }
    lines = [f"{told['name']} under the names of other projects"]
    for project, title in titles.items():
        facts = [f"{key} = {_shown(value)}" for key, value in told[project].items()]
        lines += section(title, [line for fact in facts for line in _wrapped(fact)])
    return "\n".join(lines)


def _named(spec: Spec, project: Project) -> Iterator[tuple[str, Any]]:
    for row in FIELD_NAMES:
        value, known = value_of(spec, row.field)
        names = _names(spec, row, project)
        if known and names and value != "none":
            yield names[0], msgspec.to_builtins(value)


def _names(spec: Spec, row: FieldNames, project: Project) -> list[str]:
    """The customary names; an epsilon is called after its norm."""
    names: list[str] = list(getattr(row, project))
    if not spec.has(LatentAttention):
        names = [name for name in names if not name.startswith("latent_attention.")]
    if row.field == "rotary_dim" and not spec.rotary_dim:
        return []
    if row.field == "architecture.normalization.eps" and len(names) > 1:
        rms = spec.has(RMSNorm)
        names = [name for name in names if ("rms" in name) == rms]
    return names


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _wrapped(fact: str) -> list[str]:
    return wrap(fact, WIDTH - 2, subsequent_indent="  ", break_on_hyphens=False)
