"""How a candidate holds its weights is believed once it is declared, and is no cover for anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from holotype_conformance.judge.engine import Settings, judge
from holotype_conformance.judge.records import Result
from holotype_conformance.models.adapters.reference import ReferenceCandidate
from holotype_conformance.models.candidate import (
    Candidate,
    Form,
    Inputs,
    Outputs,
)
from holotype_conformance.models.properties import all_properties
from holotype_conformance.models.subject import Subject
from holotype_reference.weights import Weights
from holotype_spec import load
from holotype_spec.schema import Spec

pytestmark = pytest.mark.slow

PROPERTIES = {property_.slug: property_ for property_ in all_properties()}
GPT2 = load("gpt2")
LLAMA = load("llama2-7b")


def judged(candidate: Candidate, slug: str, spec: Spec = GPT2) -> Result:
    return judge(Subject(candidate, spec), PROPERTIES[slug], Settings())


def verdicts(candidate: Candidate, slugs: Sequence[str], spec: Spec = GPT2) -> dict[str, str]:
    subject = Subject(candidate, spec)
    return {slug: judge(subject, PROPERTIES[slug], Settings()).outcome for slug in slugs}


class Fused(ReferenceCandidate):
    paths: tuple[str, ...] = ("fused",)


class Adapted(nn.Module):
    """A matrix and a low-rank adapter beside it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        out, inner = base.weight.shape  # type: ignore[union-attr]
        self.a = nn.Parameter(torch.randn(2, inner) * inner**-0.5)
        self.b = nn.Parameter(torch.randn(out, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (x @ self.a.T) @ self.b.T  # type: ignore[no-any-return]


def projections(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The value projections: (module, attribute)."""
    return [
        (module, "value")
        for module in model.modules()
        if isinstance(getattr(module, "value", None), nn.Linear | Adapted)
    ]


class Lora(Fused):
    """The reference with adapters that are not merged; loading makes up for them, so that the sum is what it was."""

    holds: Mapping[Form, str] = {"adapters": "LoRA of rank 2 on the values, not merged"}
    frozen = False
    factor = 1.0

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        model = super().build(spec, path)
        for module, name in projections(model):
            adapted = Adapted(getattr(module, name))
            adapted.base.requires_grad_(not self.frozen)
            setattr(module, name, adapted)
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in weights.items():
                stem = name.removesuffix(".weight")
                if f"{stem}.a" in own:
                    extra = own[f"{stem}.b"] @ own[f"{stem}.a"] * self.factor
                    own[f"{stem}.base.weight"].copy_(tensor.to(extra) - extra)
                else:
                    own[name.replace("value.bias", "value.base.bias")].copy_(tensor)


class FrozenLora(Lora):
    frozen = True


class WrongLora(Lora):
    factor = 0.9


class NoAdapters(Fused):
    holds: Mapping[Form, str] = Lora.holds


ABOUT_WEIGHTS = (
    "agreement.logits",
    "agreement.gradients",
    "parameters.count",
    "parameters.scaling",
    "parameters.training-step",
)


@pytest.mark.parametrize("candidate", [Lora, FrozenLora])
def test_adapters_beside_the_weights_are_counted_apart(candidate: Callable[[], Candidate]) -> None:
    found = {slug: judged(candidate(), slug) for slug in ABOUT_WEIGHTS}
    assert {slug: each.outcome for slug, each in found.items()} == dict.fromkeys(
        ABOUT_WEIGHTS, "passed"
    )
    assert "of adapters beside them" in (found["parameters.count"].reason or "")


def test_adapters_that_change_the_numbers_are_found() -> None:
    assert judged(WrongLora(), "agreement.logits").outcome == "failed"


def test_adapters_that_are_not_there_are_no_excuse() -> None:
    result = judged(NoAdapters(), "parameters.scaling")
    assert result.outcome == "failed"
    assert "reaches every parameter" in (result.reason or "")


def test_undeclared_adapters_are_told_what_to_declare() -> None:
    class Undeclared(Lora):
        holds: Mapping[Form, str] = {}

    assert 'holds = {"adapters": "why"}' in (
        judged(Undeclared(), "parameters.scaling").reason or ""
    )


class Padded(Fused):
    """LLaMA whose two tables of the vocabulary have more rows, which are cut off the logits."""

    holds: Mapping[Form, str] = {"padded-vocabulary": "to a multiple of 64"}
    more = 64
    cut = True

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        size = -(-spec.vocab_size // 64) * 64 + self.more
        model = super().build(msgspec.structs.replace(spec, vocab_size=size), path)
        model.real = spec.vocab_size  # type: ignore[assignment]
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        own = dict(model.named_parameters())
        with torch.no_grad():
            for name, tensor in weights.items():
                own[name].normal_()
                own[name][tuple(slice(n) for n in tensor.shape)].copy_(tensor)

    def _cut(self, model: Any, outputs: Outputs) -> Outputs:
        logits = outputs.logits[..., : model.real] if self.cut else outputs.logits
        return Outputs(logits=logits, cache=outputs.cache)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return self._cut(model, super().forward(model, inputs))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        return self._cut(model, super().forward_cached(model, inputs, cache))


class Exported(Padded):
    cut = False


class DeclaredOnly(Fused):
    holds: Mapping[Form, str] = Padded.holds


def test_a_vocabulary_that_is_padded_inside_conforms_and_the_count_says_so() -> None:
    found = {slug: judged(Padded(), slug, LLAMA) for slug in (*ABOUT_WEIGHTS, "storage.round-trip")}
    assert {each.outcome for each in found.values()} == {"passed"}, found
    assert "64 rows that pad the vocabulary" in (found["parameters.count"].reason or "")


def test_a_vocabulary_that_is_padded_in_the_logits_is_wrong() -> None:
    assert judged(Exported(), "interface.outputs", LLAMA).outcome == "failed"


def test_padding_that_is_not_there_is_no_excuse() -> None:
    assert judged(DeclaredOnly(), "parameters.count", LLAMA).outcome == "failed"


class Folded(Fused):
    """LLaMA whose gains in front of attention stand in the matrices behind them."""

    holds: Mapping[Form, str] = {"reparametrised": "gains folded into the next matrix"}
    transposed = False

    def load(self, model: nn.Module, weights: Weights) -> None:
        folded = dict(weights)
        for name, gain in weights.items():
            layer, found, rest = name.partition(".self_attention_norm.")
            if not found or rest != "weight":
                continue
            folded[name] = torch.ones_like(gain)
            for part in ("query", "key", "value"):
                matrix = f"{layer}.self_attention.{part}.weight"
                turned = gain.flip(0) if self.transposed else gain
                folded[matrix] = weights[matrix] * turned
        super().load(model, Weights(weights.spec, folded))


class WronglyFolded(Folded):
    transposed = True


def test_folded_norms_conform_once_they_are_declared() -> None:
    found = verdicts(Folded(), ABOUT_WEIGHTS, LLAMA)
    assert found == dict.fromkeys(ABOUT_WEIGHTS, "passed") | dict.fromkeys(
        ("parameters.count", "parameters.scaling", "parameters.training-step"), "skipped"
    )


def test_norms_that_are_folded_wrongly_are_found() -> None:
    assert judged(WronglyFolded(), "agreement.logits", LLAMA).outcome == "failed"
