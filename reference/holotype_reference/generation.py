"""Greedy generation: the likeliest token each time, decoded with a cache."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from holotype_reference.cache import Cache
from holotype_reference.masks import Prefix
from holotype_reference.model import Model
from holotype_reference.positions.two_dimensional import spans
from holotype_spec import schema


@torch.no_grad()
def greedy(
    model: Model,
    token_ids: Tensor | None = None,
    *,
    steps: int,
    attention_mask: Tensor | None = None,
    end_id: int | None = None,
    source_ids: Tensor | None = None,
    source_mask: Tensor | None = None,
    start_id: int | None = None,
    prefix: Prefix | None = None,
) -> Tensor:
    """Extend each row by the token with the largest logit (the first of equals), up to `steps` times.

    Args:
        model: a decoder or an encoder-decoder, in eval mode.
        token_ids: (batch, length) the prompts, padded on the left if their lengths differ; an encoder-decoder may be
            given `start_id` in its place.
        steps: the most tokens to add, at least 0.
        attention_mask: (batch, length), 1 for a real token and 0 for padding.
        end_id: a row that has produced it goes on with nothing else; when all rows have, generation stops.
        source_ids, source_mask: (batch, source length) what an encoder-decoder reads.
        start_id: the token with which a decoder without a prompt begins.
        prefix: so many places of each prompt, padding included, are seen by all of it, of a model with a visible
            prefix: all but the start token behind them.

    Returns:
        (batch, length + at most `steps`): the prompts with what was generated after them.

    Raises:
        ValueError: the model is in training mode, the prompt is missing or padded on the right, or as `Model.forward`.
    """
    _check(model, steps)
    tokens = _prompt(token_ids, source_ids, start_id)
    mask = _mask(tokens, attention_mask)
    cache = model.new_cache()
    ended = torch.zeros_like(tokens[:, 0], dtype=torch.bool)
    for _ in range(steps):
        source = {"source_ids": source_ids, "source_mask": source_mask}
        following = _likeliest(model, tokens, mask, cache, prefix=prefix, **source)
        if end_id is not None:
            following = following.masked_fill(ended, end_id)
            ended = ended | (following == end_id)
        tokens = torch.cat([tokens, rearrange(following, "batch -> batch 1")], dim=1)
        if mask is not None:
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        if bool(ended.all()):
            break
    return tokens


def _likeliest(
    model: Model, tokens: Tensor, mask: Tensor | None, cache: Cache, **further: Any
) -> Tensor:
    """(batch): the token with the largest logit behind all of `tokens`, of which the cache holds the first ones."""
    fresh = tokens[:, cache.length :]
    positions = _positions(model.spec, mask, fresh.shape[1], further["prefix"])
    output = model(fresh, attention_mask=mask, position_ids=positions, cache=cache, **further)
    likeliest: Tensor = output.logits[:, -1].argmax(dim=-1)
    return likeliest


def _check(model: Model, steps: int) -> None:
    if model.training:
        raise ValueError(
            "the model is in training mode and would drop at random: call model.eval()"
        )
    if steps < 0:
        raise ValueError(f"steps must be at least 0, not {steps}")


def _prompt(token_ids: Tensor | None, source_ids: Tensor | None, start_id: int | None) -> Tensor:
    """(batch, length) what the decoder reads first."""
    if token_ids is not None and start_id is None:
        return token_ids
    if token_ids is None and start_id is not None and source_ids is not None:
        return torch.full_like(source_ids[:, :1], start_id)
    raise ValueError("give either token_ids, or source_ids with start_id")


def _mask(tokens: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    """(batch, length) 1 for a real token; the last one of each row must be real, for its logits decide."""
    if attention_mask is None:
        return None
    mask = (attention_mask != 0).to(tokens.dtype)
    if mask.shape != tokens.shape or not bool(mask[:, -1].all()):
        raise ValueError(
            f"attention_mask must have the prompt's shape {tuple(tokens.shape)} and end in 1 in every row: "
            "pad prompts on the left"
        )
    return mask


def _positions(
    spec: schema.Spec, mask: Tensor | None, length: int, prefix: Prefix | None
) -> Tensor | None:
    """(batch, length) positions of the last `length` tokens, counted from each row's first real one; where a token has
    two, (batch, 2, length).

    None where the model counts right by itself: without padding, or when it knows distances only.
    """
    if mask is None:
        return None
    if spec.distances_only:
        return None
    if spec.two_positions:
        return _two_positions(mask, prefix)[..., -length:]
    return (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -length:]


def _two_positions(mask: Tensor, prefix: Prefix | None) -> Tensor:
    """(batch, 2, length): the two places of each token in its row without the padding in front."""
    rows = []
    for row, real in enumerate(mask):
        padding = int((real == 0).sum())
        seen = prefix[row] if isinstance(prefix, tuple) else prefix or 0
        places = spans(0, len(real) - padding, max(seen - padding, 0), mask.device)[0]
        rows.append(F.pad(places, (padding, 0)))
    return torch.stack(rows)
