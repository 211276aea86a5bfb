"""What a configuration of Hugging Face `transformers` says where its file says nothing.

``python -m holotype_conformance.adapters.hf_defaults`` writes holotype_spec/transformers_defaults.json anew, so that
`holotype identify` can name these defaults where `transformers` is not installed.
"""

from __future__ import annotations

import inspect
import json
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
    return dict(sorted(identify.flat(json.loads(json.dumps(own))).items()))


if __name__ == "__main__":
    path = Path(identify.DEFAULTS)
    path.write_text(json.dumps(defaults(), indent=1) + "\n", encoding="utf-8")
