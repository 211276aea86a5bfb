"""Where a name holds, in words: regions and limits made by hand."""

from collections.abc import Sequence
from itertools import product

import pytest

from holotype_conformance.judge.regions import Region, Sight, limit

PADDINGS = ("none", "right", "left")
PATHS = ("fused", "eager")


def words(axis: str, values: Sequence[str]) -> str:
    return f"{axis} {' or '.join(values)}"


def said(agrees, **more: Sequence[str]) -> str | None:  # type: ignore[no-untyped-def]
    axes = {"padding": PADDINGS, "path": PATHS} | more
    regions: list[Region] = [dict(zip(axes, each, strict=True)) for each in product(*axes.values())]
    return limit([Sight(region=each, agrees=agrees(each)) for each in regions], words)


@pytest.mark.parametrize(
    ("agrees", "expected"),
    [
        (lambda r: True, ""),
        (lambda r: r["padding"] == "left", "only padding left"),
        (lambda r: r["padding"] != "left", "not padding left"),
        (lambda r: r["path"] == "eager", "only path eager"),
        (
            lambda r: r["padding"] == "left" and r["path"] == "eager",
            "only padding left path eager",
        ),
        (
            lambda r: r["padding"] == "left" or r["path"] == "eager",
            "not padding none or right path fused",
        ),
    ],
)
def test_a_limit_is_exact_and_names_as_few_axes_and_values_as_can_be(agrees, expected) -> None:  # type: ignore[no-untyped-def]
    assert said(agrees) == expected


def test_what_no_few_words_say_is_not_said() -> None:
    assert said(lambda r: (r["padding"] == "left") == (r["path"] == "eager")) is None
    assert said(lambda r: False) is None
    four = dict.fromkeys("abcd", ("0", "1"))
    assert said(lambda r: "0" not in [r[name] for name in "abc"], **four) == "only a 1 b 1 c 1"
    assert said(lambda r: "0" not in [r[name] for name in "abcd"], **four) is None


def test_an_axis_that_some_regions_lack_is_no_limit() -> None:
    seen = [
        Sight(region={"padding": "left", "path": "eager"}, agrees=True),
        Sight(region={"padding": "left"}, agrees=True),
        Sight(region={"padding": "none", "path": "fused"}, agrees=False),
    ]
    assert limit(seen, words) == "only padding left"
