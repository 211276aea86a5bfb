"""Position encodings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

import msgspec

from holotype_spec.schema.mechanism import Mechanism, Probing
from holotype_spec.schema.rows import Parameter, bucket_biases, linear, table, vector
from holotype_spec.schema.scaling import Scaling
from holotype_spec.schema.sizes import Sizes
from holotype_spec.schema.values import LARGEST, Count, Positive

TABLE = "position embeddings"
RELATIVE = "relative positions"
BUCKETS, MAX_DISTANCE = 8, 12  # of a probe: no distance lies on the edge between two buckets
NEAR = 6  # of a probe: a distance within a short input from which on disentangled positions share a row
MANY_HEADS = (
    11  # of a probe: eight slopes of ALiBi are powers of two, and three the square roots of such
)


class PositionMechanism(Mechanism):
    """Positions that add no parameters, no cost and nothing to the states."""

    added: ClassVar[bool] = False  # to the states, so that a shift of all positions shows
    trained: ClassVar[bool] = False  # a row for each position
    between_tokens: ClassVar[bool] = False  # distances alone, from token to token
    rotates: ClassVar[bool] = False  # queries and keys
    biases_scores: ClassVar[bool] = False  # by a number for each distance
    places: ClassVar[int] = 1  # of a token: two are that in the text and that within its span
    probed_heads: ClassVar[int] = 5  # of a probe that does not group its queries

    @property
    def compares_segments(self) -> bool:
        """Whether attention compares the token types of a query and a key."""
        return False

    def table_rows(self, max_positions: int) -> int:
        """Rows of a table that has one for each position, those in front of the first position included."""
        return max_positions

    def rotary_dim(self, head_dim: int) -> int:
        """Dimensions of a head of so many that turn with the one position."""
        return 0

    @property
    def wide_probe(self) -> bool:
        """Whether several pairs of dimensions must turn in a probe, or only a part of a head does."""
        return False

    def read_alike(self, *lengths: int) -> bool:
        """Whether inputs of these lengths read the tokens that they have in common in one way."""
        return True

    def score_products(self, keys: int, head_dim: int, *, both_ways: bool) -> int:
        """Products of numbers that a query of one head needs for its scores, those of content apart."""
        return 0

    # Rows of the table of parameters, in the order in which they stand there.

    def table_parameters(self, sizes: Sizes, name: str, size: int) -> Iterator[Parameter]:
        """Of what a stack adds to the rows of its tokens, which have `size` numbers."""
        yield from ()

    def stack_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        """Of what all layers of a stack share."""
        yield from ()

    def query_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        """Of what the self-attention of a layer has in front of its projections."""
        yield from ()

    def score_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        """Of what the self-attention of a layer has behind its projections."""
        yield from ()


class LearnedPositions(PositionMechanism, tag="learned", tag_field="kind"):
    """A trained row for each position, added to the token embedding (Radford et al. 2018, section 3.1).

    Position p reads row p + `offset`; the table has `max_positions` + `offset` rows.
    """

    offset: Annotated[int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")]

    added: ClassVar[bool] = True
    trained: ClassVar[bool] = True

    def table_rows(self, max_positions: int) -> int:
        return max_positions + self.offset

    def table_parameters(self, sizes: Sizes, name: str, size: int) -> Iterator[Parameter]:
        yield table(f"{name}.position", self.table_rows(sizes.max_positions), size, TABLE)


class Sinusoidal(PositionMechanism, tag="sinusoidal", tag_field="kind"):
    """Sines and cosines of the position, added to the token embedding (Vaswani et al. 2017, section 3.5).

    Pair i turns by theta^(-2i / hidden_size) a position. `layout` says where its sine and cosine stand:
    `interleaved` at (2i, 2i + 1), as in the paper; `halves` at (i, i + hidden_size/2), as in its release.
    Position p has the angles of p + `offset`.
    """

    theta: Positive
    layout: Literal["interleaved", "halves"]
    offset: Annotated[int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")]

    added: ClassVar[bool] = True


class Rotary(PositionMechanism, tag="rotary", tag_field="kind"):
    """RoPE: queries and keys are rotated by angles proportional to the position (Su et al. 2021, section 3.2).

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

    rotates: ClassVar[bool] = True

    def rotary_dim(self, head_dim: int) -> int:
        return round(head_dim * self.fraction)

    @property
    def wide_probe(self) -> bool:
        return self.fraction < 1 or self.scaling.wide_probe

    def read_alike(self, *lengths: int) -> bool:
        return self.scaling.read_alike(*lengths)

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, scaling=self.scaling.probed(probing))


