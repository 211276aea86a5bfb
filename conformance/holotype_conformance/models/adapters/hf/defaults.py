"""Defaults of Hugging Face `transformers` configurations, where their file says nothing.

``python -m holotype_conformance.models.adapters.hf.defaults`` writes holotype_spec/transformers_defaults.json anew,
so that `holotype identify` can name these defaults where `transformers` is not installed.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

import holotype_spec
from holotype_spec import identify


def defaults() -> dict[str, Any]:
    """The version, and for each configuration class of the catalogue its own keys and their defaults."""
    classes = {
        spec.family.transformers.config_class
        for spec in holotype_spec.complete()
        if spec.family.transformers != "none"
    }
    found = {name: _of(getattr(transformers, name)) for name in sorted(classes)}
    return {"version": transformers.__version__, "classes": found}


def _of(config_class: Any) -> dict[str, Any]:
    general = inspect.signature(transformers.PreTrainedConfig.__init__).parameters
    config = config_class()
    known = inspect.signature(config_class.__init__).parameters
    own = {
        key: getattr(config, key) for key in known if key not in general and hasattr(config, key)
    }
    found = identify.flat(json.loads(json.dumps(own)))
    return {key: None if _follows(key, found, known) else found[key] for key in sorted(found)}


def _follows(key: str, found: dict[str, Any], known: Mapping[str, inspect.Parameter]) -> bool:
    """Whether the class has no number of its own, but takes that of other sizes."""
    return (
        key in known
        and known[key].default is None
        and found[key] is not None
        and identify.followed(key, found) == found[key]
    )


if __name__ == "__main__":
    path = Path(identify.DEFAULTS)
    path.write_text(json.dumps(defaults(), indent=1) + "\n", encoding="utf-8")
