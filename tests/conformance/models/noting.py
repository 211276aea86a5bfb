"""A candidate that notes what it is given, and answers with rows of a table: for the tests of what a subject does."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from holotype_conformance.models.candidate import (
    Candidate,
    Capability,
    Inputs,
    Labels,
    Outputs,
)
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec


class Small(nn.Module):
    """A table of logits, and a scale that is no matrix."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(spec.vocab_size, spec.logit_size))
        self.scale = nn.Parameter(torch.ones(1))


class Noting(Candidate):
    """Notes what it is given, in which state of the process, and answers with rows of a table."""

    paths = ("fast", "slow")

    def __init__(self) -> None:
        self.built: list[tuple[Spec, str, torch.dtype]] = []
        self.cast_to: list[torch.dtype] = []
        self.loaded: list[Weights] = []
        self.asked: list[tuple[nn.Module, Spec]] = []
        self.called: list[tuple[Inputs, bool, bool]] = []
        self.caches: list[Any] = []
        self.drawn: dict[str, tuple[float, float, int]] = {}
        self.defaults: dict[str, torch.dtype] = {}
        self.found: dict[Any, Any] = {"next-sentence": "it has none"}

    def note(self, what: str) -> None:
        """The state of the generators of random numbers, and the default dtype."""
        self.drawn[what] = (random.random(), float(np.random.rand()), int(torch.randint(9**9, ())))
        self.defaults[what] = torch.get_default_dtype()

    def build(self, spec: Spec, path: str = "fast") -> nn.Module:
        self.note("build")
        self.built.append((spec, path, torch.get_default_dtype()))
        return Small(spec)

    def cast(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        self.note("cast")
        self.cast_to.append(dtype)
        return model.to(dtype)

    def capabilities(self, model: nn.Module, spec: Spec) -> Any:
        self.note("capabilities")
        self.asked.append((model, spec))
        return self.found

    def load(self, model: nn.Module, weights: Weights) -> None:
        self.note("load")
        self.loaded.append(weights)

    def restore(self, spec: Spec, folder: Path, path: str = "fast") -> nn.Module:
        self.note("restore")
        self.built.append((spec, path, torch.get_default_dtype()))
        return Small(spec)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        self.note("forward")
        self.called.append((inputs, torch.is_grad_enabled(), model.training))
        return self.answer(Outputs(logits=model.table[inputs.token_ids] * model.scale))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        self.caches.append(cache)
        outputs = self.forward(model, inputs)
        return Outputs(logits=outputs.logits, next_sentence=outputs.next_sentence, cache="longer")

    def answer(self, outputs: Outputs) -> Outputs:
        return outputs

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Any:
        self.note("loss")
        self.called.append((inputs, torch.is_grad_enabled(), model.training))
        return model.table[inputs.token_ids].pow(2).mean()


def states(seed: int) -> tuple[float, float, int]:
    """What the three generators give first in the state of a seed."""
    generator = torch.Generator().manual_seed(seed)
    return (
        random.Random(seed).random(),
        float(np.random.RandomState(seed).rand()),
        int(torch.randint(9**9, (), generator=generator)),
    )


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Narrow(Noting):
    absent: ClassVar[Mapping[Capability, str]] = {
        "float64": "it is too slow",
        "float32": "it is too slow",
    }
