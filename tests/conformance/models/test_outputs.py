"""What comes back in a wrong shape is told what it looks like."""

import pytest
import torch

from holotype_conformance.judge.property import Violation
from holotype_conformance.models.outputs import demand_logits

BATCH, LENGTH, VOCABULARY, WIDTH = 2, 3, 97, 32


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 2, 97), "the length stands before the batch"),
        ((2, 97, 3), "the vocabulary stands before the length"),
        ((6, 97), "batch and length are one axis"),
        ((2, 3, 32), "as wide as the hidden size: is the vocabulary matrix missing?"),
        ((2, 3, 128), r"a `forward` of an adapter cuts it off, \[..., :97\]"),
        ((2, 1, 97), "those of one position"),
        ((2, 97), "those of one position"),
        ((2, 3, 96), r"\(2, 3, 96\); expected \(2, 3, 97\)$"),
        ((2, 4, 97), r"\(2, 4, 97\); expected \(2, 3, 97\)$"),
        ((97,), r"\(97,\); expected \(2, 3, 97\)$"),
    ],
)
def test_a_wrong_shape_is_told_what_it_looks_like(shape, said):
    with pytest.raises(Violation, match=said):
        demand_logits(torch.zeros(shape), (BATCH, LENGTH, VOCABULARY), torch.float32, WIDTH)


@pytest.mark.parametrize(
    ("dtype", "found", "said"),
    [
        (torch.bfloat16, torch.zeros(2, 3, 97), None),
        (torch.float32, torch.zeros(2, 3, 97), None),
        (torch.float32, torch.zeros(2, 3, 97).half(), "are torch.float16; expected torch.float32"),
        (torch.float32, [[0.0]], "are a list; expected a tensor"),
    ],
)
def test_logits_have_the_dtype_of_the_parameters_or_float32(dtype, found, said):
    shape = (BATCH, LENGTH, VOCABULARY)
    if said is None:
        demand_logits(found, shape, dtype, WIDTH)
    else:
        with pytest.raises(Violation, match=said):
            demand_logits(found, shape, dtype, WIDTH)
