"""Attention over latent vectors: their norms, the rotary key that all heads share, and what is cut where."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from holotype_conformance.models.deviations.caching import keep_in
from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import both, having
from holotype_conformance.models.deviations.patching import override, override_all, parts, rescale
from holotype_reference.cache import KeysValues
from holotype_reference.latent import LatentAttention
from holotype_reference.model import Model
from holotype_spec import schema
from holotype_spec.schema import Spec

_latent = having(schema.LatentAttention)


def _compresses_queries(spec: Spec) -> bool:
    attention = spec.architecture.attention
    return isinstance(attention, schema.LatentAttention) and attention.query_rank != "none"


def _as_it_is(_norm: torch.nn.Module, x: Tensor) -> Tensor:
    return x


@patches(
    "latent.norm-dropped",
    "the latent vector of keys and values is not normalised",
    "The released code has a norm between the two matrices, which a fused pair of matrices forgets.",
    applies=_latent,
)
def norm_dropped(model: Model) -> None:
    for attention in parts(model, LatentAttention):
        override(attention.latent_norm, forward=_as_it_is)


@patches(
    "latent.query-norm-dropped",
    "the latent vector of the queries is not normalised",
    "The released code has a norm between the two matrices, which a fused pair of matrices forgets.",
    applies=both(_latent, _compresses_queries),
)
def query_norm_dropped(model: Model) -> None:
    for attention in parts(model, LatentAttention):
        assert attention.query_norm is not None
        override(attention.query_norm, forward=_as_it_is)


@patches(
    "latent.norm-eps",
    lambda spec: (
        f"the eps of the latent norms alone is 1e-5 instead of {spec.architecture.normalization.eps:g}"
    ),
    "The norms of a layer are given the model's eps, and those inside attention the default of their class. Ordinary"
    " activations hide it.",
    applies=both(_latent, lambda spec: spec.architecture.normalization.eps != 1e-5),
)
def norm_eps(model: Model) -> None:
    for attention in parts(model, LatentAttention):
        for norm in (attention.latent_norm, attention.query_norm):
            if norm is not None:
                norm.eps = 1e-5  # type: ignore[assignment]


@patches(
    "latent.rotary-key-of-first-head",
    "the rotary key belongs to the first head alone, not to all of them",
    "Other heads know no position of their keys. The one rotary key of a token is shared: expand it,"
    " do not pad it.",
    applies=_latent,
)
def rotary_key_of_first_head(model: Model) -> None:
    def expand(self: LatentAttention, vectors: Tensor, rotary_key: Tensor) -> tuple[Tensor, Tensor]:
        key, value = LatentAttention.expand(self, vectors, rotary_key)
        first = torch.arange(self.heads, device=key.device)[:, None, None] == 0
        still, turning = self.parts(key)
        return self.whole(still, turning * first), value

    override_all(model, LatentAttention, expand=expand)


@patches(
    "latent.rotary-key-dealt",
    "the rotary keys of a sequence are dealt out to the heads instead of shared by all",
    "A `view` to (keys, heads) of a tensor that was repeated along the keys: each head gets those of"
    " other tokens. Shapes fit, and with one token all is well.",
    applies=_latent,
)
def rotary_key_dealt(model: Model) -> None:
    def expand(self: LatentAttention, vectors: Tensor, rotary_key: Tensor) -> tuple[Tensor, Tensor]:
        key, value = LatentAttention.expand(self, vectors, rotary_key)
        still, turning = self.parts(key)
        laid = rearrange(turning, "batch heads keys width -> batch (heads keys) width")
        dealt = rearrange(
            laid, "batch (keys heads) width -> batch heads keys width", heads=self.heads
        )
        return self.whole(still, dealt), value

    override_all(model, LatentAttention, expand=expand)


@patches(
    "latent.rotary-part-first",
    "the first dimensions of a query's head turn, not the last",
    "Rotary positions of other families turn the first dimensions of a head. Here they stand behind"
    " the others: the wrong ones turn, and meet the wrong part of the keys.",
    applies=_latent,
)
def rotary_part_first(model: Model) -> None:
    def forward_parts(self: LatentAttention, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., self.turning :], x[..., : self.turning]

    override_all(model, LatentAttention, parts=forward_parts)


@patches(
    "latent.scale-of-part-without-positions",
    lambda spec: (
        f"scores are scaled by 1/√{spec.nope_head_dim}, what carries no position, instead of 1/√{spec.head_dim}"
    ),
    "A score sums over both parts of a head, and is scaled by their number together.",
    applies=_latent,
)
def scale_of_part_without_positions(model: Model) -> None:
    smaller = (model.spec.head_dim / model.spec.nope_head_dim) ** 0.5
    rescale(model, smaller)


@patches(
    "latent.keys-and-values-in-blocks",
    "of the fused matrix the first rows are taken for the keys of all heads, the rest for the values",
    "Its rows go head by head: the keys of a head, then its values. Cut it into heads first.",
    applies=_latent,
)
def keys_and_values_in_blocks(model: Model) -> None:
    def expand(self: LatentAttention, vectors: Tensor, rotary_key: Tensor) -> tuple[Tensor, Tensor]:
        key, value = LatentAttention.expand(self, vectors, rotary_key)
        still, turning = self.parts(key)
        widths = (still.shape[-1], value.shape[-1])
        rows = rearrange(
            torch.cat((still, value), dim=-1), "batch heads keys width -> batch keys (heads width)"
        )
        still, value = (
            self.by_head(part)
            for part in torch.split(rows, [self.heads * width for width in widths], dim=-1)
        )
        return self.whole(still, turning), value

    override_all(model, LatentAttention, expand=expand)


class LatentOnly(KeysValues):
    """The rotary keys of what was read before are lost."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.values is not None:
            self.values = torch.zeros_like(self.values)
        return super().extend(keys, values)


@patches(
    "latent.rotary-key-not-cached",
    "the cache keeps the latent vectors and loses the rotary keys",
    "Behind a cache no key knows its position. What is cached is two vectors a token, the latent one"
    " and the rotary key.",
    applies=_latent,
)
def rotary_key_not_cached(model: Model) -> None:
    keep_in(model, LatentOnly)
