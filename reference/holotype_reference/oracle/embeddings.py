"""The input of the first layer: rows of tokens, positions and token types."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from holotype_reference.oracle import normalization
from holotype_reference.oracle.basics import (
    Array,
    Ids,
    Scope,
    Stream,
    like,
    linear,
    prefixes,
)
from holotype_reference.oracle.positions import sinusoids
from holotype_spec.schema import (
    LearnedPositions,
    Sinusoidal,
    Spec,
    TwoDimensionalPositions,
    TwoDimensionalRotary,
)


def placed_apart(spec: Spec) -> bool:
    """Encoder and decoder have positions, or a norm of the embeddings, each of its own (Lewis et al. 2019)."""
    learned = isinstance(spec.architecture.positions, LearnedPositions)
    return learned or spec.architecture.normalization.embedding


def embed(
    spec: Spec,
    p: Scope,
    places: Scope,
    token_ids: ArrayLike,
    mask: ArrayLike | None,
    position_ids: ArrayLike | None,
    token_types: ArrayLike | None,
    prefix: ArrayLike | None = None,
) -> Stream:
    """The sum of token, position and token-type rows (Devlin et al. 2018, figure 2).

    Factorised embeddings go through a matrix, after the tokens' table alone or after the norm (Lan et al. 2019,
    section 3.1); a scale multiplies the tokens' rows (Vaswani et al. 2017, section 3.4).
    """
    tokens = np.asarray(token_ids, dtype=np.int64)
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"token ids have the shape {tokens.shape}; expected (batch, length)")
    seen_by_all = prefixes(tokens, prefix)
    positions = _positions(spec, tokens, position_ids, seen_by_all)
    real = np.ones(tokens.shape) if mask is None else like(tokens, mask, "mask")

    embeddings = spec.architecture.embeddings
    projected = getattr(embeddings.width, "tables", "none")
    x = _rows(p["token.weight"], tokens, "token id")
    if embeddings.scale == "sqrt-hidden-size":
        x = x * math.sqrt(spec.hidden_size)
    if projected == "token":
        x = linear(p / "projection", x)
    x = _placed(spec, places, x, positions)
    if spec.architecture.token_types:
        types = (
            np.zeros_like(tokens)
            if token_types is None
            else like(tokens, token_types, "token_types")
        )
        x = x + _rows(places["token_type.weight"], types, "token type")
    elif token_types is not None and not spec.segments:
        raise ValueError(f"token_types are given, but {spec.name} has none")
    if spec.architecture.normalization.embedding:
        x = normalization.norm(spec, places / "norm", x)
    if projected == "all":
        x = linear(p / "projection", x)
    compared = None if token_types is None else like(tokens, token_types, "token_types")
    return Stream(
        x=x, positions=positions, real=real.astype(bool), prefix=seen_by_all, types=compared
    )


def _placed(spec: Spec, places: Scope, x: Array, positions: Ids) -> Array:
    """(batch, length, width) with the rows or sinusoids of the positions, where the spec adds such."""
    match spec.architecture.positions:
        case LearnedPositions(offset=offset):
            return x + _rows(places["position.weight"], positions + offset, "row of a position")
        case TwoDimensionalPositions():
            x = x + _rows(places["position.weight"], positions[:, 0], "row of a position")
            return x + _rows(places["block_position.weight"], positions[:, 1], "row of a position")
        case Sinusoidal() as described:
            return x + sinusoids(described, positions, x.shape[-1])
        case _:
            return x


def _positions(spec: Spec, tokens: Ids, given: ArrayLike | None, prefix: Ids | None) -> Ids:
    """(batch, length): those given, or 0, 1, 2, …; or (batch, 2, length), the two places of a token.

    Of a text that ends in the mask of its only span, the span behind it, the first place of the span's tokens is the
    mask's; their second place counts them from 1 and is 0 in the text (Du et al. 2021, section 2.2, figure 2).
    """
    if not isinstance(spec.architecture.positions, TwoDimensionalPositions | TwoDimensionalRotary):
        counted = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        return counted if given is None else like(tokens, given, "position_ids")
    if given is not None:
        told = np.asarray(given, dtype=np.int64)
        return np.stack([like(tokens, told[:, axis], "position_ids") for axis in (0, 1)], axis=1)
    places = np.zeros((len(tokens), 2, tokens.shape[1]), dtype=np.int64)
    for row, text in enumerate([0] * len(tokens) if prefix is None else prefix.tolist()):
        for place in range(tokens.shape[1]):
            behind = place - text + 1 if text else 0
            places[row, :, place] = (text - 1, behind) if behind > 0 else (place, 0)
    return places


def _rows(table: Array, ids: Ids, what: str) -> Array:
    if ids.min() < 0 or ids.max() >= len(table):
        raise ValueError(f"a {what} is {ids.min()} or {ids.max()}; expected 0 … {len(table) - 1}")
    return table[ids]
