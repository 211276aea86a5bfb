"""The ways in which attention kernels are known to be wrong, each as one change of the formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holotype_conformance.attention import oracle
from holotype_conformance.attention.cases import AttentionCase, packings, prefixes

Array = NDArray[np.float64]
Visible = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the formula is computed from."""

    q: Array
    k: Array
    v: Array
    visible: Visible | None
    scale: float


@dataclass(frozen=True, kw_only=True)
class Change:
    """One way in which kernels are wrong; `made` returns None where it would change nothing."""

    slug: str
    title: str
    made: Callable[[Terms, AttentionCase], Terms | None]


def _mask(draw: Callable[[int, int, int], Visible], *masks: str) -> Any:
    """A change of the mask where one of `masks` is told as arguments; `draw` is given queries, keys and the size."""

    def made(terms: Terms, case: AttentionCase) -> Terms | None:
        if case.mask not in masks or case.form != "arguments":
            return None
        return replace(terms, visible=draw(case.queries, case.keys, case.size)[None, None])

    return made


def _upper_left(queries: int, keys: int, size: int) -> Visible:
    return np.tri(queries, keys, dtype=bool)


def _window_upper_left(queries: int, keys: int, size: int) -> Visible:
    away = np.arange(queries)[:, None] - np.arange(keys)
    return (away >= 0) & (away < size)


def _everything(queries: int, keys: int, size: int) -> Visible:
    return oracle.full(queries, keys)


def _tiled(terms: Terms, case: AttentionCase) -> Terms | None:
    group = case.heads // case.kv_heads
    if group == 1 or case.kv_heads == 1:
        return None
    return replace(
        terms,
        k=np.tile(terms.k, (1, group, 1, 1)),
        v=np.tile(terms.v, (1, group, 1, 1)),
    )


def _prefix(draw: Callable[[int, int, int], Visible], *, first: bool = False) -> Any:
    """A change of each row's prefix; with `first` all rows are given the first one's."""

    def made(terms: Terms, case: AttentionCase) -> Terms | None:
        sizes = prefixes(case)
        if case.mask != "prefix" or case.form != "arguments" or (first and len(sizes) == 1):
            return None
        rows = sizes[:1] if first else sizes
        return _rows(terms, [draw(case.queries, case.keys, size) for size in rows])

    return made


def _documents(draw: Callable[[int, int, tuple[int, ...]], Visible], *, first: bool = False) -> Any:
    """The same of each row's documents."""

    def made(terms: Terms, case: AttentionCase) -> Terms | None:
        lengths = packings(case) if case.mask == "documents" else ()
        if not lengths or case.form != "arguments" or (first and len(lengths) == 1):
            return None
        rows = lengths[:1] if first else lengths
        return _rows(terms, [draw(case.queries, case.keys, row) for row in rows])

    return made


def _rows(terms: Terms, rows: list[Visible]) -> Terms:
    return replace(terms, visible=np.stack(rows)[:, None])


def _starts(queries: int, keys: int, lengths: tuple[int, ...]) -> NDArray[np.int64]:
    """(queries, 1): the key at which the document of each query begins."""
    places = np.clip(np.arange(queries) + keys - queries, 0, keys - 1)
    return np.repeat(np.cumsum((0, *lengths))[:-1], lengths)[places][:, None]


def _one_back(queries: int, keys: int, lengths: tuple[int, ...]) -> Visible:
    begun = np.arange(keys) >= _starts(queries, keys, lengths) - 1
    found: Visible = oracle.causal(queries, keys) & begun
    return found


def _shifted(by: int) -> Callable[[int, int, tuple[int, ...]], Visible]:
    """Every boundary `by` keys further on."""

    def draw(queries: int, keys: int, lengths: tuple[int, ...]) -> Visible:
        ends = np.clip(np.cumsum(lengths)[:-1] + by, 0, keys)
        moved = np.diff(np.concatenate([[0], ends, [keys]]))
        return oracle.documents(queries, keys, [int(length) for length in moved])

    return draw


def _documents_upper_left(queries: int, keys: int, lengths: tuple[int, ...]) -> Visible:
    """The first query stands at the first key."""
    size = max(queries, keys)
    return oracle.documents(size, size, (*lengths, size - keys))[:queries, :keys]


def _both_ways(queries: int, keys: int, lengths: tuple[int, ...]) -> Visible:
    number = np.repeat(np.arange(len(lengths)), lengths)
    places = np.clip(np.arange(queries) + keys - queries, 0, keys - 1)
    found: Visible = number[places][:, None] == number
    return found


def _without_the_last(queries: int, keys: int, lengths: tuple[int, ...]) -> Visible:
    last: Visible = _starts(queries, keys, lengths) == keys - lengths[-1]
    return oracle.documents(queries, keys, lengths) & ~last


def _inverted(terms: Terms, case: AttentionCase) -> Terms | None:
    if terms.visible is None or case.form == "arguments":
        return None
    return replace(terms, visible=~terms.visible)