class RelativeBuckets(PositionMechanism, tag="relative-buckets", tag_field="kind"):
    """A trained bias per head and bucket of distance, added to the scores (Raffel et al. 2019, section 2.1).

    Each stack has one table, used by the self-attention of all its layers, and none in cross-attention.
    """

    buckets: Annotated[
        int,
        msgspec.Meta(ge=4, le=LARGEST, multiple_of=4, description="a multiple of 4, at least 4"),
    ]
    max_distance: Count

    between_tokens: ClassVar[bool] = True
    biases_scores: ClassVar[bool] = True

    def stack_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        yield bucket_biases(name, self.buckets, sizes.heads)

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, buckets=BUCKETS, max_distance=MAX_DISTANCE)


class Alibi(PositionMechanism, tag="alibi", tag_field="kind"):
    """Each score is lowered in proportion to the distance, by a slope of its head's own (Press et al. 2021, section 3).

    Of 2^k heads head i (from 1) has the slope 2^(-8 i / 2^k). Where the heads are no power of two, the first 2^k
    of them, as many as fit, have those slopes, and the others every other slope of twice as many heads, from the
    first on (the authors' release, get_slopes).
    """

    between_tokens: ClassVar[bool] = True
    biases_scores: ClassVar[bool] = True
    probed_heads: ClassVar[int] = MANY_HEADS


class LayerwiseRelativeBuckets(
    PositionMechanism, tag="layerwise-relative-buckets", tag_field="kind"
):
    """Relative buckets of which each layer has a table of its own (Du et al. 2021b, GLaM, section 4)."""

    buckets: Annotated[
        int,
        msgspec.Meta(ge=4, le=LARGEST, multiple_of=4, description="a multiple of 4, at least 4"),
    ]
    max_distance: Count

    biases_scores: ClassVar[bool] = True

    def score_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        yield bucket_biases(name, self.buckets, sizes.heads)

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, buckets=BUCKETS, max_distance=MAX_DISTANCE)


class TwoDimensionalPositions(PositionMechanism, tag="two-dimensional", tag_field="kind"):
    """Two trained rows, added to the token embedding (Du et al. 2021, section 2.2).

    The first is that of the token's place in the corrupted text, which for the tokens of a span is the place of its
    mask; the second that of its place within the span, 0 outside. Both tables have `max_positions` + 1 rows.
    """

    added: ClassVar[bool] = True
    trained: ClassVar[bool] = True
    places: ClassVar[int] = 2

    def table_rows(self, max_positions: int) -> int:
        return max_positions + 1

    def table_parameters(self, sizes: Sizes, name: str, size: int) -> Iterator[Parameter]:
        for part in ("position", "block_position"):
            yield table(f"{name}.{part}", self.table_rows(sizes.max_positions), size, TABLE)


class TwoDimensionalRotary(PositionMechanism, tag="two-dimensional-rotary", tag_field="kind"):
    """The same two places, as rotations: the first half of each head turns by one, the second by the other.

    In each half the dimensions i and i + a quarter of the head are a pair (the ChatGLM-6B release,
    position_encoding_2d).
    """

    theta: Positive

    rotates: ClassVar[bool] = True
    places: ClassVar[int] = 2


