"""Causal as an argument, and masks that are told as tensors."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import (
    deviates,
    has_additive,
    has_boolean,
    has_mask,
    hears,
    is_causal,
    shows,
)
from holotype_conformance.kernels.deviations.formula import distance, lengths, masked, stacked

# Causal ---------------------------------------------------------------------------------------------------------


@shows(
    "causal.upper-left",
    "the causal diagonal starts at the first key instead of ending at the last",
    "With as many queries as keys nothing shows. With a cache the one query of a step sees the"
    " first key alone, and generation decays from its second token on. torch's own is_causal is"
    " drawn so; flash-attention was until 2.1. Offset the diagonal by keys - queries, or call the"
    " kernel without causal where there is one query.",
    where=is_causal,
    reports=("pytorch/pytorch#108108", "pytorch/pytorch#144858", "pytorch/executorch#21749"),
)
def upper_left(call: Call) -> Tensor:
    queries, keys = lengths(call)
    return torch.ones(queries, keys, dtype=torch.bool, device=call.q.device).tril()[None, None]


@shows(
    "causal.one-ahead",
    "each query sees one key beyond the diagonal",
    "A query reads the token that it is to predict, so that training loss falls far below what is"
    " possible. Mostly it is < for <= in the comparison of the key's place with the query's, or"
    " triu with the diagonal 2 for 1.",
    where=is_causal,
)
def one_ahead(call: Call) -> Tensor:
    return stacked([distance(call) >= -1])


@shows(
    "causal.hides-self",
    "the diagonal itself is hidden",
    "A query sees all keys before its own, and the first query none, which gives NaN or zeros"
    " there. Loss is a little worse, which nothing else explains. It is <= for < in the"
    " comparison, or triu with the diagonal 0 for 1.",
    where=is_causal,
)
def hides_self(call: Call) -> Tensor:
    return stacked([distance(call) >= 1])


@hears(
    "causal.ignored",
    "causal is ignored",
    "Every query sees every key, the future too. A flag that is read in one branch of the code"
    " only, or that a wrapper does not hand on, does this: look at each place where the kernel is"
    " launched.",
    where=is_causal,
    reports=("lablup/mlxcel#999",),
)
def causal_ignored(call: Call) -> Call:
    return replace(call, causal=False)


@hears(
    "causal.dropped-with-mask",
    "causal is ignored where a mask is told with it",
    "A mask of padding and causal, told together, are to hide what either hides. A code with one"
    " branch for a mask and one for causal shows the future in every padded batch, and in no"
    " other. Join the two before the kernel.",
    where=lambda call: has_mask(call) and call.causal,
    named=False,  # that is causal.ignored, where a mask is told with it
    reports=("huggingface/transformers#48770",),
)
def dropped_with_mask(call: Call) -> Call:
    return replace(call, causal=False)


# Boolean masks --------------------------------------------------------------------------------------------------


@hears(
    "mask.ignored",
    "the mask is ignored",
    "Padding is attended to. In a batch whose rows are equally long nothing shows. Look for a"
    " parameter that is taken and not used, and for a fast path that is chosen although a mask was"
    " given.",
    where=has_mask,
    reports=("osaurus-ai/vmlx-swift#185",),
)
def ignored(call: Call) -> Call:
    return replace(call, mask=None)


@hears(
    "mask.inverted",
    "true in a mask hides instead of showing",
    "torch.nn.MultiheadAttention and many models mark what is hidden;"
    " scaled_dot_product_attention marks what is seen. A model that was trained on one and runs on"
    " the other attends to padding alone. Negate the mask in the adapter.",
    where=has_mask,
)
def inverted(call: Call) -> Call:
    mask = call.mask
    assert mask is not None
    if mask.dtype == torch.bool:
        return replace(call, mask=~mask)
    hidden = torch.zeros_like(mask).masked_fill(mask == 0.0, -math.inf)
    return replace(call, mask=hidden)


def _added(scores: Tensor, call: Call) -> Tensor:
    assert call.mask is not None
    return scores + call.mask.to(scores.dtype)


deviates(
    "mask.as-number",
    "a boolean mask is added to the scores, as 0 and 1",
    "True becomes 1 and false 0, so that the keys that are seen have e times the weight and"
    " nothing is hidden. It happens where a mask is cast to the dtype of the scores instead of"
    " being turned into 0 and -inf: use masked_fill.",
    where=has_boolean,
    masked=_added,
)


def _multiplied(scores: Tensor, call: Call) -> Tensor:
    """A product of a score with false is 0, and 0 a score like any other."""
    assert call.mask is not None
    return scores * call.mask.to(scores.dtype)


deviates(
    "mask.multiplied",
    "scores are multiplied by a boolean mask, so that hidden ones are 0 and not -inf",
    "A score of 0 is not hidden: its weight is that of an average key. Hidden tokens take the"
    " more of the softmax the more of them there are. Fill with -inf before the softmax; a product"
    " is right only for weights behind it, which must be divided by their new sum then.",
    where=has_boolean,
    masked=_multiplied,
)


def _ten_thousand(scores: Tensor, call: Call) -> Tensor:
    assert call.mask is not None
    return scores - 1e4 * (~call.mask).to(scores.dtype)


deviates(
    "mask.minus-ten-thousand",
    "10000 is subtracted from hidden scores instead of hiding them",
    "-10000 was large enough for BERT's scores. Where they are larger, or where a query sees no"
    " key, hidden keys have weight all the same: what they hold reaches the result. Use -inf, and"
    " decide what a query without keys gives.",
    where=has_boolean,
    named=False,
    masked=_ten_thousand,
)


def _of_first_query(scores: Tensor, call: Call) -> Tensor:
    mask = call.mask
    if mask is None or not mask.shape[2] == 1 < scores.shape[2]:
        return masked(scores, call)
    first = torch.arange(scores.shape[2], device=scores.device)[:, None] == 0
    return torch.where(first, masked(scores, call), scores)


deviates(
    "mask.not-broadcast",
    "a mask of one row is applied to the first query alone",
    "A mask of padding has one row, (batch, 1, 1, keys), which holds for every query. A kernel"
    " that takes the number of queries from its own sizes reads behind it, or stops after its"
    " first row. Expand the mask, or give its axis of queries the stride 0.",
    where=has_boolean,
    named=False,
    masked=_of_first_query,
)


# Masks that are added -------------------------------------------------------------------------------------------


@hears(
    "mask.additive-scaled",
    "a mask that is added is scaled as the scores are",
    "A bias that is added before the scale is divided by √head_dim with the scores. Of 0 and -inf"
    " nothing is seen; a bias by distance, as T5 and ALiBi have it, is too weak. Scale the"
    " products first, and add then.",
    where=has_additive,
    named=False,
)
def additive_scaled(call: Call) -> Call:
    assert call.mask is not None
    return replace(call, mask=call.mask * call.q.shape[-1] ** -0.5)


def _clamped(lowest: float) -> object:
    def told(call: Call) -> Call:
        assert call.mask is not None
        return replace(call, mask=call.mask.clamp(min=lowest))

    return told


deviates(
    "mask.additive-clamped",
    "a mask that is added is clamped to no less than -1000",
    "Clamping keeps -inf from making NaN of rows that see nothing, and leaves hidden keys a"
    " weight wherever scores are as large: exp(-1000) times what it is compared with. Use the"
    " least number of the dtype, and treat such rows apart.",
    where=has_additive,
    named=False,
    told=_clamped(-1e3),
)
deviates(
    "mask.additive-in-eight-bits",
    "a mask that is added is kept in so few bits that it ends at -3",
    "A bias that is kept in few bits saturates: far keys are as near as the last that it can say,"
    " and hidden ones are seen. It agrees with a boolean mask of the same keys nowhere. Keep"
    " biases in the dtype of the scores.",
    where=has_additive,
    named=False,
    told=_clamped(-3.0),
)
