"""What goes into the first layer: rows of tokens, positions and token types."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from holotype_reference.oracle import normalization
from holotype_reference.oracle.basics import Array, Ids, Scope, Stream, like, linear
from holotype_reference.oracle.positions import sinusoids
from holotype_spec.schema import LearnedPositions, Sinusoidal, Spec


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
) -> Stream:
    """The sum of token, position and token-type rows (Devlin et al. 2018, figure 2).

    Factorised embeddings go through a matrix, after the tokens' table alone or after the norm (Lan et al. 2019,
    section 3.1); a scale multiplies the tokens' rows (Vaswani et al. 2017, section 3.4).
    """
    tokens = np.asarray(token_ids, dtype=np.int64)
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"token ids have the shape {tokens.shape}; expected (batch, length)")
    counted = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    positions = counted if position_ids is None else like(tokens, position_ids, "position_ids")
    real = np.ones(tokens.shape) if mask is None else like(tokens, mask, "mask")

    embeddings = spec.architecture.embeddings
    projected = getattr(embeddings.width, "tables", "none")
    x = _rows(p["token.weight"], tokens, "token id")
    if embeddings.scale == "sqrt-hidden-size":
        x = x * math.sqrt(spec.hidden_size)
    if projected == "token":
        x = linear(p / "projection", x)
    if isinstance(spec.architecture.positions, LearnedPositions):
        rows = positions + spec.architecture.positions.offset
        x = x + _rows(places["position.weight"], rows, "row of a position")
    elif isinstance(spec.architecture.positions, Sinusoidal):
        x = x + sinusoids(spec.architecture.positions, positions, x.shape[-1])
    if spec.architecture.token_types:
        types = (
            np.zeros_like(tokens)
            if token_types is None
            else like(tokens, token_types, "token_types")
        )
        x = x + _rows(places["token_type.weight"], types, "token type")
    elif token_types is not None:
        raise ValueError(f"token_types are given, but {spec.name} has none")
    if spec.architecture.normalization.embedding:
        x = normalization.norm(spec, places / "norm", x)
    if projected == "all":
        x = linear(p / "projection", x)
    return Stream(x=x, positions=positions, real=real.astype(bool))


def _rows(table: Array, ids: Ids, what: str) -> Array:
    if ids.min() < 0 or ids.max() >= len(table):
        raise ValueError(f"a {what} is {ids.min()} or {ids.max()}; expected 0 … {len(table) - 1}")
    return table[ids]
