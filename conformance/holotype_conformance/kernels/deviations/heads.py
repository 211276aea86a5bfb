"""Heads: which of them share keys and values, and what must not mix."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from holotype_conformance.kernels.candidate import Call
from holotype_conformance.kernels.deviations.deviation import RIGHT, codes, deviates, hears


def _tiled(x: Tensor, group: int) -> Tensor:
    return x.repeat(1, group, 1, 1)


deviates(
    "heads.tiled",
    "key-value heads are tiled (0 1 0 1) instead of repeated (0 0 1 1)",
    "Neighbouring query heads share their keys and values: repeat_interleave, not repeat. With"
    " one key-value head, or as many as query heads, the two are the same, so that small tests"
    " pass.",
    shared=_tiled,
    where=lambda call: 1 < call.k.shape[1] < call.q.shape[1],
)


def _first_only(x: Tensor, group: int) -> Tensor:
    return x[:, :1].expand(-1, x.shape[1] * group, -1, -1)


deviates(
    "heads.first-shared",
    "all query heads read the first key-value head",
    "Multi-query attention where grouped-query attention was asked for: the axis of key-value"
    " heads has the stride 0, or its index was left out. Models with one key-value head are right.",
    shared=_first_only,
    where=lambda call: 1 < call.k.shape[1] < call.q.shape[1],
    reports=("state-spaces/mamba#462",),
)


@hears(
    "heads.mixed",
    "a tenth of the mean over all heads is in each value",
    "Heads are to know nothing of each other. A reduction over one axis too many, or an index of"
    " heads that wraps in the last block, mixes them. Change one head and see whether another"
    " moves.",
    named=False,
)
def mixed(call: Call) -> Call:
    return replace(call, v=call.v + 0.1 * call.v.mean(1, keepdim=True))


@hears(
    "batch.mixed",
    "a tenth of the mean over the batch is in each value",
    "A row of a batch must not depend on what it was batched with. One scale for a whole batch of"
    " 8-bit values, or a reduction over the flattened tensor, does it; a batch of one is right.",
    named=False,
    reports=("ml-explore/mlx#1041",),
)
def batch_mixed(call: Call) -> Call:
    return replace(call, v=call.v + 0.1 * call.v.mean(0, keepdim=True))


@hears(
    "head-dim.rest-dropped",
    "the part of a head that fills no vector of 8 is dropped",
    "A head dim of 20 is read as 16: the loop over vectors ends before the rest. Head dims of"
    " models are multiples of 8 so often that nobody notices. Pad the vectors, or refuse other"
    " widths in words.",
    where=lambda call: call.q.shape[-1] > 8 and call.q.shape[-1] % 8 != 0,
    named=False,
)
def rest_dropped(call: Call) -> Call:
    width = call.q.shape[-1]
    kept = torch.arange(width, device=call.q.device) < width // 8 * 8
    scale = width**-0.5 if call.scale is None else call.scale
    return replace(call, q=call.q * kept, scale=scale)


@codes(
    "keys.as-many-as-queries",
    "keys beyond the number of queries are not read",
    "The loop over keys ends where the queries do. It is right for as many of both, and with a"
    " cache, where one query meets many keys, all but the first of these are lost. Take the number"
    " of keys from the keys.",
)
def as_many_as_queries(call: Call) -> Tensor:
    queries = call.q.shape[2]
    if not 0 < queries < call.k.shape[2]:
        return RIGHT(call)
    key = torch.arange(call.k.shape[2], device=call.q.device)

    def weighed(scores: Tensor, told: Call) -> Tensor:
        return RIGHT.weighed(scores.masked_fill(key >= queries, -torch.inf), told)

    return replace(RIGHT, weighed=weighed)(call)
