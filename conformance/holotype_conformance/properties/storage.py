"""What is saved is what was there."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import nn

from holotype_conformance.properties.cases import BatchCase, always, batch_cases, batch_inputs
from holotype_conformance.property import Violation, claim
from holotype_conformance.subject import Subject, candidate_code, real_rows


@claim(
    slug="storage.round-trip",
    clause="What is restored is what was saved.",
    level="must",
    meaning=(
        "A model that was saved and restored gives the same bits. The model is saved, a new one "
        "is restored from the file, and both are run and their parameters counted. Look for parameters that are not "
        "registered, buffers that are not kept, and tied tensors of which only one is stored and "
        "the other not tied again."
    ),
    catches=("tensor lost in saving", "tie lost in loading"),
    needs=(),
    applies=always,
    cases=lambda subject: batch_cases(subject, batches=st.just(2)),
    case_type=BatchCase,
    examples=2,
)
def round_trip(subject: Subject, case: BatchCase) -> None:
    inputs = batch_inputs(subject, case)
    for path in subject.paths:
        setup = case.setup(path)
        model = subject.model(setup)
        with tempfile.TemporaryDirectory() as folder:
            with candidate_code("save"):
                subject.candidate.save(model, Path(folder))
            restored = subject.restored(setup, Path(folder))
        before, after = map(parameter_count, (model, restored))
        if before != after:
            raise Violation(
                f"the model was saved with {before:,} parameters and has {after:,} restored; expected as many, what is"
                " tied counted once",
                path=path,
            )
        expected = subject.forward(model, inputs).logits
        actual = subject.forward(restored, inputs).logits
        rows = real_rows(inputs)
        if not torch.equal(actual[rows], expected[rows]):
            size = float((actual[rows] - expected[rows]).abs().max())
            raise Violation(
                f"the outputs moved by {size:.1e} when the model was saved and restored; expected the same bits",
                moved=size,
                path=path,
            )


def parameter_count(model: nn.Module) -> int:
    """How many numbers there are to learn, those of tied tensors once."""
    return sum(parameter.numel() for parameter in model.parameters())
