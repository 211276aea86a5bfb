"""Attention: its scale, its softmax, its heads and its biases."""

from __future__ import annotations

from einops import pack, rearrange, repeat
from torch import Tensor, finfo

from holotype_conformance.models.deviations.deviation import Deviation, patches, respecifies
from holotype_conformance.models.deviations.features import (
    biased,
    both,
    grouped,
    has_source,
    multi_head,
    scaled,
    set_otherwise,
    ungrouped,
)
from holotype_conformance.models.deviations.patching import (
    Turn,
    override,
    override_all,
    parts,
    prepare,
    rescale,
    rounded_sum,
    share_by,
    softmax_by,
    weigh,
    wide,
)
from holotype_reference.attention import Attention, MultiHeadAttention, SelfAttention
from holotype_reference.basics import Linear
from holotype_reference.cross_attention import CrossAttention
from holotype_reference.masks import Mask
from holotype_reference.model import Model
from holotype_spec.schema import Spec

# Scale ----------------------------------------------------------------------------------------------------------


@patches(
    "scale.dropped",
    lambda spec: f"scores are not scaled (instead of by 1/√{spec.head_dim})",
    "Scores are larger by √head_dim, attention is nearly one-hot and its gradients vanish. A"
    " kernel that is told `scale=1`, or a path of its own for one kind of mask, is the usual"
    " cause.",
    applies=scaled,
)
def scale_dropped(model: Model) -> None:
    rescale(model, model.spec.head_dim**0.5)


@respecifies(
    "scale.added",
    lambda spec: f"scores are scaled by 1/√{spec.head_dim} (instead of not at all)",
    "Attention is flatter than it was trained to be. T5 folds the scale into its initialisation;"
    " a fused kernel scales by itself unless it is told `scale=1`.",
    applies=lambda spec: spec.architecture.attention.scale == "none",
)
def scale_added(spec: Spec) -> Spec:
    return set_otherwise(spec, "attention.scale", "inverse-sqrt-head-dim")


@patches(
    "scale.twice",
    lambda spec: f"scores are scaled twice, by 1/{spec.head_dim}",
    "Queries are scaled, and the kernel scales again: attention is nearly uniform. Look for a"
    " query that is multiplied before a kernel with a default scale.",
    applies=scaled,
)
def scale_twice(model: Model) -> None:
    for attention in parts(model, Attention):
        attention.scale /= attention.head_dim**0.5


@patches(
    "scale.inverted",
    lambda spec: f"scores are multiplied by √{spec.head_dim} instead of divided",
    "Attention is one-hot. Look for a division by what is already the inverse.",
    applies=scaled,
    reports=("esceptico/perceiver-io#9",),
)
def scale_inverted(model: Model) -> None:
    rescale(model, model.spec.head_dim)


@patches(
    "scale.hidden-size",
    lambda spec: (
        f"scores are scaled by 1/√{spec.hidden_size}, the hidden size, instead of 1/√{spec.head_dim}"
    ),
    "Attention is too flat. The scale belongs to the width of one head, over which a score sums.",
    applies=both(scaled, lambda spec: spec.heads > 1),
)
def scale_hidden_size(model: Model) -> None:
    wider = (model.spec.head_dim / model.spec.hidden_size) ** 0.5
    rescale(model, wider)


@patches(
    "scale.only-without-mask",
    "scores are not scaled when a padding mask is given",
    "One path of the code scales, the one for masked batches does not: the same batch with and"
    " without a mask of ones differs. Look at every call of a kernel.",
    applies=scaled,
    reports=("mlc-ai/mlc-llm#3426",),
)
def scale_only_without_mask(model: Model) -> None:
    override_all(model, Attention, attend=_unscaled_under_mask)


def _unscaled_under_mask(
    self: Attention, query: Tensor, key: Tensor, value: Tensor, mask: Mask, bias: Tensor | None
) -> Tensor:
    query = query if mask.padding is None else query / self.scale
    return Attention.attend(self, query, key, value, mask, bias)


