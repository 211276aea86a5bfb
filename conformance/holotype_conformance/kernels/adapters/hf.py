"""The attention interface of Hugging Face `transformers`, as released and unmodified."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is ever fetched

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward

from holotype_conformance.kernels.candidate import KernelCandidate
from holotype_conformance.kernels.masks import visible, without_unseen
from holotype_conformance.torch_tools.float64 import Float64Throughout

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sdpa": sdpa_attention_forward,
    "eager": eager_attention_forward,
}


class TransformersKernel(KernelCandidate):
    """A function of `transformers`' attention interface, passed masks as their models pass them.

    `sdpa` gets boolean masks and, for a square of causal attention, none; `eager` additive ones, with the lowest
    finite number where a key is hidden. In float64 their casts to float32 are taken for casts to float64, as for their
    models.
    """

    def __init__(self, name: str) -> None:
        self.title = f"hf:{name}"
        self.name = name
        self.forward = FUNCTIONS[name]

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
        k, v, mask = without_unseen(q, k, v, mask=mask, window=window)
        told = visible(q, k, mask=mask, causal=causal, window=window)
        square = causal and window is None and mask is None and q.shape[2] == k.shape[2]
        if self.name == "eager":
            told = _lowest(told, q)
        elif square:
            told = None
        group = q.shape[1] // max(k.shape[1], 1)
        module = SimpleNamespace(num_key_value_groups=group, is_causal=square, training=False)
        scaling = q.shape[-1] ** -0.5 if scale is None else scale
        with Float64Throughout() if q.dtype == torch.float64 else nullcontext():
            mixed, _ = self.forward(
                module, q, k, v, told, dropout=0.0, scaling=scaling, is_causal=square
            )
        return mixed.transpose(1, 2)  # type: ignore[no-any-return]


def _lowest(mask: Tensor | None, q: Tensor) -> Tensor | None:
    """An additive mask in which the lowest finite number hides."""
    if mask is None:
        return None
    lowest = torch.finfo(q.dtype).min
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, lowest)
    return mask.clamp(min=lowest)