class GatedRelativeBuckets(PositionMechanism, tag="gated-relative-buckets", tag_field="kind"):
    """Relative buckets whose bias the query scales, by two gates a head (Chi et al. 2021b, section 4.2).

    The gates are logistic functions of the query's products with two trained vectors of head_dim; a trained
    number a head weighs the second gate. All layers share the table.
    """

    buckets: Annotated[
        int,
        msgspec.Meta(ge=4, le=LARGEST, multiple_of=4, description="a multiple of 4, at least 4"),
    ]
    max_distance: Count

    biases_scores: ClassVar[bool] = True

    def stack_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        yield bucket_biases(name, self.buckets, sizes.heads)

    def score_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        for gate in ("gate_update", "gate_reset"):
            yield vector(f"{name}.{gate}", (sizes.head_dim,), "bias", RELATIVE)
        yield vector(f"{name}.gate_weight", (sizes.heads,), "bias", RELATIVE)

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, buckets=BUCKETS, max_distance=MAX_DISTANCE)


class Disentangled(PositionMechanism, tag="disentangled", tag_field="kind"):
    """Trained rows for relative positions, attended to and from (He et al. 2020, section 3.1).

    One table of 2 `max_distance` rows serves all layers; distances beyond share the last rows. To the
    product of query and key come, of those in `terms`, that of the query and that of the key with the row of the
    distance, each projected. The paper has the row of the opposite distance for the key (equation 4); the release, and
    so what it trained, has the same for both. Their projections are the layer's own, that of position queries alone
    with a bias (the DeBERTa release, DisentangledSelfAttention).
    """

    max_distance: Count
    terms: tuple[Literal["content-to-position", "position-to-content"], ...]

    between_tokens: ClassVar[bool] = True

    def score_products(self, keys: int, head_dim: int, *, both_ways: bool) -> int:
        return head_dim * len(self.terms) * 2 * min(keys, self.max_distance)

    def stack_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        yield Parameter(
            name=f"{name}.relative.weight",
            shape=(2 * self.max_distance, sizes.hidden_size),
            role="embedding",
            component="relative position embeddings",
        )

    def score_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        d, size = sizes.hidden_size, sizes.heads * sizes.head_dim
        if "content-to-position" in self.terms:
            yield from linear(f"{name}.position_key", size, d, RELATIVE, bias=False)
        if "position-to-content" in self.terms:
            yield from linear(f"{name}.position_query", size, d, RELATIVE, bias=True)

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, max_distance=NEAR)


class TransformerXLPositions(PositionMechanism, tag="transformer-xl", tag_field="kind"):
    """Queries meet projected sinusoids of the distance (Dai et al. 2019, section 3.3).

    Each layer has the projection and two trained vectors that take the query's place: one towards the
    content of the keys, one towards their distance. With `relative_segments` also a third one and two
    trained rows, for keys of the same segment and of another (Yang et al. 2019, section 2.5).
    """

    theta: Positive
    relative_segments: bool

    between_tokens: ClassVar[bool] = True

    @property
    def compares_segments(self) -> bool:
        return self.relative_segments

    def score_products(self, keys: int, head_dim: int, *, both_ways: bool) -> int:
        # A bidirectional stack looks at as many distances again in the other direction.
        distances = 2 * keys if both_ways else keys
        return head_dim * (distances + (2 if self.relative_segments else 0))

    def query_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        size = sizes.heads * sizes.head_dim
        yield vector(f"{name}.content_bias", (size,), "bias", RELATIVE)
        yield vector(f"{name}.position_bias", (size,), "bias", RELATIVE)
        if self.relative_segments:
            yield vector(f"{name}.segment_bias", (size,), "bias", RELATIVE)
            yield vector(f"{name}.segments", (2, size), "embedding", RELATIVE)

    def score_parameters(self, sizes: Sizes, name: str) -> Iterator[Parameter]:
        d, size = sizes.hidden_size, sizes.heads * sizes.head_dim
        yield from linear(f"{name}.position_key", size, d, RELATIVE, bias=False)


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
