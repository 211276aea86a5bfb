"""The precision of arithmetic is set for a check, whatever was set before, and is put back."""

import pytest
import torch

from holotype_conformance.judge.precision import arithmetic, settings


@pytest.fixture(autouse=True)
def _left_as_it_was():
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True


def test_inside_everything_is_in_full_precision_and_outside_as_it_was():
    torch.set_float32_matmul_precision("medium")
    before = settings()
    with arithmetic():
        inside = settings()
    assert inside == {
        "float32 products": "highest",
        "tf32 convolutions": "false",
        "bfloat16 sums reduced": "false",
        "float16 sums reduced": "false",
        "deterministic": "false",
    }
    assert settings() == before
    assert before["float32 products"] == "medium"


def test_what_the_body_sets_does_not_outlive_it():
    before = settings()
    with arithmetic():
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = True
        torch.set_float32_matmul_precision("high")
    assert settings() == before


def test_rounded_products_are_allowed_only_where_they_are_asked_for():
    with arithmetic(rounded_products=True):
        assert settings()["float32 products"] == "medium"
        with arithmetic():
            assert settings()["float32 products"] == "highest"
        assert settings()["float32 products"] == "medium"


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9"
)
def test_settings_that_the_older_interface_cannot_say_are_put_back_through_the_newer():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    assert settings()["float32 products"] == "mixed"
    with arithmetic():
        assert settings()["float32 products"] == "highest"
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"


def test_products_that_are_rounded_outside_are_exact_inside():
    x = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    exact = x.double() @ x.double()
    torch.set_float32_matmul_precision("medium")
    with arithmetic():
        assert (x @ x - exact).abs().max() < 1e-3  # rounded to bfloat16 it is off by 0.1
