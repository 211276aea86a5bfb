"""Weights under the names and in the layouts of the published checkpoints, and back.

How a family's checkpoints call and lay out their tensors is data: ``checkpoint_names/<family>.toml``,
chosen by the spec's `family.checkpoint`. The maps are complete both ways: each of our parameters has
a place, and a name that has no place is an error, as is one that is missing or has another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from torch import Tensor

from holotype_reference.weights.expert_tensors import apart, together
from holotype_reference.weights.layouts import CheckpointError, layout_of
from holotype_spec.reading import MEGABYTE, parse_json, read_text
from holotype_spec.schema import Spec
from holotype_spec.tensors import tensor_table

__all__ = [
    "CheckpointError",
    "Weights",
    "canonical",
    "load_safetensors",
    "published",
    "save_safetensors",
]

INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"


class Weights(dict[str, Tensor]):
    """The weights of one model, by canonical name, laid out as `tensor_table` says."""

    def __init__(self, spec: Spec, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.spec = spec

    def published(self) -> dict[str, Tensor]:
        """The same weights under the names and in the layouts of the published checkpoint."""
        return published(self.spec, self)


def published(spec: Spec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`weights` as the published checkpoint has them.

    The names are exactly those of the ``state_dict`` of the pretraining class on the Hugging Face
    hub, second names of tied tensors included: those are the very same tensors as their first.
    Tensors whose layout is ours are not copied.

    Args:
        spec: the model.
        weights: every tensor of `tensor_table(spec)`, by name.

    Raises:
        CheckpointError: for a parameter that is missing, unexpected, or has another shape.
    """
    expected = {parameter.name: parameter.shape for parameter in tensor_table(spec)}
    _raise_for(spec, "weights", _differences(expected, _shapes(weights)))
    layout = layout_of(spec)
    parts = apart(spec, weights)
    tensors = {row.name: row.join(parts) for row in layout.rows}
    like = next(iter(tensors.values()))
    tensors |= {name: like.new_zeros(shape) for name, shape in layout.zeros.items()}
    return tensors | {name: tensors[first] for name, first in layout.tied.items()}


def canonical(spec: Spec, published: Mapping[str, Tensor]) -> Weights:
    """The weights of a published checkpoint under our names; the inverse of `published`.

    Older spellings of names are understood. Of a tied tensor the first name, the second or both may
    be there. Tensors whose layout is ours are not copied; parts of fused ones are.

    Args:
        spec: the model.
        published: every tensor of the checkpoint, by name.

    Raises:
        CheckpointError: for names that are missing or unexpected, tensors of another shape, and tied
            tensors that differ. Nothing is returned then: there are no partial loads.
    """
    layout = layout_of(spec)
    tensors, problems = layout.recognize(published)
    problems += layout.leave_out_zeros(tensors)
    problems += layout.untie(tensors)
    problems += _differences({row.name: row.shape for row in layout.rows}, _shapes(tensors))
    _raise_for(spec, "checkpoint", problems)
    parts = [row.split(tensors[row.name]) for row in layout.rows]
    found = {name: tensor for part in parts for name, tensor in part.items()}
    return Weights(spec, together(spec, found))


def load_safetensors(path: str | Path, spec: Spec) -> Weights:
    """The weights in a published checkpoint, under our names.

    Args:
        path: a safetensors file, or a folder with `model.safetensors` or with the index of several.
        spec: the model that it holds.

    Raises:
        CheckpointError: when the file is not a safetensors file or not the checkpoint of `spec`.
        FileNotFoundError: when it, or a file that an index names, is not there.
    """
    tensors: dict[str, Tensor] = {}
    for file, names in _files(Path(path)).items():
        tensors |= _read(file, names)
    try:
        return canonical(spec, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def save_safetensors(path: str | Path, spec: Spec, weights: Mapping[str, Tensor]) -> None:
    """Write one safetensors file with the published names; tied tensors once, as the format asks.

    Args:
        path: the file to write; an existing one is replaced.
        spec: the model.
        weights: every tensor of `tensor_table(spec)`, by name.

    Raises:
        CheckpointError: as `published` does.
    """
    from safetensors.torch import save_file

    second_names = layout_of(spec).tied
    tensors = {
        name: tensor.detach().contiguous()
        for name, tensor in published(spec, weights).items()
        if name not in second_names
    }
    save_file(tensors, Path(path), metadata={"format": "pt"})


# Differences --------------------------------------------------------------------------------------


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> list[str]:
    missing = [f"missing {name}" for name in expected if name not in found]
    unexpected = [f"unexpected {name}" for name in found if name not in expected]
    misshaped = [
        f"{name} has the shape {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    return missing + unexpected + misshaped


def _raise_for(spec: Spec, what: str, problems: list[str]) -> None:
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise CheckpointError(f"these are not the {what} of {spec.name}:{listed}")


# Files --------------------------------------------------------------------------------------------


def _files(path: Path) -> dict[Path, list[str] | None]:
    """Each file of a checkpoint, and the names to take from it (None is all)."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a safetensors file or a folder")
    if not path.is_dir():
        return {path: None}
    if not (path / INDEX).is_file():
        if not (path / SINGLE_FILE).is_file():
            raise FileNotFoundError(f"{path} holds neither {SINGLE_FILE} nor {INDEX}")
        return {path / SINGLE_FILE: None}
    return _indexed_files(path)


def _indexed_files(folder: Path) -> dict[Path, list[str] | None]:
    try:
        places = msgspec.convert(
            parse_json(read_text(folder / INDEX, most=100 * MEGABYTE), INDEX, entries=10_000_000)[
                "weight_map"
            ],
            dict[str, str],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / INDEX} has no readable weight_map: {error}") from error
    named: dict[Path, list[str] | None] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise CheckpointError(f"{folder / INDEX} names {file!r}; expected a file beside it")
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / INDEX} names {file}, which is not there")
        named[folder / file] = [name for name, place in places.items() if place == file]
    return named


def _read(file: Path, names: list[str] | None) -> dict[str, Tensor]:
    """The named tensors of one safetensors file, or all of them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            held = opened.keys()
            if absent := [name for name in names or () if name not in held]:
                raise CheckpointError(
                    f"{file} does not hold {', '.join(absent)}, as its index says"
                )
            return {name: opened.get_tensor(name) for name in names or held}
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} cannot be read as safetensors ({error}); pickled checkpoints (.bin, .pt) are "
            "not read: convert them first"
        ) from error
