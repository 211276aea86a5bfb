"""The oracle: every model a second time, in NumPy float64, straight from the papers' formulas.

It is slow, plain and shares no code with the torch models, so that the two can be wrong together
only where a paper was misread twice. Symbols, as in Vaswani et al. 2017 unless said otherwise:

==============  ==================  ===========================================================
here            paper               is
==============  ==================  ===========================================================
hidden_size     d_model             width of the residual stream ``x`` (batch, length, hidden_size)
head_dim        d_k = d_v           width of one attention head
ffn_size        d_ff                inner width of the feed-forward block
heads           h                   query heads; `kv_heads` of them have their own keys and values
eps             ε                   what a norm adds to the variance before the square root
==============  ==================  ===========================================================

Matrices are (outputs, inputs): a linear map is x Wᵀ + b. There is no dropout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holotype_spec.parameters import Stack, parameter_table
from holotype_spec.schema import (
    Activation,
    Alibi,
    GatedFeedForward,
    LanguageModelHead,
    LayerNorm,
    LearnedPositions,
    LinearScaling,
    Llama3Scaling,
    MaskedLanguageModelHead,
    RelativeBuckets,
    Rotary,
    Sinusoidal,
    SlidingWindow,
    Spec,
)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class OracleOutput:
    """What the model says.

    Attributes:
        logits: (batch, length, vocab_size), not normalised.
        next_sentence: (batch, 2) for a model with that head, else None.
    """

    logits: Array
    next_sentence: Array | None


@dataclass(frozen=True)
class _Scope:
    """The parameters whose names start with `prefix`."""

    weights: Mapping[str, Array]
    prefix: str = ""

    def __truediv__(self, name: str) -> _Scope:
        return _Scope(self.weights, f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.weights

    def __getitem__(self, name: str) -> Array:
        return self.weights[self.prefix + name]


@dataclass(frozen=True, kw_only=True)
class _Stream:
    """One stack's input: its vectors, where they stand, and which are real.

    Attributes:
        x: (batch, length, hidden_size).
        positions: (batch, length).
        real: (batch, length), false at padding.
    """

    x: Array
    positions: Ids
    real: Mask


def logits(
    spec: Spec,
    weights: Mapping[str, Any],
    token_ids: ArrayLike,
    *,
    attention_mask: ArrayLike | None = None,
    position_ids: ArrayLike | None = None,
    token_types: ArrayLike | None = None,
    source_ids: ArrayLike | None = None,
    source_mask: ArrayLike | None = None,
) -> OracleOutput:
    """The logits of the model of `spec`, in float64.

    Args:
        spec: any spec.
        weights: every parameter of `parameter_table(spec)` by name: arrays, or CPU tensors.
        token_ids: (batch, length), what the stack that writes the logits reads.
        attention_mask: (batch, length), 0 at padding: such keys are seen by nobody. What comes out
            at padding is finite and means nothing.
        position_ids: (batch, length); None counts 0, 1, … whatever the mask.
        token_types: (batch, length); None is all 0.
        source_ids: (batch, source length), what the encoder of an encoder-decoder reads.
        source_mask: (batch, source length), 0 at padding.

    Raises:
        ValueError: for weights that are not those of `spec`, or inputs that do not fit the model.
    """
    p = _Scope(_checked_weights(spec, weights))
    if (source_ids is not None) != (spec.architecture.structure == "encoder-decoder"):
        raise ValueError(
            f"source_ids: {spec.architecture.structure} models take them "
            + ("not" if source_ids is not None else "always")
        )
    tables = p / "embeddings"
    target = _embed(spec, tables, tables, token_ids, attention_mask, position_ids, token_types)
    source = None
    if source_ids is not None:
        own = _placed_apart(spec)
        places = p / "source_embeddings" if own else tables
        stream = _embed(spec, tables, places, source_ids, source_mask, None, None)
        source = _Stream(
            x=_stack(spec, p, "encoder", stream), positions=stream.positions, real=stream.real
        )
    elif source_mask is not None:
        raise ValueError("source_mask is given without source_ids")
    stack: Stack = "encoder" if spec.architecture.structure == "encoder" else "decoder"
    x = _stack(spec, p, stack, target, source)
    return OracleOutput(logits=_vocabulary(spec, p, x), next_sentence=_next_sentence(spec, p, x))


# Embeddings ---------------------------------------------------------------------------------------


def _placed_apart(spec: Spec) -> bool:
    """Encoder and decoder have positions, or a norm of the embeddings, each of its own (Lewis et al. 2019)."""
    learned = isinstance(spec.architecture.positions, LearnedPositions)
    return learned or spec.architecture.normalization.embedding


def _embed(
    spec: Spec,
    p: _Scope,
    places: _Scope,
    token_ids: ArrayLike,
    mask: ArrayLike | None,
    position_ids: ArrayLike | None,
    token_types: ArrayLike | None,
) -> _Stream:
    """The sum of token, position and token-type rows (Devlin et al. 2018, figure 2).

    Factorised embeddings go through a matrix, after the tokens' table alone or after the norm (Lan et al. 2019,
    section 3.1); a scale multiplies the tokens' rows (Vaswani et al. 2017, section 3.4).
    """
    tokens = np.asarray(token_ids, dtype=np.int64)
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"token ids have the shape {tokens.shape}; expected (batch, length)")
    counted = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    positions = counted if position_ids is None else _like(tokens, position_ids, "position_ids")
    real = np.ones(tokens.shape) if mask is None else _like(tokens, mask, "mask")

    embeddings = spec.architecture.embeddings
    projected = getattr(embeddings.width, "tables", "none")
    x = _rows(p["token.weight"], tokens, "token id")
    if embeddings.scale == "sqrt-hidden-size":
        x = x * math.sqrt(spec.hidden_size)
    if projected == "token":
        x = _linear(p / "projection", x)
    if isinstance(spec.architecture.positions, LearnedPositions):
        rows = positions + spec.architecture.positions.offset
        x = x + _rows(places["position.weight"], rows, "row of a position")
    elif isinstance(spec.architecture.positions, Sinusoidal):
        x = x + _sinusoids(spec.architecture.positions, positions, x.shape[-1])
    if spec.architecture.token_types:
        types = (
            np.zeros_like(tokens)
            if token_types is None
            else _like(tokens, token_types, "token_types")
        )
        x = x + _rows(places["token_type.weight"], types, "token type")
    elif token_types is not None:
        raise ValueError(f"token_types are given, but {spec.name} has none")
    if spec.architecture.normalization.embedding:
        x = _norm(spec, places / "norm", x)
    if projected == "all":
        x = _linear(p / "projection", x)
    return _Stream(x=x, positions=positions, real=real.astype(bool))


def _sinusoids(described: Sinusoidal, positions: Ids, d: int) -> Array:
    """PE(p, 2i) = sin(p theta^(-2i/d)), PE(p, 2i + 1) = cos of the same (Vaswani et al. 2017, section 3.5)."""
    table = np.zeros((*positions.shape, d))
    for i in range(d // 2):
        angle = (positions + described.offset) * described.theta ** (-2 * i / d)
        sine, cosine = (2 * i, 2 * i + 1) if described.layout == "interleaved" else (i, i + d // 2)
        table[..., sine], table[..., cosine] = np.sin(angle), np.cos(angle)
    return table


def _rows(table: Array, ids: Ids, what: str) -> Array:
    if ids.min() < 0 or ids.max() >= len(table):
        raise ValueError(f"a {what} is {ids.min()} or {ids.max()}; expected 0 … {len(table) - 1}")
    return table[ids]


# Layers -------------------------------------------------------------------------------------------


def _stack(
    spec: Spec, p: _Scope, stack: Stack, stream: _Stream, source: _Stream | None = None
) -> Array:
    """All layers: each block reads the stream x and adds to it.

    Post-norm, x ← norm(x + f(x)), is Vaswani et al. 2017, section 3.1; pre-norm,
    x ← x + f(norm(x)), is Radford et al. 2019, section 2.3 (Xiong et al. 2020, fig. 1, draw both);
    parallel, x ← x + f(norm(x)) + g(norm(x)), is Chowdhery et al. 2022, section 2.
    """
    if spec.architecture.residual == "parallel":
        return _parallel_stack(spec, p, stack, stream)
    x, post = stream.x, spec.architecture.residual == "post-norm"
    for name in _block_names(spec, stack, source):
        block, norm = p / f"{stack}.layers.{name}", p / f"{stack}.layers.{name}_norm"
        y = x if post else _norm(spec, norm, x)
        if name.endswith("self_attention"):
            y = _self_attention(spec, p, stack, block, y, stream)
        elif name.endswith("cross_attention"):
            assert source is not None
            y = _cross_attention(spec, block, y, source)
        else:
            y = _feed_forward(spec, block, y)
        x = _norm(spec, norm, x + y) if post else x + y
    return _norm(spec, p / f"{stack}.final_norm", x) if spec.architecture.normalization.final else x


def _parallel_stack(spec: Spec, p: _Scope, stack: Stack, stream: _Stream) -> Array:
    x = stream.x
    for index in range(spec.layers):
        layer = p / f"{stack}.layers.{index}"
        read = _norm(spec, layer / "norm", x)
        attended = _self_attention(spec, p, stack, layer / "self_attention", read, stream)
        x = x + attended + _feed_forward(spec, layer / "feed_forward", read)
    return _norm(spec, p / f"{stack}.final_norm", x) if spec.architecture.normalization.final else x


def _block_names(spec: Spec, stack: Stack, source: _Stream | None) -> list[str]:
    """In the order in which they run; where all layers share, the first one again and again (Lan et al. 2019, 3.1)."""
    blocks = ["self_attention", *(["cross_attention"] if source else []), "feed_forward"]
    uneven = stack == "encoder" and isinstance(spec.architecture.encoder_layers, int)
    depth = spec.architecture.encoder_layers if uneven else spec.layers
    assert isinstance(depth, int)
    layers = [0] * depth if spec.architecture.layer_sharing == "all" else range(depth)
    return [f"{layer}.{block}" for layer in layers for block in blocks]


def _norm(spec: Spec, p: _Scope, x: Array) -> Array:
    """LayerNorm (Ba et al. 2016, equation 4) or RMSNorm (Zhang & Sennrich 2019, equation 4).

    Neither formula has eps; like every released code, we add it to the mean square under the root.
    """
    normalization = spec.architecture.normalization
    centred = isinstance(normalization, LayerNorm)
    if centred:
        x = x - x.mean(axis=-1, keepdims=True)
    variance = (x * x).mean(axis=-1, keepdims=True)
    y: Array = p["weight"] * x / np.sqrt(variance + normalization.eps)
    return y + p["bias"] if centred else y


def _linear(p: _Scope, x: Array) -> Array:
    y = x @ p["weight"].T
    return y + p["bias"] if "bias" in p else y


# Attention ----------------------------------------------------------------------------------------


def _self_attention(
    spec: Spec, p: _Scope, stack: Stack, block: _Scope, x: Array, stream: _Stream
) -> Array:
    length, positions = x.shape[1], spec.architecture.positions
    allowed = _allowed(spec, stack, length) & stream.real[:, None, :]
    bias = None
    if isinstance(positions, RelativeBuckets):
        bidirectional = stack == "encoder"
        distance = stream.positions[:, None, :] - stream.positions[:, :, None]
        bias = p[f"{stack}.relative_bias.weight"][_buckets(positions, distance, bidirectional)]
    elif isinstance(positions, Alibi):
        behind = stream.positions[:, :, None] - stream.positions[:, None, :]
        bias = -behind[..., None] * np.array(alibi_slopes(spec.heads))
    rotation = stream.positions if isinstance(positions, Rotary) else None
    return _attention(spec, block, x, x, allowed, bias, rotation)


def _cross_attention(spec: Spec, block: _Scope, x: Array, source: _Stream) -> Array:
    """Queries from the decoder, the rest from the encoder (Vaswani et al. 2017, section 3.2.3)."""
    allowed = np.broadcast_to(source.real[:, None, :], (len(x), x.shape[1], source.x.shape[1]))
    return _attention(spec, block, x, source.x, allowed, None, None)


def _attention(
    spec: Spec,
    p: _Scope,
    x: Array,
    memory: Array,
    allowed: Mask,
    bias: Array | None,
    rotation: Ids | None,
) -> Array:
    """softmax(Q Kᵀ / √d_k) V a head, all heads through W^O (Vaswani et al. 2017, section 3.2).

    Where key-value heads are fewer, neighbouring query heads share one (Ainslie et al.
    2023, section 2.2).

    Args:
        memory: (batch, source, hidden_size), what keys and values are made of.
        allowed: (batch, length, source), true where a query may see a key.
        bias: (batch, length, source, heads), added to the scores.
        rotation: (batch, length), the positions by which queries and keys are rotated.
    """
    queries, keys, values = (
        _linear(p / part, y) for part, y in (("query", x), ("key", memory), ("value", memory))
    )
    scale = 1 / math.sqrt(spec.head_dim) if spec.architecture.attention.scale != "none" else 1.0
    heads = []
    for head in range(spec.heads):
        kv_head = head // (spec.heads // spec.kv_heads)
        q, k, v = (
            _head(spec, queries, head),
            _head(spec, keys, kv_head),
            _head(spec, values, kv_head),
        )
        if rotation is not None:
            q, k = _rotate(spec, q, rotation), _rotate(spec, k, rotation)
        scores = q @ k.transpose(0, 2, 1) * scale
        if bias is not None:
            scores = scores + bias[..., head]
        heads.append(_softmax(scores, allowed) @ v)
    return _linear(p / "output", np.concatenate(heads, axis=-1))


def _head(spec: Spec, x: Array, head: int) -> Array:
    return x[..., head * spec.head_dim : (head + 1) * spec.head_dim]


def _softmax(scores: Array, allowed: Mask) -> Array:
    """Over the allowed keys only; a query that may see none gets nothing."""
    peak = np.max(scores, axis=-1, keepdims=True, where=allowed, initial=-np.inf)
    odds = np.exp(np.where(allowed, scores - peak, -np.inf))
    total: Array = odds.sum(axis=-1, keepdims=True)
    return odds / np.where(total > 0, total, 1.0)


def _allowed(spec: Spec, stack: Stack, length: int) -> Mask:
    """Which query i (row) may see which key j (column), padding aside."""
    i, j = np.arange(length)[:, None], np.arange(length)[None, :]
    if stack == "encoder":
        return np.ones((length, length), dtype=bool)
    pattern = spec.architecture.attention.pattern
    causal: Mask = j <= i
    return causal & (i - j < pattern.window) if isinstance(pattern, SlidingWindow) else causal


# Positions ----------------------------------------------------------------------------------------


def _rotate(spec: Spec, x: Array, positions: Ids) -> Array:
    """Turn pair i of each vector by the angle m theta^(-2 i / d) (Su et al. 2021, equation 34).

    x is (batch, length, head_dim), m its positions, d how many of its dimensions turn: the first ones.
    """
    rotary = spec.architecture.positions
    assert isinstance(rotary, Rotary)
    pairs = np.arange(round(spec.head_dim * rotary.fraction) // 2)
    angles = positions[..., None] * _frequencies(rotary, 2 * len(pairs))
    half_split = rotary.pairing == "half-split"
    first = pairs if half_split else 2 * pairs
    second = pairs + len(pairs) if half_split else 2 * pairs + 1
    a, b = x[..., first], x[..., second]
    rotated = x.copy()
    rotated[..., first] = a * np.cos(angles) - b * np.sin(angles)
    rotated[..., second] = a * np.sin(angles) + b * np.cos(angles)
    return rotated


def _frequencies(rotary: Rotary, d: int) -> Array:
    """How far each pair turns from one position to the next, slow pairs slowed down where the spec says so.

    The three cases by wavelength are those of the LLaMA 3.1 release (apply_scaling).
    """
    frequencies = [rotary.theta ** (-2 * i / d) for i in range(d // 2)]
    scaling = rotary.scaling
    if isinstance(scaling, LinearScaling):  # a position counts for as many fewer
        frequencies = [frequency * (1 / scaling.factor) for frequency in frequencies]
    if isinstance(scaling, Llama3Scaling):
        longest = scaling.original_max_positions / scaling.low_freq_factor
        shortest = scaling.original_max_positions / scaling.high_freq_factor
        for i, frequency in enumerate(frequencies):
            wavelength = 2 * math.pi / frequency
            if wavelength > longest:
                frequencies[i] = frequency / scaling.factor
            elif wavelength >= shortest:
                smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
                    scaling.high_freq_factor - scaling.low_freq_factor
                )
                frequencies[i] = (1 - smooth) * frequency / scaling.factor + smooth * frequency
    return np.array(frequencies)


def alibi_slopes(heads: int) -> list[float]:
    """By how much each head's scores fall from one key to the one before it (Press et al. 2021, section 3).

    For a power of two the slopes are a geometric sequence that starts at its own ratio and ends at 2^-8. Other
    numbers the paper leaves to its release (get_slopes): the sequence of the power below, then the first, third,
    fifth … slope of the power above.
    """
    power = 2 ** math.floor(math.log2(heads))
    ratio = 2 ** (-8 / power)
    slopes = [ratio**i for i in range(1, power + 1)]
    above = [math.sqrt(ratio) ** i for i in range(1, 2 * power + 1)]
    return slopes + above[::2][: heads - power]


def _buckets(positions: RelativeBuckets, distance: Ids, bidirectional: bool) -> Ids:
    """The bucket of every distance, key position minus query position."""
    farthest = int(np.abs(distance).max())
    table = [
        bucket(d, positions.buckets, positions.max_distance, bidirectional)
        for d in range(-farthest, farthest + 1)
    ]
    return np.array(table, dtype=np.int64)[distance + farthest]


@lru_cache(maxsize=4096)
def bucket(distance: int, buckets: int, max_distance: int, bidirectional: bool) -> int:
    """The bucket of one distance (Raffel et al. 2019, section 2.1, and the released code).

    The paper says that buckets widen with the logarithm of the distance; only the code says how.
    Half of the buckets hold one distance each, the others distances up to `max_distance` evenly on
    a logarithmic scale; the last one holds all beyond. An encoder keeps half of all buckets for
    keys after the query; a decoder, which never sees those, puts them with distance 0.

    The released code takes the logarithm in float32 and we take it in float64. A test checks that
    both give the same bucket for every distance, with the published (32, 128) as with the (8, 12)
    of probes.

    Args:
        distance: position of the key minus position of the query.
        buckets: how many there are in all.
        max_distance: where the last bucket starts at the latest.
        bidirectional: whether keys after the query have buckets of their own.
    """
    offset, n = 0, max(-distance, 0)
    if bidirectional:
        buckets //= 2
        offset, n = (buckets if distance > 0 else 0), abs(distance)
    exact = buckets // 2
    if n < exact:
        return offset + n
    growth = math.log(n / exact) / math.log(max_distance / exact)
    return offset + min(exact + int(growth * (buckets - exact)), buckets - 1)


# Feed-forward -------------------------------------------------------------------------------------


def _feed_forward(spec: Spec, p: _Scope, x: Array) -> Array:
    """Vaswani et al. 2017, equation 2; with a gate, Shazeer 2020, equation 6."""
    activation = spec.architecture.feed_forward.activation
    if isinstance(spec.architecture.feed_forward, GatedFeedForward):
        inner = _activate(activation, _linear(p / "gate", x)) * _linear(p / "up", x)
    else:
        inner = _activate(activation, _linear(p / "up", x))
    return _linear(p / "down", inner)


def _activate(activation: Activation, x: Array) -> Array:
    match activation:
        case "relu":
            return np.maximum(x, 0.0)
        case "silu":  # x times the logistic function (Hendrycks & Gimpel 2016, section 2)
            return x * np.exp(-np.logaddexp(0.0, -x))
        case "gelu":  # x times the normal distribution's (Hendrycks & Gimpel 2016, section 2)
            return x * 0.5 * (1 + _erf(x / math.sqrt(2)))
        case "gelu-tanh" | "gelu-tanh-rounded":  # its approximation in the same section
            constant = math.sqrt(2 / math.pi) if activation == "gelu-tanh" else 0.79788456
            inner: Array = np.tanh(constant * (x + 0.044715 * x * x * x))
            return 0.5 * x * (1 + inner)


def _erf(x: Array) -> Array:
    return np.array([math.erf(value) for value in x.ravel().tolist()]).reshape(x.shape)


# Heads --------------------------------------------------------------------------------------------


def _vocabulary(spec: Spec, p: _Scope, x: Array) -> Array:
    """Logits; a tied output matrix is the token embedding's (Press & Wolf 2016, section 2)."""
    head = spec.architecture.head
    if isinstance(head, MaskedLanguageModelHead):
        x = _norm(
            spec, p / "head.norm", _activate(head.activation, _linear(p / "head.transform", x))
        )
    elif isinstance(head, LanguageModelHead) and head.input_scale == "inverse-sqrt-hidden-size":
        # Not in the paper, but in the released T5 code, where the matrix is tied.
        x = x / math.sqrt(spec.hidden_size)
    if "head.projection.weight" in p:  # the OPT release, project_out
        x = _linear(p / "head.projection", x)
    tied = spec.architecture.tied_embeddings
    matrix = p["embeddings.token.weight" if tied else "head.output.weight"]
    return x @ matrix.T + (p["head.output.bias"] if getattr(head, "bias", False) else 0)


