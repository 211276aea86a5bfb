"""Every path of attention against the formula, over all masks that can be described."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from holotype_reference.attention import eager
from holotype_reference.kernels import blocks
from holotype_reference.kernels import paths as weighted_sum
from holotype_reference.kernels import tiles as tiling
from holotype_reference.kernels.blocks import by_formula
from holotype_reference.kernels.cpu_flash import by_kernel
from holotype_reference.kernels.mask_shapes import of_row, varies
from holotype_reference.kernels.paths import PATHS, cost, route
from holotype_reference.kernels.tiles import Additive, Stripe, halved, striped, tiles, whole
from holotype_reference.masks import Band, Mask
from holotype_spec.schema import Bidirectional, Causal, SlidingWindow

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
Result = tuple[Tensor, ...]
Way = Callable[..., Tensor]


def mask(pattern: object, queries: int, keys: int | None = None, **facts: object) -> Mask:
    """As many keys as queries, nothing cached and nothing padded, unless it is said."""
    given = {"cached": 0, "padding": None, "device": CPU, **facts}
    return Mask(pattern=pattern, queries=queries, keys=keys or queries, **given)  # type: ignore[arg-type]


@st.composite
def masks(draw: st.DrawFn, *, batch: int = 2, longest: int = 150) -> Mask:
    """Any mask that `Mask` can describe, around the sizes at which tiles begin and end."""
    window = st.integers(1, 100)
    pattern = draw(
        st.sampled_from([Bidirectional(), Causal()])
        | st.builds(SlidingWindow, window=window)
        | st.builds(Band, before=st.integers(0, 90), after=st.integers(0, 90))
    )
    queries, cached, extra = draw(st.integers(1, longest)), 0, 0
    if draw(st.booleans()):
        cached, extra = draw(st.integers(0, 100)), draw(st.integers(0, 40))
    keys = cached + queries + extra
    cuts = st.lists(st.integers(1, max(keys - 1, 1)), max_size=3, unique=True).map(sorted)
    lengths = cuts.map(
        lambda found: tuple(np.diff([0, *found, keys]).tolist()) if keys > 1 else (1,)
    )
    prefix = st.integers(0, keys + 3)
    real = st.lists(st.booleans(), min_size=keys, max_size=keys)
    return mask(
        pattern,
        queries,
        keys,
        cached=cached,
        prefix=draw(st.just(0) | prefix | st.tuples(*[prefix] * batch)),
        documents=draw(st.none() | st.tuples(lengths) | st.tuples(*[lengths] * batch)),
        padding=draw(st.none() | st.tuples(*[real] * batch).map(torch.tensor)),
    )


def numbers(
    described: Mask,
    *,
    heads: tuple[int, int] = (4, 2),
    batch: int = 2,
    width: int = 5,
    dtype: torch.dtype = torch.float64,
) -> Result:
    """Query, key, value and an upstream gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(heads[0], described.queries), (heads[1], described.keys)] * 2
    return tuple(
        torch.randn(batch, *shapes[n], width, generator=generator, dtype=torch.float64).to(dtype)
        for n in (0, 1, 3, 2)
    )


def both_ways(path: weighted_sum.WeightedSum, described: Mask, given: Result) -> Result:
    """The result and the gradients by query, key and value."""
    leaves = [x.clone().requires_grad_() for x in given[:3]]
    output = path(*leaves, mask=described, bias=None, scale=0.4, dropout=0.0)
    return (output, *torch.autograd.grad(output, leaves, given[3]))


