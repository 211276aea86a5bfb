"""Any class of Hugging Face `transformers`, built small from its configuration class, for the generic specs.

What a class is held to is what it claims. One that is offered for causal language modelling claims to be causal, and
is told whatever its documentation says that it needs for that (`CAUSAL`); one that is offered for masked language
modelling claims to see everything. What claims neither is refused rather than called wrong.
"""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto import modeling_auto

from holotype_conformance.judge.importing import TargetError
from holotype_conformance.models.adapters.hf.released import (
    EXPERTS,
    TransformersCandidate,
    supported,
)
from holotype_conformance.models.adapters.hf.shrinking import Sizes, attempts, small
from holotype_conformance.models.candidate import ARGUMENT_NAMES, Capability
from holotype_spec.schema import Spec

# What turns a model of theirs causal, where its configuration has it: "is_decoder" of BERT and its kin, "causal" of
# XLM and Flaubert.
CAUSAL = {"is_decoder": True, "causal": True}
# What says that a model is not causal by design, whatever it is offered as: XLNet permutes.
BOTH_WAYS = {"attn_type": "bi"}
CLAIMS = {
    "decoder": (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "ForCausalLM"),
    "encoder": (modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "ForMaskedLM"),
    "encoder-decoder": (
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "ForConditionalGeneration",
    ),
}
LARGEST = 10_000_000  # parameters of what is still a small model
GENERIC = {
    "decoder": "causal-decoder",
    "encoder": "encoder",
    "encoder-decoder": "encoder-decoder",
}


