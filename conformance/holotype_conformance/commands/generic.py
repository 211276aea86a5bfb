"""The page of ``holotype show`` for a generic spec: its promises, its hints, and its use."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import msgspec

from holotype_conformance.commands.pages import aligned, flat, section, sources_told
from holotype_conformance.report.terminal import WIDTH
from holotype_spec.schema import SIZES

if TYPE_CHECKING:
    from holotype_spec import Spec

ABOUT = (
    "No model, but a kind of model: for an implementation whose architecture is in no catalogue. What it promises"
    " is checked, by every property that needs no reference and no exact count; all else is a hint, for whoever"
    " builds one, and may be passed over."
)


def facts(spec: Spec) -> dict[str, Any]:
    """The same keys as of a model; `binding` says which of them are promises, and nothing is counted."""
    return {
        "name": spec.name,
        "family": spec.family.name,
        "title": spec.family.title,
        "aliases": list(spec.aliases),
        "sources": msgspec.to_builtins(spec.family.sources),
        "binding": list(spec.family.binding),
        "architecture": msgspec.to_builtins(spec.architecture),
        "sizes": {size: getattr(spec, size) for size in SIZES},
        "parameters": {"total": None, "backbone": None, "components": {}, "published": None},
        "costs": None,
    }


def page(spec: Spec) -> str:
    """The same for people."""
    known = facts(spec)
    fields = dict(flat(known["sizes"])) | dict(flat(known["architecture"], "architecture."))
    promised = {key: text for key, text in fields.items() if key in known["binding"]}
    hints = {key: text for key, text in fields.items() if key not in promised}
    told = [f"{spec.name}: {spec.family.title}", "", *wrap(ABOUT, WIDTH)]
    told += section("Promised, and checked", _told(promised))
    told += section("Hints", _told(hints))
    told += section("Use", [f"holotype check TARGET --spec {spec.name}"])
    told += section("Sources", sources_told(known["sources"]))
    return "\n".join(told)


def _told(fields: dict[str, str]) -> list[str]:
    return aligned([(key.removeprefix("architecture."), text) for key, text in fields.items()])
