"""Models of `transformers`, built from a spec's own table, as a source that shares nothing with us."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest
import torch

from holotype_spec.schema import Spec

ModelMaker = Callable[..., torch.nn.Module]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that builds a model of `transformers` waits for its import, and is slow."""
    for item in items:
        if "their_model" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


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
def read_by() -> Callable[[Any, dict[str, torch.Tensor]], None]:
    """`read_by(theirs, tensors)`: a model of theirs reads tensors as it reads a file. It may hold them otherwise."""

    def read(theirs: Any, tensors: dict[str, torch.Tensor]) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        if theirs.state_dict().keys() == tensors.keys():
            theirs.load_state_dict(tensors)
            return
        mapping: Any = get_model_conversion_mapping(theirs)
        how = LoadStateDictConfig(weight_mapping=mapping)
        found, _ = convert_and_load_state_dict_in_model(theirs, tensors, how)
        assert not found.missing_keys
        assert not found.unexpected_keys
        assert not found.mismatched_keys

    return read


@pytest.fixture(scope="session")
def filed() -> Callable[[Any, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """`filed(theirs, tensors)`: what a model of theirs writes to a file for tensors by its own names."""

    def write(theirs: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        from transformers.core_model_loading import revert_weight_conversion

        found: dict[str, torch.Tensor] = revert_weight_conversion(theirs, tensors)
        return found

    return write


@pytest.fixture(scope="session")
def their_model() -> ModelMaker:
    """`their_model(spec, attention, device)`: the class that the spec names, float64, evaluating."""
    transformers = pytest.importorskip("transformers")

    def make(spec: Spec, attention: str = "eager", device: str = "cpu") -> torch.nn.Module:
        table = spec.family.transformers
        assert table != "none"
        config = getattr(transformers, table.config_class)(**config_values(spec))
        config._attn_implementation = attention
        config._experts_implementation = "eager"  # their grouped products know no float64
        with torch.device(device):
            model: Any = getattr(transformers, table.model_class)(config)
        if not spec.architecture.tied_embeddings:
            # Their T5 class ties a fresh model whatever it was told; loading a published file unties it.
            output = model.get_output_embeddings()
            output.weight = torch.nn.Parameter(output.weight.detach().clone())
        made: torch.nn.Module = model.double().eval()
        return made

    return make