def _next_sentence(spec: Spec, p: _Scope, x: Array) -> Array | None:
    """The pooler, tanh of a dense layer over the first position, then the two classes.

    Devlin et al. 2018, section 3.1; the tanh stands in the release only.
    """
    head = spec.architecture.head
    if not (isinstance(head, MaskedLanguageModelHead) and head.sentence_pair != "none"):
        return None
    return _linear(p / "next_sentence", np.tanh(_linear(p / "pooler", x[:, 0])))


# What users can get wrong -------------------------------------------------------------------------


def _checked_weights(spec: Spec, weights: Mapping[str, Any]) -> dict[str, Array]:
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
    expected = {parameter.name: parameter.shape for parameter in parameter_table(spec)}
    found = {name: array.shape for name, array in arrays.items()}
    if found != expected:
        wrong = sorted({name for name, _ in expected.items() ^ found.items()})
        raise ValueError(
            f"weights are not those of {spec.name}: missing, unexpected or mis-shaped {wrong}"
        )
    return arrays


def _like(tokens: Ids, values: ArrayLike, what: str) -> Ids:
    array = np.asarray(values, dtype=np.int64)
    if array.shape != tokens.shape:
        raise ValueError(
            f"{what} has the shape {array.shape}; expected {tokens.shape}, as the token ids"
        )
    return array
