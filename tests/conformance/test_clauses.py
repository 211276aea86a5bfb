"""A clause stands alone: beside a slug in a report, without the one before it."""

from __future__ import annotations

import re

import pytest

from holotype_conformance.judge.property import Property
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.models.properties import all_properties

ROOM = 52  # characters beside the longest slug of a group, in 80 columns
LEANS = re.compile(r"^(So|It|They|This|That|These|Those|What|Also)\b|\b(too|either|as well)\.$")
INSIDE = re.compile(r"\b(so|told|stands at padding)\b", re.IGNORECASE)

PROPERTIES = {property_.slug: property_ for property_ in (*all_properties(), *kernel_properties())}


@pytest.mark.parametrize("property_", PROPERTIES.values(), ids=PROPERTIES)
def test_a_clause_can_be_read_alone(property_: Property) -> None:
    clause = property_.clause
    assert len(clause) <= ROOM
    assert clause[0].isupper()
    assert clause.endswith(".")
    assert not LEANS.search(clause)
    assert not INSIDE.search(clause)
    assert not re.match(r"The same (holds|is true)\b", property_.meaning)


def test_no_two_properties_of_a_suite_demand_the_same_words() -> None:
    for properties in (all_properties(), kernel_properties()):
        clauses = [property_.clause for property_ in properties]
        assert len(set(clauses)) == len(clauses)
