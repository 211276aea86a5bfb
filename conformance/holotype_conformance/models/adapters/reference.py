"""Our own models as a candidate, on both of their code paths."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from holotype_conformance.models.candidate import Candidate, Inputs, Outputs
from holotype_reference.kernels.paths import Path
from holotype_reference.model import Model, Output, build
from holotype_reference.support import unsupported
from holotype_reference.weights import Weights
from holotype_spec.schema import Spec


class ReferenceCandidate(Candidate):
    """The reference models."""

    title = "reference"
    paths: tuple[str, ...] = ("fused", "eager")
    lifted = False

    def refusal(self, spec: Spec) -> str | None:
        missing = unsupported(spec)
        return f"the reference has no {', no '.join(missing)} yet" if missing else None

    def build(self, spec: Spec, path: str = "fused") -> nn.Module:
        return build(spec, path=cast(Path, path))

    def load(self, model: nn.Module, weights: Weights) -> None:
        model.load_state_dict(weights)

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return _outputs(run_reference(model, inputs))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        assert isinstance(model, Model)
        return _outputs(run_reference(model, inputs, cache or model.new_cache()))


def run_reference(model: nn.Module, inputs: Inputs, cache: Any = None) -> Output:
    """A reference model on the suite's inputs."""
    return cast(
        Output,
        model(**inputs.tensors(), cache=cache),
    )


def _outputs(output: Output) -> Outputs:
    return Outputs(logits=output.logits, next_sentence=output.next_sentence, cache=output.cache)


candidate = ReferenceCandidate()
