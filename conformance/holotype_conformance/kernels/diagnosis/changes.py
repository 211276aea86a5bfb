"""The ways in which attention kernels are known to be wrong, each as one change of the formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holotype_conformance.kernels import oracle
from holotype_conformance.kernels.cases import (
    AttentionCase,
    TogetherCase,
    packings,
    prefixes,
    visibility,
)

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
    bias: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a kernel that is wrong gives.

    Attributes:
        output: (batch, heads, queries, head_dim).
        size: the same sum over absolute values, the unit of rounding.
        rows: (batch, heads, queries, 1), false for queries without any weight, for which kernels may give anything.
    """

    output: Array
    size: Array
    rows: Visible


def unchanged(terms: Terms, case: AttentionCase) -> Terms | None:
    """The terms as they are."""
    return terms


def softmaxed(scores: Array, terms: Terms) -> Array | None:
    """The weights as they should be."""
    return oracle.softmax(scores)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One way in which kernels are wrong: in what they compute from, or in how they weigh.

    Attributes:
        slug: its name.
        title: what goes on "agrees with the formula if".
        made: other terms; None where it would change nothing.
        weighed: other weights, (batch, heads, queries, keys), of the scores; None where it would change nothing.
    """

    slug: str
    title: str
    made: Callable[[Terms, AttentionCase], Terms | None] = unchanged
    weighed: Callable[[Array, Terms], Array | None] = softmaxed

    def terms(self, terms: Terms, case: AttentionCase) -> Terms | None:
        """What a kernel with this mistake computes from; None where it would change nothing."""
        if isinstance(case, TogetherCase):
            return _of_both(self.made, terms, case)
        return self.made(terms, case)

    def result(self, terms: Terms, case: AttentionCase) -> Result | None:
        """What a kernel with this mistake gives; None where it would change nothing."""
        made = self.terms(terms, case)
        if made is None:
            return None
        group = made.q.shape[1] // made.k.shape[1]
        keys, values = np.repeat(made.k, group, axis=1), np.repeat(made.v, group, axis=1)
        weights = self.weighed(
            oracle.scores(made.q, keys, visible=made.visible, bias=made.bias, scale=made.scale),
            made,
        )
        if weights is None:
            return None
        return Result(
            output=weights @ values,
            size=weights @ np.abs(values),
            rows=np.asarray(weights.any(axis=-1, keepdims=True)),
        )


def _of_both(
    made: Callable[[Terms, AttentionCase], Terms | None], terms: Terms, case: TogetherCase
) -> Terms | None:
    """What becomes of a mask and of causal, each by itself, seen together."""
    alone = [(each, visibility(each)) for each in (case.mask_alone, case.causal_alone)]
    changed = [made(replace(terms, visible=visible), each) for each, visible in alone]
    found = next((each for each in changed if each is not None), None)
    if found is None:
        return None
    seen = [
        visible if each is None else each.visible
        for each, (_, visible) in zip(changed, alone, strict=True)
    ]
    known = [each for each in seen if each is not None]
    return replace(found, visible=reduce(np.logical_and, known) if known else None)


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


def _default(terms: Terms) -> float:
    return float(terms.q.shape[-1] ** -0.5)


def _scale(scale: Callable[[Terms], float]) -> Any:
    """A change of a scale that is told as an argument."""

    def made(terms: Terms, case: AttentionCase) -> Terms | None:
        return None if case.percent is None else replace(terms, scale=scale(terms))

    return made


def _inverse(terms: Terms, case: AttentionCase) -> Terms | None:
    return replace(terms, scale=1.0 / terms.scale) if terms.scale else None


def _as_number(terms: Terms, case: AttentionCase) -> Terms | None:
    if terms.visible is None or case.form != "boolean":
        return None
    return replace(terms, visible=None, bias=terms.visible.astype(np.float64))


def _multiplied(scores: Array, terms: Terms) -> Array | None:
    """A product of a score with false is 0, and 0 a score like any other."""
    return oracle.softmax(np.where(np.isneginf(scores), 0.0, scores))


def _boolean(terms: Terms, case: AttentionCase) -> Terms | None:
    return terms if terms.visible is not None and case.form == "boolean" else None


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
        made=_inverse,
    ),
    Change(
        slug="scale.ignored",
        title="the scale that was told is ignored",
        made=_scale(_default),
    ),
    Change(
        slug="scale.zero-ignored",
        title="a scale of zero is taken for none",
        made=_scale(lambda terms: terms.scale or _default(terms)),
    ),
    Change(
        slug="scale.on-top",
        title="the scale that was told is applied on top of 1/√head_dim",
        made=_scale(lambda terms: terms.scale * _default(terms)),
    ),
    Change(
        slug="softmax.base-two",
        title="the softmax has the base 2: exp2 without the factor log2(e)",
        made=lambda terms, case: replace(terms, scale=terms.scale * math.log(2.0)),
    ),
    Change(
        slug="softmax.log2e-left",
        title="exp is taken of scores that were multiplied by log2(e), as for exp2",
        made=lambda terms, case: replace(terms, scale=terms.scale * math.log2(math.e)),
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
        slug="window.both-sides",
        title="a window with causal reaches to both sides",
        made=_mask(oracle.band, "window"),
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
        slug="mask.as-number",
        title="a boolean mask is added to the scores, as 0 and 1",
        made=_as_number,
    ),
    Change(
        slug="mask.multiplied",
        title="scores are multiplied by a boolean mask, so that hidden ones are 0 and not -inf",
        made=_boolean,
        weighed=_multiplied,
    ),
    Change(
        slug="mask.inverted",
        title="true in a mask hides instead of showing",
        made=_inverted,
    ),
)
