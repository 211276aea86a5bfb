"""The page on bits has every property that speaks of them, and no other names."""

from __future__ import annotations

import re
from pathlib import Path

from holotype_conformance.judge.property import Property
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.models.properties import all_properties

PAGE = (Path(__file__).parents[2] / "docs" / "bits.md").read_text(encoding="utf-8")
PROPERTIES = [*all_properties(), *kernel_properties()]
EXACT = re.compile(r"\bbits?\b|\bexactly zero\b|\bits very\b")


def speaks_of_bits(property_: Property) -> bool:
    return EXACT.search(f"{property_.clause} {property_.meaning}") is not None


def test_every_property_that_speaks_of_bits_is_on_the_page() -> None:
    missing = {each.slug for each in PROPERTIES if speaks_of_bits(each)}
    assert len(missing) > 10
    assert not {slug for slug in missing if f"`{slug}`" not in PAGE}


def test_the_page_names_only_what_there_is() -> None:
    known = {each.slug for each in PROPERTIES}
    named = set(re.findall(r"`([a-z]+\.[a-z-]+)`", PAGE))
    assert named <= known, named - known
