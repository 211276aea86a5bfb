"""Embeddings: their scale, their projection, and the tables beside that of the tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches, respecifies
from holotype_conformance.models.deviations.features import (
    both,
    embedding_norm,
    places_positions,
    projection_biased,
    scales_embeddings,
    set_otherwise,
    token_types,
    without,
)
from holotype_conformance.models.deviations.patching import override, override_all, parts
from holotype_reference.basics import Linear, Table
from holotype_reference.embeddings import Embeddings, Placement
from holotype_reference.model import Model
from holotype_spec.schema import Spec

# Scale ----------------------------------------------------------------------------------------------------------


def _multiply_tokens(model: Model) -> None:
    size = model.spec.hidden_size
    override(model.embeddings.token, forward=lambda self, x: Table.forward(self, x) * size**0.5)


@patches(
    "embeddings.scaled",
    lambda spec: f"token embeddings are multiplied by √{spec.hidden_size}",
    "Other families scale, this one does not. Under pre-norm the first norm hides most of it.",
    applies=without(scales_embeddings),
)
def scaled(model: Model) -> None:
    _multiply_tokens(model)


@patches(
    "embeddings.scaled-twice",
    lambda spec: (
        f"token embeddings are multiplied by {spec.hidden_size} instead of √{spec.hidden_size}"
    ),
    "The table and the model each scale, or stored rows were scaled already.",
    applies=scales_embeddings,
    reports=("TensorAuto/OpenTau#179",),
)
def scaled_twice(model: Model) -> None:
    _multiply_tokens(model)


@respecifies(
    "embeddings.scale-dropped",
    lambda spec: f"token embeddings are not multiplied by √{spec.hidden_size}",
    "Positions weigh more beside them than they were trained to. Frozen or tied tables hide the"
    " factor in their initialisation.",
    applies=scales_embeddings,
)
def scale_dropped(spec: Spec) -> Spec:
    return set_otherwise(spec, "embeddings.scale", "none")


@patches(
    "embeddings.scaled-with-positions",
    lambda spec: f"positions are multiplied by √{spec.hidden_size} with the token embeddings",
    "The factor belongs to the token's row alone: it is applied before anything is added.",
    applies=both(scales_embeddings, places_positions),
)
def scaled_with_positions(model: Model) -> None:
    factor = model.spec.hidden_size**0.5
    for placement in parts(model, Placement):
        position = placement.position
        assert position is not None
        override(position, forward=lambda self, p: type(self).forward(self, p) * factor)


# Norm and projection --------------------------------------------------------------------------------------------


@patches(
    "embeddings.normed-before-positions",
    "the norm of the embeddings is applied to the token's row alone, before positions are added",
    "It is the norm of the sum. Look at the order of the three lines.",
    applies=both(embedding_norm, places_positions),
)
def normed_before_positions(model: Model) -> None:
    def place(self: Placement, rows: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        assert self.norm is not None
        sums = _added(self, rows, positions, types)
        dropped: Tensor = self.dropout(self.norm(rows) + (sums - rows))
        return dropped

    override_all(model, Placement, place=place)


def _added(self: Placement, rows: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
    """The token's row with those of the other tables."""
    if self.token_type is not None:
        rows = rows + (self.token_type.weight[0] if types is None else self.token_type(types))
    return rows if self.position is None else rows + self.position(positions).to(rows.dtype)


@patches(
    "embeddings.projection-bias-dropped",
    "the bias of the matrix from the embeddings to the hidden size is not added",
    "The matrix of factorised embeddings has a bias in the published weights.",
    applies=projection_biased,
)
def projection_bias_dropped(model: Model) -> None:
    projection = model.embeddings.projection
    assert projection is not None
    override(projection, forward=lambda self, x: Linear.forward(self, x) - self.bias)


# Token types ----------------------------------------------------------------------------------------------------


@patches(
    "embeddings.token-types-ignored",
    "token types are accepted and not read: all are 0",
    "The second sentence is taken for part of the first. Look for an argument that is not handed"
    " on.",
    applies=token_types,
    reports=("huggingface/transformers#48128",),
)
def token_types_ignored(model: Model) -> None:
    override(
        model.embeddings,
        forward=lambda self, ids, positions, types: Embeddings.forward(self, ids, positions, None),
    )


@patches(
    "embeddings.token-types-default-one",
    "tokens without a type get type 1 instead of 0",
    "A sentence alone is the first sentence. Only callers that give no token types see it.",
    applies=token_types,
    reports=("john-hewitt/structural-probes#13",),
)
def token_types_default_one(model: Model) -> None:
    def forward(self: Embeddings, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        types = torch.ones_like(ids) if types is None else types
        return Embeddings.forward(self, ids, positions, types)

    override(model.embeddings, forward=forward)


@patches(
    "embeddings.token-types-dropped",
    "no token-type embedding is added",
    "A row of the table is missing from every token, that of type 0 included: a model without"
    " segments is not a model whose segments are all 0.",
    applies=token_types,
)
def token_types_dropped(model: Model) -> None:
    def forward(self: Embeddings, ids: Tensor, positions: Tensor, types: Tensor | None) -> Tensor:
        x: Tensor = self.token(ids)
        if self.position is not None:
            x = x + self.position(positions)
        dropped: Tensor = self.dropout(x if self.norm is None else self.norm(x))
        return dropped

    override(model.embeddings, forward=forward)
