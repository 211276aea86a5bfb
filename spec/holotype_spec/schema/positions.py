"""How a model knows where a token stands."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from holotype_spec.schema.values import LARGEST, Count, Positive, Strict


class LearnedPositions(Strict, tag="learned", tag_field="kind"):
    """A trained row for each position, added to the token embedding (Radford et al. 2018, section 3.1).

    Position p reads row p + `offset`; the table has `max_positions` + `offset` rows.
    """

    offset: Annotated[int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")]


class Sinusoidal(Strict, tag="sinusoidal", tag_field="kind"):
    """Sines and cosines of the position, added to the token embedding (Vaswani et al. 2017, section 3.5).

    Pair i turns by theta^(-2i / hidden_size) a position. `layout` says where its sine and cosine stand:
    `interleaved` at (2i, 2i + 1), as in the paper; `halves` at (i, i + hidden_size/2), as in its release.
    Position p has the angles of p + `offset`.
    """

    theta: Positive
    layout: Literal["interleaved", "halves"]
    offset: Annotated[int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")]


class NoScaling(Strict, tag="none", tag_field="kind"):
    """Every pair turns at the speed that theta gives it."""


class LinearScaling(Strict, tag="linear", tag_field="kind"):
    """Every pair turns `factor` times slower, as if positions were divided by it (Chen et al. 2023, section 3.2)."""

    factor: Positive


class Llama3Scaling(Strict, tag="llama3", tag_field="kind"):
    """Slow pairs turn `factor` times slower, fast ones as before (the LLaMA 3.1 release, apply_scaling).

    What counts is how often a pair turns within `original_max_positions`: more than `high_freq_factor` times
    is fast, less than `low_freq_factor` times slow, and between the two the speed goes over linearly.
    """

    factor: Positive
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_positions: Count


class YarnScaling(Strict, tag="yarn", tag_field="kind"):
    """Slow pairs turn `factor` times slower, fast ones as before (Peng et al. 2023b, section 3.2).

    A pair that turns more than `beta_fast` times within `original_max_positions` is fast, less than `beta_slow`
    times slow; between the two (by the pair's index, the bounds rounded outwards) the speed goes over linearly.
    With m(s) = 0.1 s ln(factor) + 1, cosines and sines are multiplied by m(`mscale`) / m(`mscale_all_dim`) and all
    scores by m(`mscale_all_dim`)² (section 3.3; the DeepSeek-V2 release, yarn_get_mscale and softmax_scale).
    """

    factor: Positive
    original_max_positions: Count
    beta_fast: Positive
    beta_slow: Positive
    mscale: Positive
    mscale_all_dim: Positive


class DynamicScaling(Strict, tag="dynamic-ntk", tag_field="kind"):
    """Beyond `original_max_positions` theta grows with the input (bloc97 2023, NTK-aware scaled rotary positions).

    An input of n tokens gives a = 2^ceil(log2(n / original_max_positions) + 1) - 1, at least 1, and theta is
    multiplied by a^(d / (d - 2)), where d dimensions of a head turn (the Qwen release, get_ntk_alpha).
    """

    original_max_positions: Count


Scaling = NoScaling | LinearScaling | Llama3Scaling | YarnScaling | DynamicScaling


class Rotary(Strict, tag="rotary", tag_field="kind"):
    """Queries and keys are rotated by angles proportional to the position (Su et al. 2021, section 3.2).

    `pairing` says which two dimensions of a head turn together in the published weights: `half-split` pairs
    (i, i + half of them), `interleaved` pairs (2i, 2i + 1). `fraction` says how much of each head turns, its
    first dimensions; the others carry no position (Wang & Komatsuzaki 2021, the GPT-J release).
    """

    theta: Positive
    pairing: Literal["half-split", "interleaved"]
    fraction: Annotated[
        float, msgspec.Meta(gt=0, le=1, description="a number greater than 0, at most 1")
    ]
    scaling: Scaling


class RelativeBuckets(Strict, tag="relative-buckets", tag_field="kind"):
    """A trained bias per head and bucket of distance, added to the scores (Raffel et al. 2019, section 2.1).

    Each stack has one table, used by the self-attention of all its layers, and none in cross-attention.
    """

    buckets: Annotated[
        int,
        msgspec.Meta(ge=4, le=LARGEST, multiple_of=4, description="a multiple of 4, at least 4"),
    ]
    max_distance: Count


class Alibi(Strict, tag="alibi", tag_field="kind"):
    """Each score is lowered in proportion to the distance, by a slope of its head's own (Press et al. 2021, section 3).

    Of 2^k heads head i (from 1) has the slope 2^(-8 i / 2^k). Where the heads are no power of two, the first 2^k
    of them, as many as fit, have those slopes, and the others every other slope of twice as many heads, from the
    first on (the authors' release, get_slopes).
    """


class LayerwiseRelativeBuckets(Strict, tag="layerwise-relative-buckets", tag_field="kind"):
    """Relative buckets of which each layer has a table of its own (Du et al. 2021b, GLaM, section 4)."""

    buckets: Annotated[
        int,
        msgspec.Meta(ge=4, le=LARGEST, multiple_of=4, description="a multiple of 4, at least 4"),
    ]
    max_distance: Count


class TwoDimensionalPositions(Strict, tag="two-dimensional", tag_field="kind"):
    """Two trained rows, added to the token embedding (Du et al. 2021, section 2.2).

    The first is that of the token's place in the corrupted text, which for the tokens of a span is the place of its
    mask; the second that of its place within the span, 0 outside. Both tables have `max_positions` + 1 rows.
    """


class TwoDimensionalRotary(Strict, tag="two-dimensional-rotary", tag_field="kind"):
    """The same two places, as rotations: the first half of each head turns by one, the second by the other.

    In each half the dimensions i and i + a quarter of the head are a pair (the ChatGLM-6B release,
    position_encoding_2d).
    """

    theta: Positive


class GatedRelativeBuckets(Strict, tag="gated-relative-buckets", tag_field="kind"):
    """Relative buckets whose bias the query scales, by two gates a head (Chi et al. 2021b, section 4.2).

    The gates are logistic functions of the query's products with two trained vectors of head_dim; a trained
    number a head weighs the second gate. All layers share the table.
    """

    buckets: Annotated[
        int,
        msgspec.Meta(ge=4, le=LARGEST, multiple_of=4, description="a multiple of 4, at least 4"),
    ]
    max_distance: Count


class Disentangled(Strict, tag="disentangled", tag_field="kind"):
    """Trained rows for relative positions, attended to and from (He et al. 2020, section 3.1).

    One table of 2 `max_distance` rows serves all layers; distances beyond share the last rows. To the
    product of query and key come, of those in `terms`, that of the query and that of the key with the row of the
    distance, each projected. The paper has the row of the opposite distance for the key (equation 4); the release, and
    so what it trained, has the same for both. Their projections are the layer's own, that of position queries alone
    with a bias (the DeBERTa release, DisentangledSelfAttention).
    """

    max_distance: Count
    terms: tuple[Literal["content-to-position", "position-to-content"], ...]


class TransformerXLPositions(Strict, tag="transformer-xl", tag_field="kind"):
    """Queries meet projected sinusoids of the distance (Dai et al. 2019, section 3.3).

    Each layer has the projection and two trained vectors that take the query's place: one towards the
    content of the keys, one towards their distance. With `relative_segments` also a third one and two
    trained rows, for keys of the same segment and of another (Yang et al. 2019, section 2.5).
    """

    theta: Positive
    relative_segments: bool


Positions = (
    LearnedPositions
    | Sinusoidal
    | Rotary
    | RelativeBuckets
    | Alibi
    | LayerwiseRelativeBuckets
    | TwoDimensionalPositions
    | TwoDimensionalRotary
    | GatedRelativeBuckets
    | Disentangled
    | TransformerXLPositions
)
