"""Mistakes in what depends on the length of the input: theta that grows with it, and scores that do."""

from __future__ import annotations

from dataclasses import replace
from math import log

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import having, set_otherwise, sharpened
from holotype_conformance.models.deviations.patching import override_all
from holotype_reference.basics import compute_dtype
from holotype_reference.inputs import Call
from holotype_reference.model import Model
from holotype_reference.positions.log_length import LogLength
from holotype_reference.positions.rope_scaling import ScaledRotary
from holotype_spec import schema
from holotype_spec.schema import Spec

_growing_theta = having(schema.DynamicScaling)

# Theta ----------------------------------------------------------------------------------------------------------


def _trained(spec: Spec) -> int:
    positions = spec.architecture.positions
    assert isinstance(positions, schema.Rotary)
    assert isinstance(positions.scaling, schema.DynamicScaling)
    return positions.scaling.original_max_positions


@patches(
    "rotary.ntk-of-padded-length",
    "theta grows with the padded length of the batch, not with the tokens of each row",
    "A row turns otherwise in a batch with a longer one than alone. Count what the padding mask says"
    " is real, row by row.",
    applies=_growing_theta,
)
def ntk_of_padded_length(model: Model) -> None:
    def context(self: ScaledRotary, x: Tensor, inputs: Call) -> Tensor | None:
        return ScaledRotary.context(self, x, replace(inputs, attention_mask=None))

    override_all(model, ScaledRotary, context=context)


@patches(
    "rotary.ntk-by-chunk-alone",
    "behind a cache theta is that of the chunk alone, as if nothing had been read before",
    "A single new token turns as in a short input, cached keys as in a long one.",
    applies=_growing_theta,
)
def ntk_by_chunk_alone(model: Model) -> None:
    def context(self: ScaledRotary, x: Tensor, inputs: Call) -> Tensor | None:
        mask = inputs.attention_mask
        own = None if mask is None else mask[:, -x.shape[1] :]
        return ScaledRotary.context(self, x, replace(inputs, attention_mask=own, cache=None))

    override_all(model, ScaledRotary, context=context)


@patches(
    "rotary.ntk-stays-grown",
    "theta stays as large as the longest input so far has made it",
    "The base is written into the module, and only ever grows: after one long input every short one turns too slowly."
    " Compute it for each call, or go back to the trained one.",
    applies=_growing_theta,
)
def ntk_stays_grown(model: Model) -> None:
    most = [1.0]

    def growth(self: ScaledRotary, context: Tensor) -> Tensor:
        found = ScaledRotary.growth(self, context)
        most[0] = max(most[0], float(found.max()))
        return found.clamp(min=most[0])

    override_all(model, ScaledRotary, growth=growth)


@patches(
    "rotary.ntk-without-steps",
    lambda spec: f"theta grows by n/{_trained(spec)} instead of by 1, 3, 7, …",
    "NTK-aware scaling has many forms: this model doubles the length it is ready for whenever an"
    " input is longer, others follow its length exactly. `dynamic` of transformers is one of those.",
    applies=_growing_theta,
)
def ntk_without_steps(model: Model) -> None:
    trained = _trained(model.spec)
    override_all(
        model, ScaledRotary, growth=lambda self, context: (context.double() / trained).clamp(min=1)
    )


@patches(
    "rotary.ntk-one-early",
    "theta grows one token early: an input of exactly the trained length counts as longer",
    "The limit belongs to the shorter inputs. Look at `>=` where `>` belongs, and at a length that"
    " counts the next token.",
    applies=_growing_theta,
)
def ntk_one_early(model: Model) -> None:
    override_all(
        model, ScaledRotary, growth=lambda self, context: ScaledRotary.growth(self, context + 1)
    )


@patches(
    "rotary.ntk-plain-exponent",
    lambda spec: (
        f"theta is multiplied by a itself instead of a^({spec.rotary_dim}/{spec.rotary_dim - 2})"
    ),
    "The slowest pair does not slow down by a: the exponent d / (d - 2) is there so that it does.",
    applies=_growing_theta,
)
def ntk_plain_exponent(model: Model) -> None:
    def slowed(self: ScaledRotary, context: Tensor, like: Tensor) -> Tensor:
        pairs = torch.arange(0, self.rotary_dim, 2, dtype=like.dtype, device=like.device)
        return torch.pow(self.growth(context).to(like)[..., None], -pairs / self.rotary_dim)

    override_all(model, ScaledRotary, slowed=slowed)


# Scores ---------------------------------------------------------------------------------------------------------


@respecifies(
    "scale.log-length-dropped",
    "scores do not grow with the logarithm of the length",
    "Short inputs look right. In long ones attention spreads over more keys than it was trained to."
    " Look at a flag that is not read, such as `use_logn_attn`.",
    applies=sharpened,
)
def log_length_dropped(spec: Spec) -> Spec:
    return set_otherwise(spec, "attention.scale", "inverse-sqrt-head-dim")


@patches(
    "scale.log-length-off-by-one",
    "scores grow with the logarithm of the position instead of the number of keys, one more",
    "The query at position m sees m + 1 keys. A table that starts at 0 and is read by the position is"
    " one short.",
    applies=sharpened,
)
def log_length_off_by_one(model: Model) -> None:
    def factors(self: LogLength, positions: Tensor, dtype: torch.dtype) -> Tensor:
        return LogLength.factors(self, (positions - 1).clamp(min=0), dtype)

    override_all(model, LogLength, factors=factors)


@patches(
    "scale.log-length-of-input",
    "scores of all queries grow with the length of the input, not each with its own position",
    "Queries that see few keys are sharpened as if they saw them all, and what a prefix gives depends"
    " on what follows it.",
    applies=sharpened,
)
def log_length_of_input(model: Model) -> None:
    def factors(self: LogLength, positions: Tensor, dtype: torch.dtype) -> Tensor:
        last = positions.amax(dim=-1, keepdim=True).expand_as(positions)
        return LogLength.factors(self, last, dtype)

    override_all(model, LogLength, factors=factors)


@patches(
    "scale.log-length-everywhere",
    lambda spec: f"scores also shrink at the positions before {spec.max_positions}",
    "Within the trained length nothing changes: the factor is 1 there, not less.",
    applies=sharpened,
)
def log_length_everywhere(model: Model) -> None:
    def factors(self: LogLength, positions: Tensor, dtype: torch.dtype) -> Tensor:
        seen = (positions + 1).to(compute_dtype(dtype))
        return (seen.log() / log(self.trained))[:, None, :, None]

    override_all(model, LogLength, factors=factors)
