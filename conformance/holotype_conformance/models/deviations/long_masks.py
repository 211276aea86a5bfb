"""Masks that are right for short inputs: where they end, where blocks of a kernel meet, and chunks that forget."""

from __future__ import annotations

import torch
from torch import Tensor

from holotype_conformance.models.deviations.deviation import patches
from holotype_conformance.models.deviations.features import decodes, has_window
from holotype_conformance.models.deviations.patching import ahead, allowed, real_keys, redraw_masks
from holotype_reference.masks import Mask
from holotype_reference.model import Model

BUFFER = 64  # rows of a mask that was made beforehand
BLOCK = 128  # tokens of a block of a kernel
FAR = 256  # tokens from which on another path is taken


def _places(mask: Mask) -> tuple[Tensor, Tensor]:
    """Of each query (1, 1, queries, keys) and each key (keys,): its place in the sequence."""
    keys = torch.arange(mask.keys, device=mask.device)
    return keys - ahead(mask), keys


@patches(
    "mask.ends",
    f"the causal mask was made for {BUFFER} tokens, and nothing is masked for those beyond them",
    "Short inputs are right. In longer ones every position beyond the mask sees the whole input, its future included:"
    " training on them gets too easy. Look at a buffer of a fixed size, and at what becomes of rows that it has not.",
    applies=decodes,
)
def mask_ends(model: Model) -> None:
    def beyond(mask: Mask) -> Tensor:
        query, _ = _places(mask)
        return (allowed(mask) | (query >= BUFFER)) & real_keys(mask)

    redraw_masks(model.writer, beyond)


@patches(
    "mask.block-edge",
    f"the last position of each block of {BLOCK} tokens also sees the first token of the next",
    "Nothing shows in inputs of one block. In longer ones one position of each reads the token that it is to predict."
    " Look at which blocks a kernel leaves out, < against <=, and at whether the block on the diagonal is masked to its"
    " corner.",
    applies=decodes,
)
def block_edge(model: Model) -> None:
    def at_edges(mask: Mask) -> Tensor:
        query, _ = _places(mask)
        next_block = (query % BLOCK == BLOCK - 1) & (ahead(mask) == 1)
        return (allowed(mask) | next_block) & real_keys(mask)

    redraw_masks(model.writer, at_edges)


@patches(
    "mask.blocks-forget",
    f"each block of {BLOCK} tokens forgets those before it",
    "Nothing shows in inputs of one block. In longer ones each block is read as if the text began there. Look at the"
    " running maximum and sum that a kernel carries from block to block, and at chunks that are given no past.",
    applies=decodes,
)
def blocks_forget(model: Model) -> None:
    def within(mask: Mask) -> Tensor:
        query, key = _places(mask)
        return mask.visible & (query // BLOCK == key // BLOCK)

    redraw_masks(model.writer, within)


@patches(
    "window.forgotten-far-on",
    f"positions from {FAR} on see all that came before them, and not their window",
    "Inputs that are a few windows long are right. Look at a path that is taken for long inputs and is not told of the"
    " window, and at a cache of so many places that nobody wraps.",
    applies=has_window,
)
def window_forgotten_far_on(model: Model) -> None:
    def far_on(mask: Mask) -> Tensor:
        query, _ = _places(mask)
        return (allowed(mask) | (query >= FAR) & (ahead(mask) <= 0)) & real_keys(mask)

    redraw_masks(model.writer, far_on)
