"""Figures as documents print them, and one value judged by another: cases worked by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from holotype_spec.claims.judging import judged
from holotype_spec.claims.schema import Claim
from holotype_spec.figures import Figure, printed


def claim(value: Any, unit: Any = None, relation: Any = "is") -> Claim:
    return Claim(field="any", value=value, unit=unit, relation=relation, quote="…")


# Figures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("digits", "unit", "value", "grain"),
    [
        ("1.1", "亿", 110_000_000, 10_000_000),
        ("1.17", "亿", 117_000_000, 1_000_000),
        ("4.0", "亿", 400_000_000, 10_000_000),
        ("4", "亿", 400_000_000, 100_000_000),
        ("6000", "万", 60_000_000, 10_000_000),
        ("1750", "亿", 175_000_000_000, 1_000_000_000),
        ("30000", None, 30_000, 10_000),
        ("8", "Ki", 8192, 1024),
        ("0", None, 0, 1),
    ],
)
def test_a_figure_says_as_much_as_its_digits(
    digits: str, unit: str | None, value: int, grain: int
) -> None:
    figure = Figure(digits=digits, unit=unit)
    assert (figure.value, figure.grain) == (value, grain)


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (110_106_428, "亿", "1.101 亿"),
        (174_604_468_224, "亿", "1746 亿"),
        (60_506_624, "万", "6051 万"),
        (50_257, None, "50,257"),
        (16_000_000_000, "GB", "16 GB"),
        (Decimal("4.008"), "times-more", "4.008 times more"),
        (0, "B", "0 B"),
    ],
)
def test_a_number_is_printed_in_the_unit_of_the_document(
    number: Any, unit: str | None, text: str
) -> None:
    assert printed(Decimal(number), unit) == text


# Verdicts, worked by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "known", "verdict"),
    [
        ("1.1", "亿", 110_106_428, "rounds"),  # BERT-Base: 1.10 × 10^8
        ("1.1", "亿", 115_000_000, "rounds"),  # the half is still printed so
        ("1.1", "亿", 115_000_001, "near"),
        ("1.1", "亿", 110_000_000, "exact"),
        ("1.17", "亿", 116_534_784, "rounds"),  # GPT-1: 1.165
        ("1.16", "亿", 116_534_784, "near"),
        ("7.7", "亿", 737_668_096, "near"),  # T5-large: 4 % off
        ("110", "亿", 11_307_321_344, "rounds"),  # T5-11B: 113 is 110 in tens
        ("1750", "亿", 174_604_468_224, "rounds"),
        ("30000", None, 30_522, "rounds"),
        ("6000", "万", 60_506_624, "rounds"),
        ("1.5", "亿", 124_697_433, "contradicted"),  # RoBERTa-base: a fifth off
        ("110", None, 100, "near"),  # a tenth of 100
        ("111", None, 100, "contradicted"),
        ("7", "亿", 6_738_415_616, "contradicted"),  # 7 亿 is 0.7 billion
        ("128", "K", 128_256, "rounds"),
        ("8", "Ki", 8192, "exact"),
        (12, None, 12, "exact"),
        (1280, None, 1281, "contradicted"),  # a bare whole number is never nearly right
    ],
)
def test_a_number_is_judged_by_the_digits_that_are_printed(
    value: Any, unit: str | None, known: int, verdict: str
) -> None:
    assert judged(claim(value, unit), Decimal(known)) == verdict


@pytest.mark.parametrize(
    ("value", "relation", "known", "verdict"),
    [
        ("1", "at-least", 1_400_000_000_000, "exact"),
        ("1", "at-least", 1_000_000_000_000, "exact"),
        ("1", "at-least", 800_000_000_000, "rounds"),
        ("1", "at-least", 300_000_000_000, "contradicted"),
        ("1", "at-most", 300_000_000_000, "exact"),
        ("1", "at-most", 2_000_000_000_000, "contradicted"),
    ],
)
def test_a_bound_holds_on_its_side(value: str, relation: str, known: int, verdict: str) -> None:
    assert judged(claim(value, "T", relation), Decimal(known)) == verdict


@pytest.mark.parametrize(
    ("value", "relation", "known", "verdict"),
    [
        ("post-norm", "is", "post-norm", "exact"),
        ("pre-norm", "is", "post-norm", "contradicted"),
        ("gelu", "is", "gelu-tanh", "near"),
        ("relu", "is", "gelu-tanh", "contradicted"),
        (("gelu", "gelu-tanh"), "one-of", "gelu-tanh", "exact"),
        (("relu", "silu"), "one-of", "gelu-tanh", "contradicted"),
        (("a", "b"), "is", ("b", "a"), "exact"),
        (("a",), "is", ("a", "b"), "contradicted"),
        (("a",), "includes", ("a", "b"), "exact"),
        (("c",), "includes", ("a", "b"), "contradicted"),
        (("c",), "excludes", ("a", "b"), "exact"),
        (("a", "c"), "excludes", ("a", "b"), "contradicted"),
        ("2018", "is", "2018-10-11", "exact"),
        ("2018-10", "is", "2018-10-11", "exact"),
        ("2018-11", "is", "2018-10-11", "contradicted"),
        (True, "is", True, "exact"),
        (True, "is", False, "contradicted"),
        ("5", "is", "undisclosed", "undecidable"),
        (("a",), "excludes", "undisclosed", "undecidable"),
    ],
)
def test_words_dates_and_flags_are_judged(
    value: Any, relation: str, known: Any, verdict: str
) -> None:
    assert judged(claim(value, None, relation), known) == verdict
