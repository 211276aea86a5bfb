"""Masks, against matrices worked by hand."""

from __future__ import annotations

import pytest
import torch

from holotype_reference.kernels.mask_shapes import is_causal, is_full
from holotype_reference.masks import Mask
from holotype_spec.schema import Bidirectional, Causal, Pattern, SlidingWindow


def mask(
    pattern: Pattern,
    queries: int,
    keys: int,
    *,
    cached: int = 0,
    padding: list[list[int]] | None = None,
) -> Mask:
    return Mask(
        pattern=pattern,
        queries=queries,
        keys=keys,
        cached=cached,
        padding=None if padding is None else torch.tensor(padding) == 1,
        device=torch.device("cpu"),
    )


def rows(visible: torch.Tensor) -> list[str]:
    """One string of 0 and 1 a query, of a mask for one sequence."""
    assert visible.shape[:2] == (1, 1)
    return ["".join(str(int(seen)) for seen in row) for row in visible[0, 0]]


def test_causal_query_sees_itself_and_what_came_before() -> None:
    assert rows(mask(Causal(), 4, 4).visible) == ["1000", "1100", "1110", "1111"]


def test_bidirectional_query_sees_everything() -> None:
    assert rows(mask(Bidirectional(), 2, 3).visible) == ["111", "111"]


def test_window_of_three_holds_the_query_itself_and_two_before() -> None:
    expected = ["10000", "11000", "11100", "01110", "00111"]
    assert rows(mask(SlidingWindow(window=3), 5, 5).visible) == expected


def test_window_of_one_is_the_diagonal() -> None:
    assert rows(mask(SlidingWindow(window=1), 3, 3).visible) == ["100", "010", "001"]


def test_queries_after_a_cache_count_on_from_it() -> None:
    assert rows(mask(Causal(), 2, 5, cached=3).visible) == ["11110", "11111"]


def test_window_after_a_cache_moves_on_with_the_queries() -> None:
    assert rows(mask(SlidingWindow(window=2), 2, 5, cached=3).visible) == ["00110", "00011"]


def test_padding_hides_keys_from_its_own_row_only() -> None:
    visible = mask(Causal(), 3, 3, padding=[[0, 1, 1], [1, 1, 0]]).visible
    assert visible.shape == (2, 1, 3, 3)
    assert rows(visible[:1]) == ["000", "010", "011"]
    assert rows(visible[1:]) == ["100", "110", "110"]


def test_only_the_query_whose_keys_are_all_padding_sees_nothing() -> None:
    sighted = mask(Causal(), 3, 3, padding=[[0, 1, 1]]).sighted
    assert sighted.flatten().tolist() == [False, True, True]


def test_open_mask_shows_everything_to_the_query_that_sees_nothing_and_to_no_other() -> None:
    assert rows(mask(Causal(), 3, 3, padding=[[0, 1, 1]]).open) == ["111", "010", "011"]


def test_what_queries_without_a_key_gave_becomes_zero_and_nothing_else_changes() -> None:
    silenced = mask(Causal(), 3, 3, padding=[[0, 1, 1]]).silence(torch.full((1, 2, 3, 2), 7.0))
    assert silenced[0, :, 0].eq(0).all()
    assert silenced[0, :, 1:].eq(7).all()


PATTERNS = [
    Bidirectional(),
    Causal(),
    *(SlidingWindow(window=window) for window in (1, 2, 3, 4, 6)),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize(("queries", "cached"), [(1, 0), (4, 0), (1, 3), (2, 2), (3, 4)])
def test_shortcuts_are_taken_only_where_they_are_exact(
    pattern: Pattern, queries: int, cached: int
) -> None:
    described = mask(pattern, queries, queries + cached, cached=cached)
    matrix = described.visible[0, 0]
    if is_full(described):
        assert matrix.all()
    if is_causal(described):
        assert matrix.equal(torch.ones(queries, queries).tril().bool())


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_padding_rules_every_shortcut_out(pattern: Pattern) -> None:
    described = mask(pattern, 3, 3, padding=[[1, 1, 1]])
    assert not is_full(described)
    assert not is_causal(described)


def test_common_cases_take_their_shortcut() -> None:
    assert is_full(mask(Bidirectional(), 3, 5))
    assert is_causal(mask(Causal(), 5, 5))
    assert is_causal(mask(SlidingWindow(window=5), 5, 5))
    assert is_full(mask(Causal(), 1, 9, cached=8))