# Softmax --------------------------------------------------------------------------------------------------------


def _masked(scores: Tensor, mask: Mask) -> Tensor:
    return wide(scores).masked_fill(~mask.visible, finfo(wide(scores).dtype).min)


@patches(
    "softmax.over-queries",
    "the softmax runs over the queries instead of the keys",
    "What a query takes from a key depends on the other queries, those that come later among"
    " them: the future leaks through the normaliser, although every masked weight is zero. Look at"
    " `dim`.",
)
def over_queries(model: Model) -> None:
    weigh(
        model, softmax_by(lambda scores, mask: mask.silence(_masked(scores, mask).softmax(dim=-2)))
    )


@patches(
    "softmax.over-heads",
    "the softmax runs over the heads instead of the keys",
    "Heads compete with each other, and keys do not. Look at `dim` and at the order of the axes.",
)
def over_heads(model: Model) -> None:
    weigh(model, softmax_by(lambda scores, mask: wide(scores).softmax(dim=1) * mask.visible))


@patches(
    "softmax.over-batch",
    "the softmax runs over the batch instead of the keys",
    "Rows of a batch compete with each other, and a row alone gets weights of one. Old frameworks"
    " choose an axis by the number of dimensions: name it.",
    reports=("PetrochukM/PyTorch-NLP#2", "ml-explore/mlx#1041"),
)
def over_batch(model: Model) -> None:
    weigh(model, softmax_by(lambda scores, mask: wide(scores).softmax(dim=0) * mask.visible))


@patches(
    "softmax.masked-after",
    "masked weights are set to zero after the softmax, and the others are not renormalised",
    "Masked keys take their share of the weight with them: outputs shrink, by an amount that"
    " depends on the future. No single weight is wrong in kind. Mask the scores before the"
    " softmax.",
)
def masked_after(model: Model) -> None:
    weigh(model, softmax_by(lambda scores, mask: wide(scores).softmax(dim=-1) * mask.visible))


@patches(
    "softmax.without-upcast",
    "the softmax is computed in the model's own dtype, not in at least float32",
    "Each weight is added to a sum that has no more digits than the weights: beyond a few hundred keys"
    " it stands still, and the weights sum to more than one. Short rows and float32 show nothing."
    " Upcast the scores, or give the kernel a wider accumulator.",
)
def without_upcast(model: Model) -> None:
    weigh(model, softmax_by(_narrow))


def _narrow(scores: Tensor, mask: Mask) -> Tensor:
    scores = scores.masked_fill(~mask.visible, finfo(scores.dtype).min)
    powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return mask.silence(powers / rounded_sum(powers))


# Heads ----------------------------------------------------------------------------------------------------------


@patches(
    "kv.tiled",
    lambda spec: (
        f"the {spec.kv_heads} key-value heads are tiled over the {spec.heads} query heads (0 1 … 0 1 …) instead of"
        " repeated (0 0 … 1 1 …)"
    ),
    "Query heads read other key-value heads than they were trained with. Shapes fit and the model"
    " babbles. Use repeat_interleave, or expand the axis after the key-value heads.",
    applies=grouped,
    reports=("onnx/onnx#7274", "ekzhang/jax-js#180"),
)
def tiled(model: Model) -> None:
    share_by(model, tile)


def tile(attention: Attention, x: Tensor) -> Tensor:
    """The key-value heads in turn: 0 1 … 0 1 …"""
    return repeat(x, "batch kv keys width -> batch (group kv) keys width", group=attention.group)


@patches(
    "kv.first-head-only",
    lambda spec: (
        f"all {spec.heads} query heads read the first of the {spec.kv_heads} key-value heads"
    ),
    "The other key-value heads are computed and never read. Look for an index or a broadcast"
    " where heads are to be expanded.",
    applies=lambda spec: spec.kv_heads > 1,
    reports=("state-spaces/mamba#462",),
)
def first_head_only(model: Model) -> None:
    share_by(model, _first)


