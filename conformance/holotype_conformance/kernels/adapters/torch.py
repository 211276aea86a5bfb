"""torch's own attention as kernels: `scaled_dot_product_attention`, one of its back ends, and `flex_attention`."""

from __future__ import annotations

import math
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from holotype_conformance.kernels.candidate import (
    KernelCandidate,
)
from holotype_conformance.kernels.masks import visible, without_unseen
from holotype_conformance.torch_tools.backends import BACK_ENDS


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """`scaled_dot_product_attention`. Its own `is_causal` starts the diagonal at the first key: it is used only for
    as many queries as keys."""
    k, v, mask = without_unseen(q, k, v, mask=mask, window=window)
    square = causal and mask is None and window is None and q.shape[2] == k.shape[2]
    told = None if square else visible(q, k, mask=mask, causal=causal, window=window)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=told, is_causal=square, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


class OneBackEnd(KernelCandidate):
    """`scaled_dot_product_attention` on one of its back ends only."""

    def __init__(self, name: str) -> None:
        self.title = f"sdpa:{name}"
        self.back_end = BACK_ENDS[name]

    def attention(  # type: ignore[override]
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        window: int | None = None,
        scale: float | None = None,
    ) -> Tensor:
        with sdpa_kernel(self.back_end):
            return sdpa(q, k, v, mask=mask, causal=causal, window=window, scale=scale)


def flex(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """`flex_attention` without a compiler. A boolean mask is a mask function, an additive one a score function."""
    from torch.nn.attention import flex_attention as module

    k, v, mask = without_unseen(q, k, v, mask=mask, window=window)
    told = visible(q, k, mask=mask, causal=causal, window=window)
    if told is not None:
        told = told.expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])

    def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        assert told is not None
        entry = told[b, h, i, j]
        return torch.where(entry, s, -math.inf) if told.dtype == torch.bool else s + entry

    # Without its compiler it is traced anew for every shape all the same, which takes most of the time of a run.
    with patch.object(module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, create=True):
        return module.flex_attention(
            q,
            k,
            v,
            score_mod=None if told is None else score,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
