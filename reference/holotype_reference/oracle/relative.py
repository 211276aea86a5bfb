"""Scores in which what a token says meets how far it is."""

from __future__ import annotations

import math

import numpy as np

from holotype_reference.oracle.basics import Array, Ids, Scope, linear
from holotype_reference.oracle.positions import sinusoids
from holotype_spec.schema import Disentangled, Sinusoidal, Spec, TransformerXLPositions


def score_scale(spec: Spec) -> float:
    """1 / √d_k (Vaswani et al. 2017, section 3.2.1), or 1 / √(3d) for three products (He et al. 2020, section 3.1)."""
    match spec.architecture.attention.scale:
        case "inverse-sqrt-three-head-dims":
            return 1 / math.sqrt(3 * spec.head_dim)
        case "none":
            return 1.0
        case _:
            return 1 / math.sqrt(spec.head_dim)


def disentangled(spec: Spec, table: Array, p: Scope, x: Array, memory: Array) -> Array:
    """Content-to-position and position-to-content (He et al. 2020, section 3.1, equations 3 and 4), scaled.

    With δ(i, j) = 0 for i - j <= -k, 2k - 1 for i - j >= k and i - j + k between these, the score of query i and key j
    grows by Q_i P_δ(i,j) Kʳ and by K_j P_δ(i,j) Qʳ: the latter as the release has it, where the paper has δ(j, i).

    Args:
        table: P, (2k, hidden_size).
        x: (batch, length, hidden_size), what queries are made of.
        memory: the same, of which keys are made.

    Returns: (batch, length, length, heads).
    """
    described = spec.architecture.positions
    assert isinstance(described, Disentangled)
    rows = _delta(x.shape[1], described.max_distance)
    of_content = {"query": linear(p / "query", x), "key": linear(p / "key", memory)}
    found = np.zeros((*x.shape[:2], x.shape[1], spec.heads))
    for head in range(spec.heads):
        part = slice(head * spec.head_dim, (head + 1) * spec.head_dim)
        if "content-to-position" in described.terms:
            projected = linear(p / "position_key", table)[:, part][rows]
            q = of_content["query"][:, :, None, part]
            found[..., head] += (q * projected[None]).sum(axis=-1)
        if "position-to-content" in described.terms:
            projected = linear(p / "position_query", table)[:, part][rows]
            k = of_content["key"][:, None, :, part]
            found[..., head] += (k * projected[None]).sum(axis=-1)
    return found * score_scale(spec)


def transformer_xl(spec: Spec, p: Scope, x: Array, memory: Array, types: Ids | None) -> Array:
    """All but the product of contents in A_ij (Dai et al. 2019, section 3.3), scaled: the terms with u, W R and v.

    A_ij = q_i k_j + q_i W R_(i-j) + u k_j + v W R_(i-j); and (q_i + b) s_ij of segments (Yang et al. 2019, 2.5).

    Args:
        x: (batch, length, hidden_size), what queries are made of.
        memory: the same, of which keys are made.
        types: (batch, length), the segments.

    Returns: (batch, length, length, heads).
    """
    described, length = spec.architecture.positions, x.shape[1]
    assert isinstance(described, TransformerXLPositions)
    layout = Sinusoidal(theta=described.theta, layout="halves", offset=0)
    place = np.arange(length)
    distances = place[:, None] - place[None, :]
    rows = linear(p / "position_key", sinusoids(layout, distances, spec.hidden_size))
    queries, keys = linear(p / "query", x), linear(p / "key", memory)
    found = np.zeros((*x.shape[:2], length, spec.heads))
    for head in range(spec.heads):
        part = slice(head * spec.head_dim, (head + 1) * spec.head_dim)
        q, k, r = queries[:, :, None, part], keys[:, None, :, part], rows[None, :, :, part]
        found[..., head] = (p["content_bias"][part] * k).sum(axis=-1)
        found[..., head] += ((q + p["position_bias"][part]) * r).sum(axis=-1)
        if types is not None:
            other = (types[:, :, None] != types[:, None, :]).astype(np.int64)
            s = p["segments"][:, part][other]
            found[..., head] += ((q + p["segment_bias"][part]) * s).sum(axis=-1)
    return found * score_scale(spec)


def _delta(length: int, k: int) -> Ids:
    """(length, length): the row of query i and key j."""
    rows = np.zeros((length, length), dtype=np.int64)
    for i in range(length):
        for j in range(length):
            rows[i, j] = 0 if i - j <= -k else 2 * k - 1 if i - j >= k else i - j + k
    return rows