class ClassCandidate(TransformersCandidate):
    """One class of theirs, as released and unmodified.

    Args:
        name: what the class is called.

    Raises:
        TargetError: there is no such class, or it is no model.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_class = _model_class(name)
        self.paths = TransformersCandidate.paths[0 if self.model_class._supports_sdpa else 1 :]
        told = ", ".join(f"{key}={value!r}" for key, value in self._causal.items())
        self.title = f"hf:{name}" + (f" ({told})" if told else "")
        self._attempt: int | None = None
        self._first: int | None = None

    @cached_property
    def claims(self) -> list[str]:
        """The structures that it is offered as, but for a decoder that says itself that it looks both ways."""
        return [
            structure
            for structure, (mapping, ending) in CLAIMS.items()
            if self.name in mapping.values() or self.name.endswith(ending)
            if structure != "decoder" or not self._looks_both_ways
        ]

    @cached_property
    def _looks_both_ways(self) -> bool:
        return any(self._defaults.get(key) == value for key, value in BOTH_WAYS.items())

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        try:
            return _stated(self.model_class.config_class())
        except Exception as error:
            said = " ".join(str(error).split())
            raise TargetError(
                f"{self.name} cannot be built small: its configuration has no defaults ({said})"
            ) from error

    @cached_property
    def _causal(self) -> dict[str, Any]:
        """The configuration that makes it causal, if that is what it claims."""
        if "decoder" not in self.claims:
            return {}
        return {key: value for key, value in CAUSAL.items() if key in self._defaults}

    def refusal(self, spec: Spec) -> str | None:
        if not spec.family.generic:
            return (
                f"{self.name} alone says nothing of sizes; the target hf has the class of this spec"
            )
        structure = spec.architecture.structure
        if structure in self.claims:
            return None
        others = " or ".join(GENERIC[claim] for claim in self.claims)
        hint = f"; it is offered as: {others}" if others else ""
        return f"{self.name} is not offered as what the spec describes ({spec.name}){hint}"

    def routes(self, spec: Spec) -> bool:
        # Tokens choose experts, or the bucket that they are hashed to.
        return any(word in key for key in self._defaults for word in ("expert", "hash"))

    # Building ---------------------------------------------------------------------------------------------

    def build(self, spec: Spec, path: str = "sdpa") -> nn.Module:
        if self._attempt is None:
            self._attempt = self._first_that_runs(spec)
        sizes = next(islice(attempts(spec), self._attempt, None))
        model = self._model(self._arguments(sizes), path)
        model.first_position = self._first or 0
        return model  # type: ignore[no-any-return]

    def _arguments(self, sizes: Sizes) -> dict[str, Any]:
        return _small(self._defaults, sizes) | self._causal

    def _first_that_runs(self, spec: Spec) -> int:
        """The number of the attempt at a small configuration that can be built and run.

        Raises:
            Exception: whatever the attempt at the spec's own sizes raised, where none can.
        """
        first: Exception | None = None
        for number, sizes in enumerate(attempts(spec)):
            try:
                arguments = self._arguments(sizes)
                self._demand_small(arguments)
                self._try(self._model(arguments, self.paths[-1]).eval(), spec)
            except Exception as error:
                first = first or error
            else:
                return number
        assert first is not None
        raise first

    def _model(self, arguments: dict[str, Any], path: str) -> Any:
        config = self.model_class.config_class(**arguments)
        config._attn_implementation = supported(self.model_class, path)
        config._experts_implementation = EXPERTS
        return self.model_class(config)

    def _demand_small(self, arguments: dict[str, Any]) -> None:
        """Count before allocating: a width whose name nobody knew would be as large as that of the real model."""
        with torch.device("meta"):
            model = self._model(arguments, self.paths[-1])
        count = sum(parameter.numel() for parameter in model.parameters())
        if count > LARGEST:
            raise ValueError(
                f"it still has {count:,} parameters when every size whose name is known is small"
            )

    def _try(self, model: Any, spec: Spec) -> None:
        """Run it once, and see which number its position ids give the first position, if it takes any."""
        tokens = torch.arange(2, 9)[None]
        given = {"decoder_input_ids": tokens} if "encoder-decoder" in self.claims else {}
        with torch.no_grad():
            plain = model(tokens, **given).logits
            if plain.shape != (1, 7, spec.vocab_size):
                raise ValueError(
                    f"its logits have the shape {tuple(plain.shape)}; expected (1, 7, {spec.vocab_size})"
                )
            if given or self._first is not None or not _takes(model, "position_ids"):
                return
            self._first = next(
                (
                    first
                    for first in range(3)
                    if torch.allclose(
                        plain, model(tokens, position_ids=torch.arange(7)[None] + first).logits
                    )
                ),
                0,
            )

    # Everything else --------------------------------------------------------------------------------------

    def restore(self, spec: Spec, folder: Path, path: str = "sdpa") -> nn.Module:
        model: Any = self.model_class.from_pretrained(
            folder,
            attn_implementation=supported(self.model_class, path),
            experts_implementation=EXPERTS,
            dtype="auto",
        )
        model.first_position = self._first or 0
        return model  # type: ignore[no-any-return]

    def capabilities(self, model: nn.Module, spec: Spec) -> dict[Capability, str | None]:
        found = super().capabilities(model, spec)
        for capability, name in ARGUMENT_NAMES.items():
            if found[capability] is None and not _takes(model, name):
                found[capability] = f"its forward takes no `{name}`"
        if spec.architecture.structure == "encoder-decoder":
            found["position-ids"] = "an encoder-decoder of theirs takes no position ids"
        if not _takes(model, "labels"):
            found["loss"] = "its forward takes no `labels`"
        if found["left-padding"] is None and found["position-ids"] is not None:
            found["left-padding"] = f"positions may be absolute: {found['position-ids']}"
        return found


def _stated(config: Any) -> dict[str, Any]:
    """The parameters of a configuration's constructor, with their defaults."""
    known = inspect.signature(type(config).__init__).parameters
    # Otherwise a configuration whose layers differ refuses to tell what it was given for all of them.
    config.allow_global_per_layer_attribute_access = True
    return {name: getattr(config, name) for name in known if hasattr(config, name)}


def _small(defaults: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The arguments of a small configuration, and of those that stand inside it."""
    inner = {
        key: type(value)(**_small(_stated(value), sizes))
        for key, value in defaults.items()
        if isinstance(value, transformers.PreTrainedConfig)
    }
    return small(defaults, sizes) | inner


def _takes(model: nn.Module, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def _model_class(name: str) -> Any:
    found = getattr(transformers, name, None)
    if found is None:
        near = get_close_matches(name, dir(transformers), n=3)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "`hf` alone takes that of each spec"
        )
        raise TargetError(f"transformers {transformers.__version__} has no class {name!r}: {hint}")
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if not is_model or getattr(found, "config_class", None) is None:
        raise TargetError(
            f"{name} is no model of transformers that can be built from a configuration;"
            " expected a class such as LlamaForCausalLM"
        )
    return found