def by_tiles(height: int | None, way: Way) -> weighted_sum.WeightedSum:
    def path(
        query: Tensor, key: Tensor, value: Tensor, *, mask: Mask, scale: float, **_: object
    ) -> Tensor:
        return way(query, key, value, mask=mask, scale=scale, height=height)

    return path  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def nothing_is_zero_by_chance() -> Iterator[None]:
    """Memory that nobody has written holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def eager_to_tile(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """Small problems take the ways of large ones."""
    monkeypatch.setattr(weighted_sum, "LARGE", 0)
    monkeypatch.setattr(weighted_sum, "KEPT", range(30, 60))
    monkeypatch.setattr(weighted_sum, "MANY", 0)
    monkeypatch.setattr(tiling, "HALVED", range(70, 110))
    monkeypatch.setattr(tiling, "STRIPED", range(20, 140))
    monkeypatch.setattr(tiling, "STRIPE", 16)


@pytest.mark.usefixtures("eager_to_tile")
@pytest.mark.parametrize("name", ["fused", "blocks"])
@settings(deadline=None, max_examples=40)
@given(described=masks())
@example(mask(Causal(), 40, prefix=5, documents=((20, 20),)))
@example(mask(Causal(), 99, padding=(torch.arange(99) < 64).repeat(2, 1)))  # no key in a half
@example(mask(Causal(), 0))
@example(mask(Causal(), 0, 3, documents=((2, 1),), cached=3))
def test_every_path_is_the_formula_forwards_and_backwards(name: str, described: Mask) -> None:
    given = numbers(described)
    expected = both_ways(eager, described, given)
    for found, right in zip(both_ways(PATHS[name], described, given), expected, strict=True):  # type: ignore[index]
        assert found.isfinite().all()
        torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("eager_to_tile")
@settings(deadline=None, max_examples=80)
@given(
    described=masks(batch=1),
    height=st.sampled_from([None, None, 1, 16, 64, 256]),
    stripe=st.sampled_from([whole, halved, striped]),
)
@example(mask(Causal(), 99, 112, cached=13), None, halved)
@example(mask(Causal(), 99, prefix=40), None, striped)
def test_tiles_hold_exactly_what_is_visible(
    described: Mask, height: int | None, stripe: Stripe
) -> None:
    described = replace(of_row(described, 0) if varies(described) else described, documents=None)
    drawn = torch.zeros(len(described.visible), 1, described.queries, described.keys).bool()
    parts = tiles(described, height, stripe)
    added = Additive(described, parts, torch.float32)
    for tile in parts:
        part = added.of(tile)
        seen = torch.ones(1, 1, tile.height, tile.width).bool()
        if part is not None:
            assert part[part != 0].isneginf().all()
            seen = seen & (part == 0)
        drawn[:, :, tile.queries, tile.keys] |= seen.tril() if tile.corner else seen
    assert drawn.equal(described.visible)


def kept(*given: Tensor, mask: Mask, scale: float, height: int | None) -> Tensor:
    return by_formula(*given, mask=mask, scale=scale, height=height, keep=True)


@pytest.mark.usefixtures("eager_to_tile")
@settings(deadline=None, max_examples=60)
@given(described=masks(batch=1), way=st.sampled_from([by_formula, kept, by_kernel]))
@example(described=mask(SlidingWindow(window=3), 5, 28, cached=20), way=by_kernel)
@example(described=mask(SlidingWindow(window=3), 5, 28, cached=20), way=by_formula)
def test_tiles_of_any_height_give_the_same(described: Mask, way: Way) -> None:
    described = replace(of_row(described, 0) if varies(described) else described, documents=None)
    given = numbers(described, batch=1)
    expected = both_ways(eager, described, given)
    for height in (None, 7, 64):
        for found, right in zip(
            both_ways(by_tiles(height, way), described, given), expected, strict=True
        ):
            torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("often", [0, 1 << 30], ids=["packed", "in place"])
@pytest.mark.parametrize("cached", [1, 1 << 14], ids=["one at a time", "several"])
def test_more_rows_than_heads_are_computed_together(
    cached: int, often: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "CACHED", cached)
    monkeypatch.setattr(blocks, "OFTEN", often)
    padding = torch.arange(70) >= torch.tensor([[0], [3], [69], [70], [1]])  # one row sees nothing
    described = mask(Causal(), 70, padding=padding)
    given = numbers(described, batch=5)
    expected = both_ways(eager, described, given)
    for found, right in zip(both_ways(PATHS["blocks"], described, given), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "described",
    [
        mask(Causal(), 400),
        mask(Causal(), 400, 403, cached=3),
        mask(Causal(), 600, prefix=70),
        mask(Causal(), 1000, documents=((1, 599, 400),)),
    ],
    ids=str,
)
def test_long_triangles_are_the_formula(described: Mask, dtype: torch.dtype) -> None:
    given = numbers(described, batch=1)
    expected = both_ways(eager, described, given)
    found = both_ways(PATHS["fused"], described, [x.to(dtype) for x in given])
    budget = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for result, right in zip(found, expected, strict=True):
        torch.testing.assert_close(result.double(), right, rtol=budget, atol=budget)


def test_a_triangle_in_stripes_is_worked_by_hand() -> None:
    found = tiles(mask(Causal(), 400, 403, cached=3), stripe=striped)
    corners = [(400, 192), (208, 192), (16, 16)]
    assert [(tile.height, tile.width) for tile in found] == [(400, 3), *corners]
    # In blocks of 64: a stripe's triangle has six of nine, and below it all is seen.
    assert found[1].area == 6 * 64**2 + (400 - 192) * 192
    assert [tile.width for tile in tiles(mask(Causal(), 400), stripe=halved)] == [256, 144]


def test_gradients_may_be_asked_for_twice() -> None:
    described = mask(Causal(), 300)
    given = numbers(described)
    leaves = [x.clone().requires_grad_() for x in given[:3]]
    output = PATHS["fused"](*leaves, mask=described, bias=None, scale=0.4, dropout=0.0)
    once, again = (
        torch.autograd.grad(output, leaves, given[3], retain_graph=True) for _ in range(2)
    )
    for first, second in zip(once, again, strict=True):
        assert first.equal(second)


SEVERAL_WAYS = [
    mask(Causal(), 50),
    mask(Causal(), 120),
    mask(SlidingWindow(window=7), 40, padding=torch.arange(40) >= torch.tensor([[30], [0]])),
    mask(Causal(), 45, prefix=9, documents=((20, 25),)),
]


@pytest.mark.usefixtures("eager_to_tile")
@pytest.mark.parametrize("name", ["fused", "blocks"])
@pytest.mark.parametrize("described", SEVERAL_WAYS, ids=str)
def test_second_derivatives_are_those_of_the_formula(name: str, described: Mask) -> None:
    given = numbers(described)

    def curvature(path: weighted_sum.WeightedSum) -> Result:
        def loss(*leaves: Tensor) -> Tensor:
            output = path(*leaves, mask=described, bias=None, scale=0.4, dropout=0.0)
            return (output * given[3]).sum() + output.square().sum()

        along = tuple(x.flip(-1) for x in given[:3])
        return torch.autograd.functional.hvp(loss, given[:3], along)[1]  # type: ignore[no-any-return,no-untyped-call]

    expected = curvature(eager)
    assert all(x.any() for x in expected)
    for found, right in zip(curvature(PATHS[name]), expected, strict=True):  # type: ignore[index]
        torch.testing.assert_close(found, right, rtol=0, atol=1e-11)


@pytest.mark.usefixtures("eager_to_tile")
@pytest.mark.parametrize("name", ["fused", "blocks"])
@pytest.mark.parametrize("described", SEVERAL_WAYS[:2], ids=str)
def test_gradients_as_functions_are_those_of_the_formula(name: str, described: Mask) -> None:
    query, key, value, upstream = numbers(described)

    def by_query(path: weighted_sum.WeightedSum) -> Tensor:
        def loss(query: Tensor) -> Tensor:
            output = path(query, key, value, mask=described, bias=None, scale=0.4, dropout=0.0)
            return (output * upstream).sum()

        return torch.func.grad(loss)(query)

    torch.testing.assert_close(by_query(PATHS[name]), by_query(eager), rtol=0, atol=1e-12)  # type: ignore[index]


def test_keeping_weights_pays_for_one_thread_and_many_heads(one_thread: None) -> None:
    kept = weighted_sum._keeping_pays
    assert [kept(64, heads) for heads in (8, 64)] == [False, True]
    assert [kept(side, 64) for side in (63, 256, 257)] == [False, True, False]
    assert [kept(side, 1) for side in (191, 192)] == [False, True]
    torch.set_num_threads(2)
    assert not kept(64, 64)


def test_products_of_a_batch_are_taken_together() -> None:
    """torch takes them one by one where the result of a portion does not lie side by side."""
    described = mask(Causal(), 64)
    query, key, value, upstream = (x.requires_grad_() for x in numbers(described, batch=9))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        found = by_formula(query, key, value, mask=described, scale=0.4)
        torch.autograd.grad(found, (query, key, value), upstream)
    assert "aten::addmm_" not in {event.key for event in profiled.key_averages()}


@pytest.mark.usefixtures("eager_to_tile")
@pytest.mark.parametrize("name", ["fused", "blocks"])
@pytest.mark.parametrize("described", [SEVERAL_WAYS[n] for n in (0, 1, 3)], ids=str)
def test_gradients_of_samples_are_those_of_each_alone(name: str, described: Mask) -> None:
    samples = tuple(torch.stack([x, x.flip(1), 2 * x]) for x in numbers(described)[:3])

    def loss(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found = PATHS[name](query, key, value, mask=described, bias=None, scale=0.4, dropout=0.0)  # type: ignore[index]
        return found.square().sum()

    by_all = torch.func.grad(loss, argnums=(0, 1, 2))
    found = torch.func.vmap(by_all)(*samples)
    for result, right in zip(found, zip(*map(by_all, *samples), strict=True), strict=True):
        torch.testing.assert_close(result, torch.stack(right), rtol=0, atol=1e-11)
    with_one_key = torch.func.vmap(by_all, in_dims=(0, None, 0))(
        samples[0], samples[1][0], samples[2]
    )
    torch.testing.assert_close(with_one_key[0][0], found[0][0], rtol=0, atol=1e-11)


WINDOW = SlidingWindow(window=64)


@pytest.mark.parametrize(
    ("described", "way"),
    [
        (mask(Bidirectional(), 5, 9), "full"),
        (mask(Causal(), 9, prefix=9), "full"),
        (mask(Causal(), 1, 9, cached=8), "full"),
        (mask(Causal(), 1024), "causal"),
        (mask(Causal(), 512), "causal"),
        (mask(SlidingWindow(window=1024), 1024), "causal"),
        (mask(WINDOW, 16), "causal"),
        (mask(WINDOW, 192), "dense"),
        (mask(WINDOW, 1024), "tiles"),
        (mask(WINDOW, 1, 4096, cached=4095), "tiles"),
        (mask(Band(before=32, after=32), 1024), "tiles"),
        (mask(Causal(), 1024, prefix=512), "tiles"),
        (mask(Causal(), 1024, prefix=(512, 3)), "rows"),
        (mask(Causal(), 1024, documents=((512,) * 2,)), "documents"),
        (mask(Causal(), 1024, documents=((512,) * 2, (1024,))), "rows"),
        (mask(Bidirectional(), 512, padding=torch.ones(1, 512).bool()), "dense"),
        (mask(Bidirectional(), 1024, padding=torch.ones(1, 1024).bool()), "tiles"),
    ],
    ids=str,
)
def test_each_mask_goes_the_way_that_pays(described: Mask, way: str) -> None:
    assert route(described, heads=4) == way


def test_a_call_for_each_tile_pays_with_more_heads() -> None:
    short = mask(SlidingWindow(window=128), 256)
    assert [route(short, heads) for heads in (1, 8)] == ["dense", "tiles"]


def test_what_a_way_costs_is_worked_by_hand() -> None:
    # blocks of 64: 16 on the diagonal and 15 + … + 1 below it, of 256
    assert cost(mask(Causal(), 1024), heads=4) == 136 / 256
    # the first block sees itself, each other one itself and the 63 keys before it
    assert cost(mask(WINDOW, 1024), heads=4) == pytest.approx((64 + 15 * 127) / (16 * 1024))
    assert cost(mask(Causal(), 1024, documents=((256,) * 4,)), heads=4) == 40 / 256
    assert cost(mask(Bidirectional(), 1024, documents=((256, 768),)), heads=4) == 0.25**2 + 0.75**2
    assert cost(mask(Causal(), 1024, prefix=(1024, 0)), heads=4) == (1 + 136 / 256) / 2
    # 16 · 8 blocks see the prefix; the other half is causal among itself
    assert cost(mask(Causal(), 1024, prefix=512), heads=4) == (16 * 8 + 36) / 256
    # all against the cache, a block of 64 and one last query among themselves
    expected = (1025 * 100 + 136 * 64**2 + 1025) / (1025 * 1125)
    assert cost(mask(Causal(), 1025, 1125, cached=100), heads=4) == expected


class Drawn(Mask):
    """A subclass that draws another matrix than its attributes say."""

    @property
    def visible(self) -> Tensor:  # type: ignore[override]
        return torch.eye(self.queries, self.keys).bool()[None, None]


@pytest.mark.usefixtures("eager_to_tile")
@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("pattern", [Bidirectional(), Causal(), SlidingWindow(window=3)], ids=str)
def test_a_mask_that_draws_its_own_matrix_is_never_inferred(name: str, pattern: object) -> None:
    described = Drawn(
        pattern=pattern,
        queries=200,
        keys=200,
        cached=0,
        padding=None,
        device=CPU,  # type: ignore[arg-type]
    )
    query, key, value, _ = numbers(described)
    path = PATHS[name]  # type: ignore[index]
    found = path(query, key, value, mask=described, bias=None, scale=1.0, dropout=0.0)
    torch.testing.assert_close(found, value.repeat_interleave(2, dim=1))


@pytest.mark.parametrize("name", PATHS)
def test_large_products_do_not_leave_the_range_of_float16(name: str) -> None:
    # 64 · 40 · 40 = 102,400 is beyond 65,504, a quarter of an eighth of it is not
    query = torch.full((1, 1, 130, 64), 40.0, dtype=torch.float16)
    value = torch.arange(130, dtype=torch.float16).repeat(1, 1, 64, 1).mT.contiguous()
    found = PATHS[name](  # type: ignore[index]
        query, query, value, mask=mask(WINDOW, 130), bias=None, scale=0.125, dropout=0.0
    )
    expected = [(max(i - 63, 0) + i) / 2 for i in range(130)]
    assert found[0, 0, :, 0].tolist() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("name", ["fused", "blocks"])
def test_a_query_that_sees_nothing_gives_zero_and_takes_no_gradient(name: str) -> None:
    padding = torch.ones(2, 200).bool()
    padding[1, :150] = False
    described = mask(SlidingWindow(window=20), 200, padding=padding)
    output, *gradients = both_ways(PATHS[name], described, numbers(described))  # type: ignore[index]
    assert output[1, :, :150].eq(0).all()
    assert all(gradient[1, :, :150].eq(0).all() for gradient in gradients)
    assert all(x.isfinite().all() for x in (output, *gradients))


def test_documents_that_do_not_hold_every_key_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"documents of the lengths \(3, 4\) do not hold 8 keys"):
        mask(Causal(), 8, documents=((3, 4),))
