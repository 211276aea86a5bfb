"""A catalogue of deviations, whatever they are deviations of."""

import pytest

from holotype_conformance.judge.deviation import (
    Catalogue,
    Deviation,
    UnknownDeviation,
    family_of,
    says,
)


def deviation(slug: str, applies: bool = True) -> Deviation:
    return Deviation(
        slug=slug, title=says("it is wrong"), meaning="…", applies=lambda spec: applies
    )


def catalogue(*slugs: str) -> Catalogue[Deviation]:
    found: Catalogue[Deviation] = Catalogue()
    for slug in slugs:
        found.register(deviation(slug))
    return found


def test_a_catalogue_keeps_the_order_and_finds_by_name() -> None:
    found = catalogue("mask.late", "mask.early")
    assert found.names() == ("mask.late", "mask.early")
    assert [each.slug for each in found] == ["mask.late", "mask.early"]
    assert found.find("mask.early").group == "mask"
    assert found.find("mask.early").title(None) == "it is wrong"


def test_two_deviations_of_one_name_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"two deviations are called 'mask\.late'"):
        catalogue("mask.late", "mask.late")


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UnknownDeviation, match=r"did you mean mask\.late") as raised:
        catalogue("mask.late").find("mask.lat")
    assert str(raised.value).startswith("no deviation is called 'mask.lat'")
    with pytest.raises(UnknownDeviation, match="lists all"):
        catalogue().find("mask.late")


def test_what_differs_in_its_number_alone_is_found_for_any_number() -> None:
    found = catalogue("blocks.added.16", "blocks.added.32", "mask.late")
    for slug, other in (
        ("blocks.added.32", "blocks.added.32"),
        ("blocks.added.56", "blocks.added.16"),
        ("mask.late", "mask.late"),
    ):
        assert (each := found.alike(slug)) is not None
        assert each.slug == other
    assert found.alike("blocks.added") is None
    assert found.alike("mask.late.3") is None
    assert family_of("sizes.keys-most.128") == "sizes.keys-most"


def test_what_applies_is_asked_of_the_deviation() -> None:
    found = catalogue("mask.late")
    found.register(deviation("mask.early", applies=False))
    assert [each.slug for each in found.applicable(None)] == ["mask.late"]
