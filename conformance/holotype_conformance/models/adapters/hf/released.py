"""The model of Hugging Face `transformers` that a spec corresponds to, as released and unmodified.

Which class that is, and what its configuration says, stands in the spec (`[family.transformers]`); nothing here
knows a model by name. What is known here are the customs that all of their classes share.
"""

from __future__ import annotations

import inspect
import os
import re
from copy import deepcopy
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is ever fetched

import torch
import transformers
from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig

from holotype_conformance.models.candidate import (
    Candidate,
    Capability,
    Inputs,
    Labels,
    Outputs,
    seen,
)
from holotype_conformance.models.declarations import Difference
from holotype_reference.weights import Weights
from holotype_spec.differences import as_theirs, differences
from holotype_spec.schema import Spec, Transformers

transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

EXPERTS = (
    "eager"  # their grouped products of experts exist in low precision only, and a probe is float64
)


class TransformersCandidate(Candidate):
    """The `transformers` model of a spec, on its fused and its eager attention."""

    title = "hf"
    paths: tuple[str, ...] = ("sdpa", "eager")

    def refusal(self, spec: Spec) -> str | None:
        if spec.family.generic:
            return (
                "a generic spec names no class: say which one you mean, as in hf:LlamaForCausalLM"
            )
        if spec.family.transformers == "none":
            return "transformers has no class for it"
        return None

    def differences(self, spec: Spec) -> tuple[Difference, ...]:
        """The entry of the spec for the class that it names."""
        return tuple(
            Difference(
                field=each.field, reason=each.reason, change=partial(as_theirs, difference=each)
            )
            for each in differences(spec)
        )

    def build(self, spec: Spec, path: str = "sdpa") -> nn.Module:
        theirs = their_class(spec)
        config = getattr(transformers, theirs.config_class)(**configuration(spec))
        model_class = getattr(transformers, theirs.model_class)
        config._attn_implementation = supported(model_class, path)
        config._experts_implementation = EXPERTS
        model: nn.Module = model_class(config)
        untie(model, spec)
        model.first_position = first_position(spec)  # type: ignore[assignment]  # read by `arguments`
        return model

    def cast(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        """As their `from_pretrained(dtype=…)` does, which leaves rotary frequencies in float32."""
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and not name.endswith("inv_freq"):
                buffer.data = buffer.data.to(dtype)
        return model

    def load(self, model: nn.Module, weights: Weights) -> None:
        """By the published names, every one of them but those that the class says it passes over."""
        passed_over = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
        own = model.state_dict()
        read = {
            name: tensor
            for name, tensor in weights.published().items()
            if name in own or not any(re.search(pattern, name) for pattern in passed_over)
        }
        model.load_state_dict(as_held(model, read))

    def forward(self, model: nn.Module, inputs: Inputs) -> Outputs:
        return _outputs(model(**arguments(model, inputs)))

    def forward_cached(self, model: nn.Module, inputs: Inputs, cache: Any) -> Outputs:
        """As their `generate` does: an encoder runs once, and its output is handed on with the cache."""
        held = cache or {}
        given = arguments(model, inputs) | held
        if "encoder_outputs" in held:
            del given["input_ids"]
        returned = model(**given, use_cache=True)
        held = {"past_key_values": returned.past_key_values}
        if inputs.source_ids is not None:
            held["encoder_outputs"] = (returned.encoder_last_hidden_state,)
        return replace(_outputs(returned), cache=held)

    def loss(self, model: nn.Module, inputs: Inputs, labels: Labels) -> Tensor:
        given = arguments(model, inputs) | {"labels": labels.tokens}
        given.pop("decoder_input_ids", None)  # theirs come from the labels
        if labels.next_sentence is not None:
            names = inspect.signature(model.forward).parameters
            order = "sentence_order_label" in names  # which of two sentences comes first (ALBERT)
            given["sentence_order_label" if order else "next_sentence_label"] = labels.next_sentence
        return model(**given).loss  # type: ignore[no-any-return]

    def save(self, model: nn.Module, folder: Path) -> None:
        model.save_pretrained(folder)  # type: ignore[operator]

    def restore(self, spec: Spec, folder: Path, path: str = "sdpa") -> nn.Module:
        model_class = getattr(transformers, their_class(spec).model_class)
        model: nn.Module = model_class.from_pretrained(
            folder,
            attn_implementation=supported(model_class, path),
            experts_implementation=EXPERTS,
            dtype="auto",
        )
        model.first_position = first_position(spec)  # type: ignore[assignment]  # read by `arguments`
        return model

    def capabilities(self, model: nn.Module, spec: Spec) -> dict[Capability, str | None]:
        found = super().capabilities(model, spec)
        if found["cache"] is None and not takes_cache(model):
            found["cache"] = "its forward takes no `past_key_values`"
        return found


def their_class(spec: Spec) -> Transformers:
    """Their class of this model.

    Raises:
        ValueError: they have none.
    """
    theirs = spec.family.transformers
    if theirs == "none":
        raise ValueError(f"transformers has no class for {spec.name}: choose another target")
    return theirs


def configuration(spec: Spec) -> dict[str, Any]:
    """The arguments of their configuration class; a dotted key is a key of a dictionary inside."""
    theirs = their_class(spec)
    flat: dict[str, Any] = dict.fromkeys(theirs.absent) | theirs.constants
    for key, path in theirs.fields.items():
        flat[key] = reduce(getattr, path.split("."), spec)
    for difference in differences(spec):
        flat |= difference.told
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *outer, last = key.split(".")
        reduce(lambda inside, name: inside.setdefault(name, {}), outer, nested)[last] = value
    return nested


def supported(model_class: Any, path: str) -> str:
    """The attention to ask for: a class that has only its own knows no other name than "eager"."""
    return path if model_class._supports_sdpa else "eager"


def untie(model: Any, spec: Spec) -> None:
    """Give the output matrix of a fresh model its own values where their configuration does not let us say so.

    Their T5 and mT5 configurations are tied whatever they are told, so that a fresh v1.1 or mT5 model has a table
    too few. Loading a published file, which holds both matrices, unties it; so do we, before weights are loaded.
    """
    if spec.architecture.tied_embeddings or not model.config.tie_word_embeddings:
        return
    output = model.get_output_embeddings()
    output.weight = nn.Parameter(output.weight.detach().clone())


def as_held(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published file under the names that a model of theirs has them by.

    Where a class keeps them otherwise than a file does, as the experts of a layer in one tensor, they are read into a
    copy by the code that reads files: it puts new parameters in the place of the model's.
    """
    if model.state_dict().keys() == tensors.keys():
        return tensors
    read = deepcopy(model)
    mapping: Any = get_model_conversion_mapping(read)
    how = LoadStateDictConfig(weight_mapping=mapping)
    found, _ = convert_and_load_state_dict_in_model(read, tensors, how)
    if wrong := {*found.missing_keys, *found.unexpected_keys, *found.mismatched_keys}:
        raise ValueError(f"their loader leaves out or does not find {sorted(map(str, wrong))}")
    held: dict[str, Tensor] = read.state_dict()
    return held


def takes_cache(model: nn.Module) -> bool:
    """Whether it decodes with a cache, as its signature says."""
    return "past_key_values" in inspect.signature(model.forward).parameters


def first_position(spec: Spec) -> int:
    """The number of the first position in their `position_ids`: 0, or its row in the position table."""
    counts_rows = their_class(spec).position_ids == "rows"
    return spec.position_rows - spec.max_positions if counts_rows else 0


def arguments(model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Our inputs under their names; what stands for the decoder has a prefix there when there is an encoder."""
    if inputs.source_ids is None:
        positions, first = inputs.position_ids, getattr(model, "first_position", 0)
        if (
            positions is not None and first
        ):  # else they are handed the very tensor, as a caller would
            positions = positions + first
        given = {
            "input_ids": inputs.token_ids,
            "attention_mask": told_mask(model, inputs),
            "position_ids": positions,
            "token_type_ids": inputs.token_types,
        }
        if inputs.order is not None:
            given |= permuted(inputs.order, next(model.parameters()).dtype)
    else:
        given = {
            "input_ids": inputs.source_ids,
            "attention_mask": inputs.source_mask,
            "decoder_input_ids": inputs.token_ids,
            "decoder_attention_mask": inputs.attention_mask,
        }
    return {name: value for name, value in given.items() if value is not None}


def told_mask(model: nn.Module, inputs: Inputs) -> Tensor | None:
    """The mask as it was given; or whole, where a prefix or a direction belongs to it, which they know by no name.

    A whole mask is (batch, 1, length, length), 0 where a key is seen and the lowest number elsewhere.
    """
    if inputs.prefix is None and inputs.right_to_left is None:
        return inputs.attention_mask
    visible = seen(inputs)
    if inputs.attention_mask is not None:
        visible = visible & inputs.attention_mask[:, None, :].bool()
    dtype = next(model.parameters()).dtype
    hidden = torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype, device=visible.device)
    return hidden.masked_fill(visible, 0.0).expand(len(inputs.token_ids), -1, -1)[:, None]


def permuted(order: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """An order of prediction (batch, length) in their words: what each position must not see, of the later ones and
    itself, and that all positions are predicted."""
    later = order[:, None, :] >= order[:, :, None]
    everywhere = torch.eye(order.shape[1], dtype=dtype, device=order.device)
    return {
        "perm_mask": later.to(dtype),
        "target_mapping": everywhere.expand(len(order), -1, -1),
    }


def _outputs(returned: Any) -> Outputs:
    logits = returned.logits if "logits" in returned else returned.prediction_logits
    return Outputs(
        logits=logits,
        next_sentence=returned.get("seq_relationship_logits", returned.get("sop_logits")),
    )
