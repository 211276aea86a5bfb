"""``holotype masks``: a picture of every mask of a model, in the terminal and as SVG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from holotype_conformance.report.terminal import WIDTH, BadInput, carries

if TYPE_CHECKING:
    from holotype_conformance.commands.mask_pictures import Grid, Picture
    from holotype_spec import Spec

LONGEST = 1024
CELLS = {"seen": "██", "some": "▒▒", "hidden": "··", "unclaimed": "░ "}
PLAIN = str.maketrans("█▒·░", "#+.~")  # where the encoding has no such letters
MOST = 36  # cells in a line
ABREAST = 15  # cells up to which two grids stand side by side


@click.command("masks", short_help="Which tokens each one sees, drawn.")
@click.argument("spec")
@click.option(
    "--length",
    type=click.IntRange(1, LONGEST),
    default=12,
    show_default=True,
    help="Tokens to draw. A longer window is drawn as short as in a probe.",
)
@click.option(
    "--padding",
    metavar="[left:|right:]N",
    default="0",
    help="So many of them are padding, on the right if nothing is said.",
)
@click.option(
    "--prefix",
    type=click.IntRange(0),
    help="So many tokens at the start are seen by all, of a model with a visible prefix (by default a"
    " third of them), or are the first of two segments, of one with a mixture of masks.",
)
@click.option(
    "--right-to-left", is_flag=True, help="Of a mixture of masks the one that looks ahead."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON: rows of 0 and 1.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Also as this file.")
def masks(
    spec: str,
    length: int,
    padding: str,
    prefix: int | None,
    right_to_left: bool,
    as_json: bool,
    svg: Path | None,
) -> None:
    """Which keys each query sees, and which tokens it may depend on through the whole stack.

    SPEC is a name of the catalogue (holotype list), or a file of your own: mine.toml, or mine.toml:name where
    it has several variants.
    """
    from holotype_conformance.commands.mask_pictures import Choice, drawn_spec, pictures

    model, real = _load(spec), _real(padding, length)
    small = drawn_spec(model, length)
    try:
        choice = Choice(prefix=prefix, right_to_left=right_to_left)
        found = pictures(model, small, length, real, choice)
    except ValueError as error:
        raise BadInput(f"{model.name}: {error}") from None
    if svg is not None:
        _write_svg(svg, model.name, found)
    if as_json:
        facts = {"spec": model.name, "length": length, "masks": [one.facts() for one in found]}
        click.echo(json.dumps(facts, indent=2))
    else:
        page = "\n".join(_page(model, small, found))
        click.echo(page if carries("".join(CELLS.values())) else page.translate(PLAIN))


def _load(name: str) -> Spec:
    from holotype_spec import SpecError, UnknownSpec, load

    try:
        return load(name)
    except (UnknownSpec, SpecError) as error:
        raise BadInput(str(error)) from None


def _real(padding: str, length: int) -> list[int]:
    """1 for each real token, 0 for padding."""
    side, _, number = padding.rpartition(":")
    if side not in ("", "left", "right") or not (number.isascii() and number.isdigit()):
        raise BadInput(
            f"--padding {padding!r}: expected a number of tokens, or a side and a number, as left:3"
        )
    if int(number) >= length:
        raise BadInput(f"--padding {padding!r}: at least one of the {length} tokens must be real")
    padded, real = [0] * int(number), [1] * (length - int(number))
    return padded + real if side == "left" else real + padded


def _write_svg(path: Path, name: str, found: Sequence[Picture]) -> None:
    from holotype_conformance.commands.mask_pictures import as_svg

    try:
        path.write_text(as_svg(name, found), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}") from None


# The page ---------------------------------------------------------------------------------------------------------


def _page(model: Spec, small: Spec, found: Sequence[Picture]) -> Iterator[str]:
    yield f"{model.name}: which keys each query sees"
    yield ""
    yield "Queries go down, keys across; both are counted from 0."
    grids = [grid for picture in found for grid in (picture.layer, picture.stack)]
    yield "   ".join(f"{CELLS[kind]} {meaning}" for kind, meaning in _legend(grids))
    for picture in found:
        yield ""
        yield picture.name.upper()
        yield from wrap(picture.description, WIDTH)
        yield ""
        yield from _side_by_side(
            _drawn(picture.layer, "one layer: query, keys"),
            _drawn(picture.stack, f"all {picture.layers} layers: output, inputs"),
        )
        yield from wrap(picture.route, WIDTH)


def _legend(grids: Sequence[Grid]) -> Iterator[tuple[str, str]]:
    from holotype_conformance.commands.mask_pictures import MEANINGS

    shown = {kind for grid in grids for row in grid.cells(MOST) for kind in row}
    return ((kind, meaning) for kind, meaning in MEANINGS.items() if kind in shown)


def _drawn(grid: Grid, title: str) -> list[str]:
    rows = grid.cells(MOST)
    step = grid.step(MOST)
    marks = "".join(f"{index * step:<8}" for index in range(0, len(rows[0]), 4))
    lines = [title, f"     {marks}".rstrip()]
    for index, row in enumerate(rows):
        lines.append(f"{index * step:>4} " + "".join(CELLS[kind] for kind in row).rstrip())
    return [*lines, ""]


def _side_by_side(left: list[str], right: list[str]) -> list[str]:
    width = max(map(len, left)) + 4
    if width > 2 * ABREAST + 9:
        return left + right
    rows = range(max(len(left), len(right)))
    pairs = ((column[row : row + 1] or [""] for column in (left, right)) for row in rows)
    return [f"{first[0]:<{width}}{second[0]}".rstrip() for first, second in pairs]
