"""Areas of masks, against hand counts and against the matrices of the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from holotype_conformance.kernels import oracle
from holotype_spec import areas
from holotype_spec.schema import Bidirectional, Causal, SlidingWindow


def matrix(seen: areas.Seen, keys: int) -> np.ndarray:
    place = np.arange(keys)
    return np.stack([(start <= place) & (place < end) for start, end in seen])


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (3, 7), (7, 3), (1, 5)])
def test_intervals_are_the_matrices_of_the_formula(queries: int, keys: int) -> None:
    shape = (queries, keys)
    for seen, expected in [
        (areas.full(*shape), oracle.full(*shape)),
        (areas.causal(*shape), oracle.causal(*shape)),
        (areas.window(*shape, 2), oracle.window(*shape, 2)),
        (areas.band(*shape, before=1, after=1), oracle.band(*shape, 2)),
        (areas.prefix(*shape, 2), oracle.prefix(*shape, 2)),
    ]:
        assert np.array_equal(matrix(seen, keys), expected)
        assert areas.pairs(seen) == expected.sum()


def test_documents_are_triangles() -> None:
    seen = areas.documents([3, 1, 2])
    assert np.array_equal(matrix(seen, 6), oracle.documents(6, 6, [3, 1, 2]))
    assert areas.pairs(seen) == 6 + 1 + 3


def test_a_causal_mask_of_two_blocks_touches_three_of_the_four() -> None:
    assert areas.block_pairs(areas.causal(128, 128), 128) == 3 * 64 * 64


def test_blocks_at_the_edge_count_what_lies_inside() -> None:
    assert areas.block_pairs(areas.full(70, 65), 65) == 70 * 65
    assert areas.block_pairs(areas.causal(70, 70), 70) == 64 * 64 + 6 * 70


def test_a_window_touches_its_own_blocks_only() -> None:
    # 4096 queries in 64 blocks; block b touches its own and the four before it (255 keys back from its first query).
    expected = sum(min(b + 1, 5) for b in range(64)) * 64 * 64
    assert areas.block_pairs(areas.window(4096, 4096, 256), 4096) == expected


def test_a_query_that_sees_nothing_costs_nothing() -> None:
    assert areas.causal(3, 1) == ((0, 0), (0, 0), (0, 1))
    assert areas.block_pairs(areas.causal(3, 1), 1, size=1) == 1


def test_the_patterns_of_specs() -> None:
    assert areas.pairs(areas.pattern_seen(Bidirectional(), 4, 4)) == 16
    assert areas.pairs(areas.pattern_seen(Causal(), 4, 4)) == 10
    assert areas.pairs(areas.pattern_seen(SlidingWindow(window=2), 4, 4)) == 7