CHANGES = (
    Change(
        slug="scale.missing",
        title="the scale is missing",
        made=lambda terms, case: replace(terms, scale=1.0),
    ),
    Change(
        slug="scale.twice",
        title="the scale is applied twice",
        made=lambda terms, case: replace(terms, scale=terms.scale**2),
    ),
    Change(
        slug="scale.inverse",
        title="the scale is multiplied by where it is divided",
        made=lambda terms, case: replace(terms, scale=1.0 / terms.scale),
    ),
    Change(
        slug="heads.tiled",
        title="key-value heads are tiled (0 1 0 1) instead of repeated (0 0 1 1)",
        made=_tiled,
    ),
    Change(
        slug="causal.upper-left",
        title="the causal diagonal starts at the first key instead of ending at the last",
        made=_mask(_upper_left, "causal"),
    ),
    Change(
        slug="causal.one-ahead",
        title="each query sees one key beyond the diagonal",
        made=_mask(lambda n, m, size: oracle.distance(n, m) >= -1, "causal"),
    ),
    Change(
        slug="causal.hides-self",
        title="the diagonal itself is hidden",
        made=_mask(lambda n, m, size: oracle.distance(n, m) >= 1, "causal"),
    ),
    Change(
        slug="causal.ignored",
        title="causal is ignored",
        made=_mask(_everything, "causal"),
    ),
    Change(
        slug="window.wider",
        title="the window is one wider",
        made=_mask(lambda n, m, size: oracle.window(n, m, size + 1), "window"),
    ),
    Change(
        slug="window.narrower",
        title="the window is one narrower",
        made=_mask(lambda n, m, size: oracle.window(n, m, size - 1), "window"),
    ),
    Change(
        slug="window.upper-left",
        title="the window's diagonal starts at the first key instead of ending at the last",
        made=_mask(_window_upper_left, "window"),
    ),
    Change(
        slug="window.ignored",
        title="the window is ignored",
        made=_mask(lambda n, m, size: oracle.causal(n, m), "window"),
    ),
    Change(
        slug="band.causal",
        title="a window without causal is causal",
        made=_mask(oracle.window, "band"),
    ),
    Change(
        slug="band.wider",
        title="the band is one wider on each side",
        made=_mask(lambda n, m, size: oracle.band(n, m, size + 1), "band"),
    ),
    Change(
        slug="band.ignored",
        title="a window without causal is ignored",
        made=_mask(_everything, "band"),
    ),
    Change(
        slug="prefix.ignored",
        title="the prefix is ignored",
        made=_prefix(lambda n, m, size: oracle.causal(n, m)),
    ),
    Change(
        slug="prefix.longer",
        title="the prefix is one longer",
        made=_prefix(lambda n, m, size: oracle.prefix(n, m, size + 1)),
    ),
    Change(
        slug="prefix.shorter",
        title="the prefix is one shorter",
        made=_prefix(lambda n, m, size: oracle.prefix(n, m, size - 1)),
    ),
    Change(
        slug="prefix.alone",
        title="nothing but the prefix is seen",
        made=_prefix(lambda n, m, size: oracle.full(n, m) & (np.arange(m) < size)),
    ),
    Change(
        slug="prefix.everything",
        title="a prefix shows everything",
        made=_prefix(_everything),
    ),
    Change(
        slug="prefix.upper-left",
        title="the diagonal behind the prefix starts at the first key instead of ending at the last",
        made=_prefix(lambda n, m, size: _upper_left(n, m, size) | (np.arange(m) < size)),
    ),
    Change(
        slug="prefix.first-row",
        title="every row of the batch has the prefix of the first",
        made=_prefix(oracle.prefix, first=True),
    ),
    Change(
        slug="documents.ignored",
        title="documents are ignored",
        made=_documents(lambda n, m, lengths: oracle.causal(n, m)),
    ),
    Change(
        slug="documents.both-ways",
        title="a document sees itself both ways",
        made=_documents(_both_ways),
    ),
    Change(
        slug="documents.one-back",
        title="each document sees the last token of the one before",
        made=_documents(_one_back),
    ),
    Change(
        slug="documents.late",
        title="every boundary lies one token too late",
        made=_documents(_shifted(1)),
    ),
    Change(
        slug="documents.early",
        title="every boundary lies one token too early",
        made=_documents(_shifted(-1)),
    ),
    Change(
        slug="documents.upper-left",
        title="the first query stands at the first key instead of the last at the last",
        made=_documents(_documents_upper_left),
    ),
    Change(
        slug="documents.last-missing",
        title="the last document is left out",
        made=_documents(_without_the_last),
    ),
    Change(
        slug="documents.first-row",
        title="every row of the batch has the documents of the first",
        made=_documents(oracle.documents, first=True),
    ),
    Change(
        slug="mask.ignored",
        title="the mask is ignored",
        made=lambda terms, case: None if case.form == "arguments" else replace(terms, visible=None),
    ),
    Change(
        slug="mask.inverted",
        title="true in a mask hides instead of showing",
        made=_inverted,
    ),
)
