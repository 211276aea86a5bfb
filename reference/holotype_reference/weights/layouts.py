"""The layouts of tensors in a family's checkpoints: the tables of ``checkpoint_names``, one file for each family."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from itertools import product

import msgspec
import torch
from einops import rearrange
from torch import Tensor

from holotype_reference.weights.expert_tensors import shapes_apart
from holotype_spec.schema import Experts, Spec


class CheckpointError(ValueError):
    """A checkpoint that is not that of the spec; the message lists everything that is wrong."""


class _Ignored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: tuple[str, ...]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of `checkpoint_names`; the comments in the files say what its sections mean."""

    source: str
    optional_prefix: str
    as_is: dict[str, tuple[str, ...]]
    transposed: dict[str, tuple[str, ...]]
    tied: dict[str, str]
    older_endings: dict[str, str]
    ignored: _Ignored
    zeros: dict[str, tuple[int | str, ...]] = {}
    by_head: dict[str, tuple[str, ...]] = {}
    head_axes: dict[str, tuple[str, ...]] = {}
    transposed_head_axes: dict[str, tuple[str, ...]] = {}
    extra_axes: dict[str, tuple[str, ...]] = {}


@lru_cache
def _table(checkpoint: str) -> _Table:
    folder = files(__package__) / "checkpoint_names"
    file = folder / f"{checkpoint}.toml"
    if not file.is_file():
        if checkpoint == "none":
            raise CheckpointError(
                "there is no table of them for this family yet (its spec has checkpoint = none)"
            )
        known = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())
        raise CheckpointError(
            f"there is no table of names for checkpoint {checkpoint!r}; there is {known}"
        )
    return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), _Table)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One published tensor: what it is made of, each of our shapes, and whether it is transposed.

    The parts stand one below the other along the outputs, or, where `heads` is more than 1, that of each head.
    `shaped` is how the published tensor folds the same numbers, where it has other axes.
    """

    name: str
    parts: dict[str, tuple[int, ...]]
    transposed: bool
    heads: int
    shaped: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._joined if self.shaped is None else self.shaped

    @property
    def _joined(self) -> tuple[int, ...]:
        _, *rest = next(iter(self.parts.values()))
        outputs = sum(shape[0] for shape in self.parts.values())
        return (*rest, outputs) if self.transposed else (outputs, *rest)

    def join(self, weights: Mapping[str, Tensor]) -> Tensor:
        tensors = [weights[part] for part in self.parts]
        joined = tensors[0] if len(tensors) == 1 else self._fuse(tensors)
        joined = joined.T.contiguous() if self.transposed else joined
        return joined.reshape(self.shape)

    def split(self, tensor: Tensor) -> dict[str, Tensor]:
        tensor = tensor.reshape(self._joined)
        tensor = tensor.T.contiguous() if self.transposed else tensor
        if len(self.parts) == 1:
            return dict.fromkeys(self.parts, tensor)
        sizes = [shape[0] // self.heads for shape in self.parts.values()]
        pieces = torch.split(self._heads(tensor), sizes, dim=1)
        return {
            part: piece.flatten(0, 1).clone()
            for part, piece in zip(self.parts, pieces, strict=True)
        }

    def _fuse(self, tensors: list[Tensor]) -> Tensor:
        return torch.cat([self._heads(tensor) for tensor in tensors], dim=1).flatten(0, 1)

    def _heads(self, tensor: Tensor) -> Tensor:
        return rearrange(tensor, "(heads width) ... -> heads width ...", heads=self.heads)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The table of a family, spelt out for one spec: `{layer}` filled in, absent parts left out."""

    rows: tuple[_Row, ...]
    tied: dict[str, str]
    ignored: frozenset[str]
    zeros: dict[str, tuple[int, ...]]
    optional_prefix: str
    older_endings: dict[str, str]

    def recognize(self, published: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """The tensors under today's names, and complaints about names that nothing explains."""
        tensors: dict[str, Tensor] = {}
        problems = []
        known = (
            {row.name for row in self.rows} | self.tied.keys() | self.ignored | self.zeros.keys()
        )
        for name, tensor in published.items():
            today = next(
                (spelling for spelling in self._spellings(name) if spelling in known), None
            )
            if today is None:
                problems.append(f"unexpected {name}")
            elif today in tensors:
                problems.append(f"unexpected {name}: {today} is there under two spellings")
            elif today not in self.ignored:
                tensors[today] = tensor
        return tensors, problems

    def _spellings(self, name: str) -> Iterator[str]:
        for prefix in ("", self.optional_prefix):
            yield prefix + name
            for old, new in self.older_endings.items():
                if name.endswith(old):
                    yield prefix + name.removesuffix(old) + new

    def leave_out_zeros(self, tensors: dict[str, Tensor]) -> list[str]:
        """Drop the buffers that hold nothing; complain where one holds something."""
        dropped = {name: tensors.pop(name) for name in self.zeros if name in tensors}
        return [
            f"{name} is not zero, and this model has nothing to put it in"
            for name, tensor in dropped.items()
            if bool(tensor.any())
        ]

    def untie(self, tensors: dict[str, Tensor]) -> list[str]:
        """Leave each tied tensor under its first name only; complain where the names disagree."""
        problems = []
        for name, first in self.tied.items():
            if name in tensors:
                tensor = tensors.pop(name)
                if not same(tensor, tensors.setdefault(first, tensor)):
                    problems.append(f"{name} is tied to {first} and differs from it")
        return problems


def layout_of(spec: Spec) -> Layout:
    table = _table(spec.family.checkpoint)
    shapes = shapes_apart(spec)
    rows = [
        *_rows(spec, table.as_is, shapes),
        *_rows(spec, table.by_head, shapes, heads=spec.heads),
        *_rows(spec, table.transposed, shapes, transposed=True),
        *(_with_heads(spec, row) for row in _rows(spec, table.head_axes, shapes)),
        *(
            _with_heads(spec, row)
            for row in _rows(spec, table.transposed_head_axes, shapes, transposed=True)
        ),
        *(replace(row, shaped=(1, *row.shape)) for row in _rows(spec, table.extra_axes, shapes)),
    ]
    placed = {part for row in rows for part in row.parts}
    if homeless := sorted(shapes.keys() - placed):
        raise CheckpointError(
            f"the checkpoints of {spec.family.checkpoint} have no place for these of {spec.name}: "
            + ", ".join(homeless)
        )
    names = {row.name for row in rows}
    return Layout(
        rows=tuple(rows),
        # The same name is a second one where the matrices are tied and a row where they are not.
        tied={name: first for name, first in table.tied.items() if name not in names},
        ignored=frozenset(
            name for pattern in table.ignored.names for name, _ in _each(spec, pattern, ())
        ),
        zeros={
            name: tuple(getattr(spec, size) if isinstance(size, str) else size for size in shape)
            for name, shape in table.zeros.items()
        },
        optional_prefix=table.optional_prefix,
        older_endings=table.older_endings,
    )


def _with_heads(spec: Spec, row: _Row) -> _Row:
    """The same with an axis for the heads and one for what each of them has."""
    *rest, width = row.shape
    return replace(row, shaped=(*rest, spec.heads, width // spec.heads))


def _rows(
    spec: Spec,
    patterns: Mapping[str, tuple[str, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    transposed: bool = False,
    heads: int = 1,
) -> Iterator[_Row]:
    for pattern, part_patterns in patterns.items():
        for name, parts in _each(spec, pattern, part_patterns):
            if all(part in shapes for part in parts):
                yield _Row(
                    name=name,
                    parts={part: shapes[part] for part in parts},
                    transposed=transposed,
                    heads=heads,
                )


def _each(
    spec: Spec, pattern: str, parts: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The pattern and its parts with the number of each layer, and of each expert, filled in."""
    blocks = spec.architecture.feed_forward
    experts = blocks.experts if isinstance(blocks, Experts) and "{expert}" in pattern else 1
    for layer, expert in product(range(spec.layers if "{layer}" in pattern else 1), range(experts)):
        numbers = {"{layer}": str(layer), "{expert}": str(expert)}
        yield _filled(pattern, numbers), tuple(_filled(part, numbers) for part in parts)


def _filled(pattern: str, numbers: Mapping[str, str]) -> str:
    for place, number in numbers.items():
        pattern = pattern.replace(place, number)
    return pattern


def same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))
