"""The candidate: the implementation under test, and how the suite speaks to it.

The least a user gives is a function ``build(spec) -> torch.nn.Module`` whose result, called with token ids, returns
logits or an object with ``.logits``. Everything more is opt-in: subclass `Candidate` and override what yours can do.
What is overridden, or what the module's ``forward`` accepts by name, is a *capability*; it is then held to be true.
What yours cannot do, or does otherwise, it *declares*: see `holotype_conformance.models.declarations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from holotype_conformance.judge.declaring import Floor
from holotype_conformance.models.capabilities import ARGUMENT_NAMES, INPUT_NAMES, found_capabilities
from holotype_conformance.models.capabilities import absolute_positions as absolute_positions
from holotype_conformance.models.counting import parameter_count
from holotype_conformance.models.exchange import (
    Inputs,
    Labels,
    Outputs,
    as_outputs,
    named_arguments,
    present,
    seen,
)
from holotype_conformance.models.statements import Capability, Difference, Form
from holotype_reference.weights import Weights
from holotype_spec.schema import Experts, Spec

__all__ = [
    "ARGUMENT_NAMES",
    "INPUT_NAMES",
    "Candidate",
    "Capability",
    "Difference",
    "Floor",
    "Form",
    "FunctionCandidate",
    "Inputs",
    "Labels",
    "Outputs",
    "absolute_positions",
    "as_outputs",
    "named_arguments",
    "seen",
]


class Candidate:
    """An implementation under test. Override `build`, and whatever else yours can do.

    Attributes:
        title: what reports call it.
        paths: names of the code paths that must all be checked (fused and eager kernels, …); `build` is
            passed the one to take.
        absent: what it cannot do, with the reason: capability -> why. What needs it is skipped.
        holds: forms in which it holds its weights otherwise than the spec lists them: form -> what was done.
        lifted: in a float64 probe, float32 that is written into its code is taken for float64 (see
            `holotype_conformance.torch_tools.float64`). False spares the time where nothing is to be lifted.
    """

    title: str = "candidate"
    paths: tuple[str, ...] = ("default",)
    absent: Mapping[Capability, str] = {}
    holds: Mapping[Form, str] = {}
    lifted: bool = True

    def refusal(self, spec: Spec) -> str | None:
        """Why there is nothing that this candidate could build for `spec`, or None."""
        return None

    def routes(self, spec: Spec) -> bool:
        """Whether tokens choose what computes them, as experts do.

        Which tokens are multiplied together then depends on what they are, and the rounding of each on the others:
        what must not move may move by rounding, and by no more.
        """
        return spec.has(Experts)

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        """A model with the sizes of `spec`.

        For a float64 probe torch's default dtype is float64 while this runs, for all others float32; the
        result is then handed to `cast`.
        """
        raise NotImplementedError("a candidate must define build(spec)")

    def cast(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The model computing in `dtype`."""
        return model.to(dtype)

    def floor(self, spec: Spec) -> Floor | None:
        """The limits of precision that this candidate states for `spec`; None when it has none."""
        return None

    def differences(self, spec: Spec) -> Sequence[Difference]:
        """The known differences of this implementation from `spec`; the rest is judged without them."""
        return ()

    def load(self, model: nn.Module, weights: Weights) -> None:
        """Copy `weights` into `model`, in place.

        `weights` has the canonical names and layouts (``holotype show SPEC --parameters`` prints them);
        ``weights.published()`` has those of the published checkpoint. Not overridden, it transfers by name
        if the names of the model's parameters are exactly the canonical or the published ones.
        """
        own = dict(model.named_parameters(remove_duplicate=False))
        ours = weights.keys() == own.keys()  # a spec without published weights has no other names
        source = weights if ours else weights.published()
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(source[name])

    def parameter_count(self, model: nn.Module) -> int:
        """The count of numbers in the weights of `model`, tied ones once; for weights that are not its parameters.

        It is asked of models of any size, full ones too, which are built on torch's meta device.
        """
        return parameter_count(model)

    def effective_weights(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        """The weights that `model` really computes with, where they are coarser than those that were loaded.

        Under our names or the published ones, dequantised; what is not named is as it was loaded. The reference then
        computes with them, and outputs are held to rounding; how far they are from what was loaded is held to the
        `weights` of the candidate's `floor`. None: they are those that were loaded.
        """
        return None

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        """One full forward pass without a cache."""
        if inputs.source_ids is None:
            return as_outputs(model(inputs.token_ids, **named_arguments(model, inputs)))
        arguments = {
            "decoder_input_ids": inputs.token_ids,
            "attention_mask": inputs.source_mask,
            "decoder_attention_mask": inputs.attention_mask,
        }
        return as_outputs(model(inputs.source_ids, **present(arguments)))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        """Read `inputs` after what `cache` holds (None at first) and return the longer cache too."""
        return as_outputs(
            model(
                inputs.token_ids,
                past_key_values=cache,
                use_cache=True,
                **named_arguments(model, inputs),
            )
        )

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        """The training loss, a scalar: the mean over the labelled positions.

        An encoder-decoder makes its decoder's input of the labels: the spec's ``decoder_start_id``, then the
        labels without the last one. Of `inputs` it gets the source; ``token_ids`` is then empty, (batch, 0).
        """
        raise NotImplementedError

    def save(self, model: nn.Module, folder: Path) -> None:
        """Store the model in an empty folder."""
        torch.save(model.state_dict(), folder / "state.pt")

    def restore(self, spec: Spec, folder: Path, path: str = "default") -> nn.Module:
        """The model that `save` stored."""
        model = self.build(spec, path) if len(self.paths) > 1 else self.build(spec)
        state = torch.load(folder / "state.pt", weights_only=True)
        self.cast(model, next(iter(state.values())).dtype)
        model.load_state_dict(state)
        return model

    def capabilities(self, model: nn.Module, spec: Spec) -> dict[Capability, str | None]:
        """The capabilities of this candidate with `spec`, read off its overrides and the arguments of `model.forward`.

        Returns: for each capability None when it has it, else the reason why not.
        """
        return found_capabilities(self, model, spec)

    def overrides(self, method: str) -> bool:
        """Whether it has a method of its own of this name."""
        return getattr(type(self), method) is not getattr(Candidate, method)


class FunctionCandidate(Candidate):
    """A bare ``build(spec)`` function as a candidate.

    If the names in the built model's ``state_dict`` are exactly the canonical or the published ones, weights
    are transferred by them.
    """

    def __init__(self, function: Callable[[Spec], nn.Module], title: str) -> None:
        self.function = function
        self.title = title

    def build(self, spec: Spec, path: str = "default") -> nn.Module:
        return self.function(spec)
