"""A candidate that answers in one buffer, as graphs of a GPU do, is compared with itself by none of its answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.kernels.candidate import FunctionKernel
from holotype_conformance.kernels.properties import kernel_properties
from holotype_conformance.kernels.subject import KernelSubject
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import Inputs, Outputs
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_spec import load

MODES = {property_.slug: property_ for property_ in all_properties()}
KERNELS = {property_.slug: property_ for property_ in kernel_properties()}


class Buffered(ReferenceCandidate):
    """Each answer takes the place of the one before; a `drift` makes it another one."""

    paths = ("fused",)

    def __init__(self, drift: float) -> None:
        self.drift = drift
        self.calls = 0
        self.buffers: dict[Any, Tensor] = {}

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        self.calls += 1
        found = super().forward(model, inputs).logits.detach() * (1 + self.drift * self.calls)
        buffer = self.buffers.setdefault((found.shape, found.dtype), found)
        return Outputs(logits=buffer.copy_(found))


@pytest.mark.parametrize(("drift", "outcome"), [(0.0, "passed"), (1e-3, "failed")])
@pytest.mark.parametrize("slug", ["modes.determinism", "causality.future-perturbation"])
def test_a_model_that_answers_in_one_buffer(slug: str, drift: float, outcome: str) -> None:
    subject = Subject(Buffered(drift), load("gpt2"))
    assert judge(subject, replace(MODES[slug], examples=2), Settings()).outcome == outcome


@pytest.mark.parametrize(("drift", "outcome"), [(0.0, "passed"), (1e-3, "failed")])
def test_a_kernel_that_answers_in_one_buffer(drift: float, outcome: str) -> None:
    buffers: dict[Any, Tensor] = {}
    calls = iter(range(10**9))

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            found = F.scaled_dot_product_attention(q, k, v) * (1 + drift * next(calls))
        return buffers.setdefault((found.shape, found.dtype), found).copy_(found)

    subject = KernelSubject(FunctionKernel(attention, "mine"))
    assert judge(subject, KERNELS["contract.deterministic"], Settings()).outcome == outcome
