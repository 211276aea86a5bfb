"""Changes that are none by mathematics: other ways to write the same model, which no property may flag."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from holotype_conformance.judge.deviation import always
from holotype_conformance.models.deviations.attention import drop_biases, tile
from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import (
    biased,
    both,
    decodes,
    has_buckets,
    has_rotary,
    has_source,
    having,
    normalised_softmax,
    rotates,
    scaled,
    ungrouped,
    without,
)
from holotype_conformance.models.deviations.patching import (
    override,
    override_all,
    parts,
    share_by,
    softmax_by,
    weigh,
    wide,
)
from holotype_reference.attention import Attention, Positioning
from holotype_reference.basics import Linear
from holotype_reference.experts import Choice, Router
from holotype_reference.inputs import Call
from holotype_reference.masks import Mask
from holotype_reference.model import Model
from holotype_reference.positions.relative_bias import Alibi, Biased, RelativeBias
from holotype_reference.positions.rotary import Rotary
from holotype_spec import schema

_transformer_xl = having(schema.TransformerXLPositions)
_alibi = having(schema.Alibi)


@patches(
    "equivalent.rotary-shifted",
    "all rotary positions are shifted by 3",
    "Only distances count: queries and keys turn by the same angle more, and their product stays.",
    applies=has_rotary,
    equivalent=True,
)
def rotary_shifted(model: Model) -> None:
    override_all(model, Rotary, turns=lambda self, at, *told: type(self).turns(self, at + 3, *told))


@patches(
    "equivalent.key-bias",
    "the bias of the key projection is not added, in a model without rotary positions",
    "It adds the same to all scores of a query, and a softmax does not see a constant.",
    applies=both(biased("key"), without(rotates)),
    equivalent=True,
)
def key_bias(model: Model) -> None:
    drop_biases(model, "key")


@patches(
    "equivalent.finite-mask",
    "masked scores get -10,000 added instead of being left out",
    "As long as scores are small beside it, exp makes zeros of them.",
    equivalent=True,
)
def finite_mask(model: Model) -> None:
    def softmax(scores: Tensor, mask: Mask) -> Tensor:
        return mask.silence((wide(scores) - 10_000.0 * ~mask.visible).softmax(dim=-1))

    weigh(model, softmax_by(softmax))


@patches(
    "equivalent.softmax-written-out",
    "the softmax is written out as exp over a sum, without the maximum taken off first",
    "A constant cancels. Only scores that overflow would show it.",
    equivalent=True,
)
def softmax_written_out(model: Model) -> None:
    def softmax(scores: Tensor, mask: Mask) -> Tensor:
        powers = wide(scores).exp() * mask.visible
        # A query without keys has no powers at all, and nothing to divide them by.
        return powers / powers.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(powers.dtype).tiny)

    weigh(model, softmax_by(softmax))


@patches(
    "equivalent.softmax-in-own-dtype",
    "exponentials, sum and quotient of the softmax are each rounded to the model's own dtype",
    "So a softmax of torch without an upcast computes, whose sums are wide by themselves. Each"
    " rounding is of the size of that of the scores, which correct code has too: in bfloat16 it moves"
    " the error of the logits by a tenth at most, and of two correct codes one may be as far off.",
    equivalent=True,
)
def softmax_in_own_dtype(model: Model) -> None:
    def softmax(scores: Tensor, mask: Mask) -> Tensor:
        scores = scores.masked_fill(~mask.visible, torch.finfo(scores.dtype).min)
        powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()
        return mask.silence(powers / powers.sum(dim=-1, keepdim=True))

    weigh(model, softmax_by(softmax))


@patches(
    "equivalent.relative-constant",
    "every relative bias of a head is larger by one constant",
    "All scores of a query grow by it, and a softmax does not see a constant.",
    applies=has_buckets,
    equivalent=True,
)
def relative_constant(model: Model) -> None:
    def larger(self: RelativeBias, queries: Tensor, keys: Tensor) -> Tensor:
        bias = RelativeBias.forward(self, queries, keys)
        constants = torch.arange(bias.shape[1], dtype=bias.dtype, device=bias.device) / 8
        return bias + constants[:, None, None]

    override_all(model, RelativeBias, forward=larger)


@patches(
    "equivalent.relative-future-bucket",
    "the decoder's keys after the query have another distance bucket",
    "They are masked, whatever their bias is: no output depends on that bucket.",
    applies=both(has_buckets, has_source),
    equivalent=True,
)
def relative_future_bucket(model: Model) -> None:
    table = model.decoder.relative_bias
    assert isinstance(table, RelativeBias)

    def bucket(self: RelativeBias, ahead: Tensor) -> Tensor:
        return RelativeBias.bucket(self, ahead).masked_fill(ahead > 0, self.buckets - 1)

    override(table, bucket=bucket)


@patches(
    "equivalent.alibi-symmetric",
    "keys behind the query and before it are lowered alike by ALiBi, in a causal model",
    "The later keys are masked, whatever is taken from their scores.",
    applies=both(_alibi, decodes),
    equivalent=True,
)
def alibi_symmetric(model: Model) -> None:
    override_all(model, Alibi, forward=lambda self, i, j: -Alibi.forward(self, i, j).abs())


@patches(
    "equivalent.alibi-by-key",
    "each score is raised by the slope times the key's place instead of being lowered by the distance",
    "The query's own place adds the same to all of its scores, and a softmax does not see a constant.",
    applies=_alibi,
    equivalent=True,
)
def alibi_by_key(model: Model) -> None:
    override_all(model, Alibi, forward=lambda self, i, j: Alibi.forward(self, i * 0, j))


@patches(
    "equivalent.alibi-of-first-queries",
    "the queries behind a cache are taken for the first ones by ALiBi",
    "All scores of a query are off by one constant, and a softmax does not see it.",
    applies=both(_alibi, decodes),
    equivalent=True,
)
def alibi_of_first_queries(model: Model) -> None:
    def at(self: Alibi, x: Tensor, inputs: Call) -> Positioning:
        keys = torch.arange(inputs.cached + x.shape[1], device=x.device)
        return Biased(added=Alibi.forward(self, keys[: x.shape[1]], keys).to(x.dtype))

    override_all(model, Alibi, at=at)


@patches(
    "equivalent.tiled",
    "key-value heads are tiled over the query heads, of which there are as many",
    "Repeating once and tiling once are the same.",
    applies=ungrouped,
    equivalent=True,
)
def tiled(model: Model) -> None:
    share_by(model, tile)


@patches(
    "equivalent.scaled-keys",
    "keys are scaled before their product with the queries, instead of the product",
    "A factor may stand anywhere in a product.",
    applies=both(scaled, without(_transformer_xl)),
    equivalent=True,
)
def scaled_keys(model: Model) -> None:
    def attend(
        self: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
    ) -> Tensor:
        return Attention.attend(self, query, key * scales[self], value, mask, bias)

    scales = {attention: attention.scale for attention in parts(model, Attention)}
    for attention in scales:
        attention.scale = 1.0
    override_all(model, Attention, attend=attend)


@patches(
    "equivalent.heads-in-turn",
    "each head's part of the output projection is applied and summed by itself",
    "A matrix product is a sum of the products of its blocks.",
    applies=always,
    equivalent=True,
)
def heads_in_turn(model: Model) -> None:
    width = model.spec.value_head_dim

    def forward(output: Linear, x: Tensor) -> Tensor:
        parts = rearrange(x, "batch length (heads width) -> heads batch length width", width=width)
        blocks = rearrange(output.weight, "size (heads width) -> heads width size", width=width)
        total: Tensor = sum(part @ block for part, block in zip(parts, blocks, strict=True))
        return total if output.bias is None else total + output.bias

    for module in model.modules():
        if isinstance(module, Attention):
            override(module.output, forward=forward)


@patches(
    "equivalent.softmax-after-choice",
    "the softmax is taken over the chosen experts alone, whose gates would be normalised to the sum 1 anyway",
    "What a softmax over all of them adds below the line cancels in the quotient.",
    applies=normalised_softmax,
    equivalent=True,
)
def softmax_after_choice(model: Model) -> None:
    def forward(self: Router, x: Tensor) -> Choice:
        logits = self.logits(x)
        chosen = logits.topk(self.active, dim=-1)
        return Choice(experts=chosen.indices, gates=chosen.values.softmax(dim=-1))

    override_all(model, Router, forward=forward)
