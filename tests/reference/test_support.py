"""Which specs the reference builds, and what it says of the others."""

import pytest

from holotype_reference.model import build
from holotype_reference.support import UnsupportedMechanism, supported, unsupported
from holotype_spec import complete, load


def test_a_spec_that_the_reference_has_no_class_for_is_refused_by_the_name_of_the_mechanism() -> (
    None
):
    spec = load("alexatm-20b").probe()
    assert len(unsupported(spec)) == 1
    with pytest.raises(
        UnsupportedMechanism, match=r"cannot build alexatm-20b yet: .*token types"
    ) as told:
        build(spec)
    assert told.value.mechanisms == unsupported(spec)
    assert isinstance(told.value, ValueError)


def test_the_supported_specs_are_those_with_no_mechanism_missing_in_the_order_of_the_catalogue() -> (
    None
):
    assert "llama2-70b" in supported()
    assert "alexatm-20b" not in supported()
    assert supported() == [spec.name for spec in complete() if not unsupported(spec)]
