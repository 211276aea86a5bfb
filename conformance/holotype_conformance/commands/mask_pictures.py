"""Masks of a model as pictures: what each query sees in one layer, and what it may depend on through all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from textwrap import wrap
from typing import Any, Literal

import numpy as np

from holotype_spec import probe
from holotype_spec.dependencies import Matrix, dependencies, layer_mask, source_dependencies
from holotype_spec.schema import LARGEST, Bidirectional, Pattern, SlidingWindow, Spec

Cell = Literal["seen", "some", "hidden", "unclaimed"]
MEANINGS: dict[Cell, str] = {
    "seen": "seen",
    "some": "some of several",
    "hidden": "hidden",
    "unclaimed": "padding, anything goes",
}
ROUTES = {
    "full": "with no mask at all",
    "causal": "as a triangle that kernels know by a flag",
    "tiles": "tile by tile, each against the keys that it sees",
    "dense": "with all scores and a matrix",
}


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A boolean matrix to be drawn.

    Attributes:
        matrix: (queries, keys), true where a key is seen.
        claimed: (queries,), false for a row of which nothing is said.
    """

    matrix: Matrix
    claimed: Matrix

    def step(self, most: int) -> int:
        """Queries and keys that one cell stands for, so that there are at most so many cells in a line."""
        longest: int = max(self.matrix.shape)
        return -(-longest // most)

    def cells(self, most: int) -> list[list[Cell]]:
        """The matrix as at most so many cells each way."""
        step = self.step(most)
        rows, columns = (range(0, size, step) for size in self.matrix.shape)
        return [[self._cell(slice(i, i + step), slice(j, j + step)) for j in columns] for i in rows]

    def _cell(self, queries: slice, keys: slice) -> Cell:
        claimed = self.claimed[queries]
        if not claimed.any():
            return "unclaimed"
        part = self.matrix[queries, keys][claimed]
        return "seen" if part.all() else "some" if part.any() else "hidden"

    def rows(self) -> list[str]:
        """For machines: a string of 0 and 1 for each query."""
        return ["".join(map(str, row)) for row in self.matrix.astype(int).tolist()]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One kind of attention of a model.

    Attributes:
        name: whose attention to what.
        description: which keys a query sees, in a sentence.
        layer: what one layer shows.
        stack: what an output may depend on after so many layers.
        layers: how many.
        route: how the reference computes it at the model's full length.
        cost: the scores that it computes then, as a share of all; None if it computes none of it.
    """

    name: str
    description: str
    layer: Grid
    stack: Grid
    layers: int
    route: str
    cost: float | None

    def facts(self) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.name,
            "description": self.description,
            "queries": len(self.layer.matrix),
            "keys": self.layer.matrix.shape[1],
            "layer": self.layer.rows(),
            "layers": self.layers,
            "stack": self.stack.rows(),
            "claimed": [int(claimed) for claimed in self.stack.claimed],
            "route": self.route,
            "cost": self.cost,
        }


def drawn_spec(spec: Spec, length: int) -> Spec:
    """The spec, its window and its depth those of a probe if so short an input would not show the window."""
    pattern = spec.architecture.attention.pattern
    if isinstance(pattern, SlidingWindow) and pattern.window >= length:
        return probe(spec)
    return spec


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The choice of a mask among several, see `holotype_spec.dependencies.layer_mask`."""

    prefix: int | None = None
    right_to_left: bool = False

    def at(self, length: int, drawn: int) -> Choice:
        """The same share of another number of tokens."""
        scaled = None if self.prefix is None else self.prefix * length // drawn
        return replace(self, prefix=scaled)


def chosen(spec: Spec, length: int, choice: Choice) -> Choice:
    """The choice that is drawn; a visible prefix of which nothing was said is drawn a third long, to be seen."""
    unsaid = choice.prefix is None and spec.has_prefix and not spec.mixture_of_masks
    return replace(choice, prefix=length // 3) if unsaid else choice


def pictures(
    spec: Spec, small: Spec, length: int, real: Sequence[int], choice: Choice | None = None
) -> list[Picture]:
    """Every mask of a model: of its encoder, of its decoder, and of the decoder over the encoder's output.

    Args:
        spec: the model.
        small: what is drawn, see `drawn_spec`.
        length: of the input in tokens; of a decoder's source three quarters of it, so that the two differ.
        real: (length,) 1 for a real token and 0 for padding, of the source as far as it goes.
        choice: which mask of several.

    Raises:
        ValueError: the model does not have the mask that was chosen.
    """
    pattern = small.architecture.attention.pattern
    choice = chosen(spec, length, choice or Choice())
    words = described(spec.architecture.attention.pattern, pattern, choice)
    told: Any = {"attention_mask": real, **asdict(choice)}
    own = _grid(layer_mask(pattern, length, **told), None)
    stack = _grid(dependencies(small, length, **told), real)
    kind = "encoder" if spec.architecture.structure == "encoder" else "decoder"
    route, cost = _route(
        spec, spec.architecture.attention.pattern, choice.at(spec.max_positions, length)
    )
    writer = Picture(
        name=f"{kind} self-attention",
        description=words,
        layer=own,
        stack=stack,
        layers=small.layers,
        route=route,
        cost=cost,
    )
    if spec.architecture.structure != "encoder-decoder":
        return [writer]
    return [_encoder(spec, length, real), writer, _cross(spec, small, length, real)]


def _encoder(spec: Spec, length: int, real: Sequence[int]) -> Picture:
    source = _source(length, real)
    seen = layer_mask(Bidirectional(), len(source), attention_mask=source)
    route, cost = _route(spec, Bidirectional())
    return Picture(
        name="encoder self-attention",
        description=described(Bidirectional(), Bidirectional()),
        layer=_grid(seen, None),
        stack=_grid(seen, source),  # more layers show no more
        layers=spec.encoder_depth,
        route=route,
        cost=cost,
    )


def _cross(spec: Spec, small: Spec, length: int, real: Sequence[int]) -> Picture:
    source = _source(length, real)
    seen = np.broadcast_to(np.array(source, dtype=bool), (length, len(source)))
    reached = source_dependencies(
        small, length, len(source), attention_mask=real, source_mask=source
    )
    route, cost = _route(spec, Bidirectional(), biased=False)
    return Picture(
        name="decoder cross-attention",
        description="A query of the decoder sees every token of the encoder's output.",
        layer=_grid(seen, None),
        stack=_grid(reached, real),
        layers=small.layers,
        route=route,
        cost=cost,
    )


def _source(length: int, real: Sequence[int]) -> list[int]:
    """The padding of a source that is a quarter shorter; at least one of its tokens is real."""
    size = -(-length * 3 // 4)
    cut = list(real[-size:] if real[0] else real[:size])
    return cut if any(cut) else [1] * size


def _grid(matrix: Matrix, real: Sequence[int] | None) -> Grid:
    claimed = np.ones(len(matrix)) if real is None else np.array(real)
    return Grid(matrix=matrix, claimed=claimed.astype(bool))


def described(pattern: Pattern, drawn: Pattern, choice: Choice | None = None) -> str:
    """The keys that a query sees, in words; of a window, a prefix or a mixture also what is drawn of it."""
    choice = choice or Choice()
    if drawn != pattern:
        shown = f" Drawn: a window of {_window(drawn)} and 2 layers, as in a probe."
    elif pattern.mixed:
        shown = f" Drawn: {_of_mixture(choice)}."
    elif pattern.has_prefix:
        shown = f" Drawn: a prefix of {choice.prefix or 0}."
    else:
        shown = ""
    return pattern.in_words + shown


def _window(pattern: Pattern) -> int:
    """The most keys that a query of a pattern with a window sees."""
    return max(pattern.kept(LARGEST, layers=1))


def _of_mixture(choice: Choice) -> str:
    if choice.right_to_left:
        return "right to left, its own place and those behind it"
    match choice.prefix:
        case None:
            return "all places, as without a choice"
        case 0:
            return "left to right, its own place and those before it"
        case segment:
            return f"its own place, those before it and the first segment of {segment}"


def _route(
    spec: Spec, pattern: Pattern, choice: Choice | None = None, *, biased: bool = True
) -> tuple[str, float | None]:
    """The reference's way to compute a mask at the model's full length, and its share of the scores."""
    import torch

    from holotype_reference.kernels.paths import cost, route
    from holotype_reference.masks import Mask
    from holotype_reference.mixture import drawn
    from holotype_reference.support import unsupported

    if missing := unsupported(spec):
        return f"The reference cannot compute it yet: it lacks {', '.join(missing)}.", None
    length = spec.max_positions
    choice = choice or Choice()
    mask = Mask(
        pattern=drawn(pattern, length, choice.prefix, choice.right_to_left),
        queries=length,
        keys=length,
        cached=0,
        padding=None,
        device=torch.device("cpu"),
        prefix=choice.prefix or 0,
    )
    if biased and spec.architecture.positions.biases_scores:
        way, share = "dense", 1.0  # a bias is a matrix of all scores
    else:
        way, share = route(mask, spec.heads), cost(mask, spec.heads)
    return (
        f"At {length:,} tokens, none of them padding, it is computed {ROUTES[way]}: {share:.0%} of all scores.",
        share,
    )


# SVG --------------------------------------------------------------------------------------------------------------

COLOURS: dict[Cell, str] = {
    "seen": "#1b6ca8",
    "some": "#8fc1e3",
    "hidden": "#eef1f4",
    "unclaimed": "#d9c9a3",
}
SIZE, MARGIN, TITLE, BETWEEN, LINE = 14, 40, 96, 60, 18  # pixels
MOST = 64
WIDEST, LETTERS = (
    720,
    100,
)  # pixels at least, and the letters of a line that fit them in any common typeface


def as_svg(name: str, found: Sequence[Picture]) -> str:
    """All pictures of a model, one below the other, as the text of an SVG file."""
    parts, top = [_text(MARGIN, 30, f"{name}: which keys each query sees", size=18)], 50
    parts += _legend(top)
    top += 2 * LINE
    widths = [WIDEST]
    for picture in found:
        drawn, width, height = _picture(picture, top)
        parts += drawn
        widths.append(width)
        top += height
    width = max(widths)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}"'
        f' viewBox="0 0 {width} {top}" font-family="sans-serif" role="img">'
    )
    background = f'<rect width="{width}" height="{top}" fill="white"/>'
    return "\n".join([head, background, *parts, "</svg>", ""])


def _legend(top: int) -> Iterator[str]:
    for index, (kind, meaning) in enumerate(MEANINGS.items()):
        left = MARGIN + 150 * index
        yield _rect(left, top, SIZE, SIZE, kind)
        yield _text(left + SIZE + 6, top + 12, meaning)


def _picture(picture: Picture, top: int) -> tuple[list[str], int, int]:
    """Its elements, and the width and the height that they need."""
    parts = [_text(MARGIN, top + LINE, picture.name, size=15)]
    said = [*wrap(picture.description, LETTERS), *wrap(picture.route, LETTERS)]
    parts += [_text(MARGIN, top + (2 + n) * LINE, line) for n, line in enumerate(said)]
    below = TITLE + (len(said) - 2) * LINE
    left, height = MARGIN, 0
    titles = ("one layer: queries ↓, keys →", f"all {picture.layers} layers: outputs ↓, inputs →")
    for grid, title in zip((picture.layer, picture.stack), titles, strict=True):
        cells = grid.cells(MOST)
        parts.append(_text(left, top + below - 8, title))
        parts += _cells(cells, left, top + below)
        left += max(len(cells[0]) * SIZE, 220) + BETWEEN
        height = max(height, below + len(cells) * SIZE + 30)
    return parts, left, height


def _cells(cells: list[list[Cell]], left: int, top: int) -> Iterator[str]:
    for i, row in enumerate(cells):
        for j, kind in enumerate(row):
            yield _rect(left + j * SIZE, top + i * SIZE, SIZE - 1, SIZE - 1, kind)


def _rect(x: int, y: int, width: int, height: int, kind: Cell) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{COLOURS[kind]}"/>'


def _text(x: int, y: int, text: str, size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'
