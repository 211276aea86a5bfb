"""Models of `transformers`, built from a spec's own table, as a source that shares nothing with us."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
import torch

from holotype_spec.schema import Spec

ModelMaker = Callable[..., torch.nn.Module]


def config_values(spec: Spec) -> dict[str, Any]:
    """The keyword arguments of the configuration class; a dot in a key is a nested table."""
    table = spec.family.transformers
    assert table != "none"
    values = (
        {key: reduce(getattr, path.split("."), spec) for key, path in table.fields.items()}
        | table.constants
        | dict.fromkeys(table.absent)
    )
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *outer, last = key.split(".")
        reduce(lambda level, part: level.setdefault(part, {}), outer, nested)[last] = value
    return nested


@pytest.fixture(scope="session")
def their_model() -> ModelMaker:
    """`their_model(spec, attention, device)`: the class that the spec names, float64, evaluating."""
    transformers = pytest.importorskip("transformers")

    def make(spec: Spec, attention: str = "eager", device: str = "cpu") -> torch.nn.Module:
        table = spec.family.transformers
        assert table != "none"
        config = getattr(transformers, table.config_class)(**config_values(spec))
        config._attn_implementation = attention
        with torch.device(device):
            model: Any = getattr(transformers, table.model_class)(config)
        if not spec.architecture.tied_embeddings:
            # Their T5 class ties a fresh model whatever it was told; loading a published file unties it.
            output = model.get_output_embeddings()
            output.weight = torch.nn.Parameter(output.weight.detach().clone())
        made: torch.nn.Module = model.double().eval()
        return made

    return make