def _first(attention: Attention, x: Tensor) -> Tensor:
    heads = x.shape[1] * attention.group
    return repeat(x[:, 0], "batch keys width -> batch heads keys width", heads=heads)


@patches(
    "heads.interleaved",
    "the heads are split the other way: neighbouring features belong to different heads",
    "A reshape to (head_dim, heads) instead of (heads, head_dim). Shapes fit after a transpose,"
    " and every head gets a bit of all others.",
    applies=both(multi_head, lambda spec: spec.heads > 1),
)
def interleaved(model: Model) -> None:
    override_all(model, MultiHeadAttention, split=_deal)


def _deal(attention: MultiHeadAttention, x: Tensor) -> Tensor:
    return rearrange(
        x, "batch length (width heads) -> batch heads length width", width=attention.head_dim
    )


@patches(
    "heads.query-key-swapped",
    "the projections of queries and keys are swapped",
    "Scores are transposed: i attends to j as j should to i. Look at the order in which a fused"
    " matrix is cut.",
    applies=both(ungrouped, multi_head),
)
def query_key_swapped(model: Model) -> None:
    for attention in parts(model, SelfAttention):
        query, key = attention.query, attention.key
        override(query, forward=lambda self, x, other=key: Linear.forward(other, x))
        override(key, forward=lambda self, x, other=query: Linear.forward(other, x))


@patches(
    "heads.fused-by-head",
    "the fused matrix of queries, keys and values is cut head by head instead of in thirds",
    "Some releases store query, key and value of each head together, others all queries first."
    " Shapes are the same. Convert the matrix, or cut it as it was stored.",
    applies=both(ungrouped, lambda spec: spec.heads > 1),
    reports=("tenstorrent/tt-metal#6243", "ai-dynamo/modelexpress#650"),
)
def fused_by_head(model: Model) -> None:
    prepare(model, _cut_by_head)


def _cut_by_head(
    query: Tensor, key: Tensor, value: Tensor, turn: Turn
) -> tuple[Tensor, Tensor, Tensor]:
    fused = pack((query, key, value), "batch * length width")[0]
    query, key, value = rearrange(
        fused, "batch (heads three) length width -> three batch heads length width", three=3
    )
    return turn(query), turn(key), value


# Biases ---------------------------------------------------------------------------------------------------------


def _bias_dropped(part: str) -> Deviation:
    return patches(
        f"bias.{part}-dropped",
        f"the bias of the {part} projection is not added",
        f"The checkpoint has a {part} bias, and the code does not add it. Freshly initialised"
        " biases are zero and show nothing. Look at the bias flag of the layer and at what the"
        " loader skips.",
        applies=biased(part),
        reports=()
        if part == "output"
        else ("sbryngelson/ANEForge#253", "EricLBuehler/candle-vllm#167"),
    )(lambda model: drop_biases(model, part))


def drop_biases(model: Model, part: str) -> None:
    """One projection of every attention block adds no bias."""
    for attention in parts(model, Attention):
        override(getattr(attention, part), forward=_unbiased)


def _unbiased(linear: Linear, x: Tensor) -> Tensor:
    return x @ linear.weight.T


# Not that of the keys: see the equivalent changes.
for _part in ("query", "value", "output"):
    _bias_dropped(_part)


@patches(
    "attention.dropped",
    "self-attention adds nothing to the stream",
    "No position knows of another. Look for a block whose result is not used.",
)
def attention_dropped(model: Model) -> None:
    for attention in parts(model, Attention):
        if not isinstance(attention, CrossAttention):
            override(attention.output, forward=lambda self, x: Linear.forward(self, x) * 0)


@patches(
    "attention.cross-dropped",
    "cross-attention adds nothing to the stream",
    "The decoder does not know the source: it is a language model of its own. Look for a block whose"
    " result is not used, and for a branch that a missing argument skips.",
    applies=has_source,
)
def cross_dropped(model: Model) -> None:
    for attention in parts(model, CrossAttention):
        override(attention.output, forward=lambda self, x: Linear.forward(self, x) * 0)
