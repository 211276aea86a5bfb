"""What a spec is made of: frozen, strictly validated classes, one for each mechanism.

A mechanism with alternatives is a tagged union: its ``kind`` brings exactly the constants that belong to
it and no others, so that nonsense cannot be written. Nothing has a default: a field that is missing from a
spec file is an error, because a silent default is how ports go wrong.

The same classes are exported as ``schema.json`` (see `holotype_spec.validation`), for editors and other languages.
"""

from __future__ import annotations

from typing import Annotated, Literal, dataclass_transform

import msgspec

LARGEST = 10**9  # no size of a model comes near it
Count = Annotated[
    int, msgspec.Meta(ge=1, le=LARGEST, description="a whole number from 1 to a billion")
]
Positive = Annotated[float, msgspec.Meta(gt=0, description="a number greater than 0")]
Rate = Annotated[
    float, msgspec.Meta(ge=0, lt=1, description="a probability, at least 0 and below 1")
]
Name = Annotated[
    str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$", description="a lower-case name")
]


@dataclass_transform(frozen_default=True, kw_only_default=True)  # type checkers read it here alone
class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Frozen, keyword-only, and unknown keys are errors."""


# Embeddings -----------------------------------------------------------------------------------------------


class HiddenSizeEmbedding(Strict, tag="hidden-size", tag_field="kind"):
    """Rows as wide as the residual stream (Vaswani et al. 2017, section 3.4)."""


class FactorisedEmbedding(Strict, tag="factorised", tag_field="kind"):
    """Rows of `size` numbers, and a matrix from there to hidden_size (Lan et al. 2019, section 3.1).

    `tables` says which have such rows. "all": those of positions and token types and the norm of the
    embeddings too, and the matrix comes last. "token": the matrix follows the lookup, all else has
    hidden_size. A head that shares the token table comes down to `size` first: the transform of a masked
    language model does it, a language-model head has a matrix of its own for that (Zhang et al. 2022: the
    OPT release, project_out).
    """

    size: Count
    bias: bool
    tables: Literal["all", "token"]


EmbeddingWidth = HiddenSizeEmbedding | FactorisedEmbedding


class Embeddings(Strict):
    """How token ids become the first hidden states.

    With `scale` the token's row is multiplied before anything is added (Vaswani et al. 2017, section 3.4).
    The two stacks of an encoder-decoder share the token table; tables of positions and the norm of the
    embeddings each has its own, that of token types the encoder alone.
    """

    width: EmbeddingWidth
    scale: Literal["sqrt-hidden-size", "none"]


# Attention ------------------------------------------------------------------------------------------------


class Bidirectional(Strict, tag="bidirectional", tag_field="kind"):
    """Every position attends to every position (Devlin et al. 2018, section 3)."""


class Causal(Strict, tag="causal", tag_field="kind"):
    """Position i attends to the keys 0 … i (Vaswani et al. 2017, section 3.1)."""


class SlidingWindow(Strict, tag="sliding-window", tag_field="kind"):
    """Position i attends to the ``window`` keys i-window+1 … i (Jiang et al. 2023, section 2)."""

    window: Count


class Permutation(Strict, tag="permutation", tag_field="kind"):
    """Each position sees those before it in an order drawn anew for each text (Yang et al. 2019, section 2.2).

    Two streams run through the same layers (section 2.3). The content stream starts from the token and sees
    itself; the query stream starts from one trained vector, sees the content before it but never its own,
    and writes the logits in pretraining. Without an order everything is seen, by the content stream alone.
    """


class MixtureOfMasks(Strict, tag="mixture", tag_field="kind"):
    """Each batch has one of four masks, in these shares (Dong et al. 2019, sections 2.2 and 2.3).

    All positions; those up to and from each one; or, of two segments, the first one whole and the second
    one up to each of its positions.
    """

    bidirectional: Rate
    left_to_right: Rate
    right_to_left: Rate
    sequence_to_sequence: Rate


class PrefixCausal(Strict, tag="prefix-causal", tag_field="kind"):
    """Position i attends to the keys 0 … i and to all of the prefix, which is the text given (Du et al. 2021, 2.1).

    How long the prefix is belongs to the input: in training it is what was not cut out, in use the prompt.
    """


class AlternatingBanded(Strict, tag="alternating-banded", tag_field="kind"):
    """Causal layers and causal layers of a band take turns (Brown et al. 2020, section 2.1; Child et al. 2019).

    In a layer of the second sort position i attends to the `window` keys i-window+1 … i. Layer 0 is of the sort
    that comes `first`.
    """

    first: Literal["dense", "banded"]
    window: Count


Pattern = (
    Bidirectional
    | Causal
    | SlidingWindow
    | AlternatingBanded
    | Permutation
    | MixtureOfMasks
    | PrefixCausal
)


# "inverse-sqrt-head-dim-log-length": also times log(i + 1) / log(max_positions) for a query at a position i beyond
# those trained (Su 2021, kexue.fm 8823; the Qwen release, use_logn_attn).
Scale = Literal[
    "inverse-sqrt-head-dim",
    "inverse-sqrt-head-dim-log-length",
    "inverse-sqrt-three-head-dims",
    "none",
]
Projection = Literal["query", "key", "value", "output"]


class MultiHeadAttention(Strict, tag="multi-head", tag_field="kind"):
    """Multi-head attention, its query, key and value heads grouped or not (Ainslie et al. 2023).

    `pattern` is that of the stack that writes the logits. The encoder of an encoder-decoder is bidirectional
    and its cross-attention sees the whole source: that is what the structure means.
    """

    pattern: Pattern
    scale: Scale
    biases: tuple[Projection, ...]
    head_dim: Literal["hidden-size-over-heads", "independent"]


class LatentAttention(Strict, tag="latent", tag_field="kind"):
    """Keys and values made from one short vector a token, which alone is cached (DeepSeek-AI 2024, V2, section 2.1).

    That vector has `kv_rank` numbers, is normalised, and two matrices make the keys and the values of all heads
    from it. A query head and its key have `head_dim` numbers (that of the spec's sizes), of which the last
    `rope_head_dim` carry the rotary positions: those of the keys are made from the residual stream, and all heads
    share them. A value head has `value_head_dim` numbers. Queries pass through a vector of `query_rank` numbers,
    normalised too, or are made directly where it is "none".
    """

    pattern: Pattern
    scale: Scale
    biases: tuple[Projection, ...]
    head_dim: Literal["independent"]
    query_rank: Count | Literal["none"]
    kv_rank: Count
    rope_head_dim: Count
    value_head_dim: Count


Attention = MultiHeadAttention | LatentAttention


# Positions ------------------------------------------------------------------------------------------------


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
    product of query and key come, of those in `terms`, that of the query with the projected row of the
    distance and that of the key with the row of the opposite distance. Their projections are the layer's
    own, that of position queries alone with a bias (the DeBERTa release, DisentangledSelfAttention).
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


# Normalisation and feed-forward ---------------------------------------------------------------------------


class LayerNorm(Strict, tag="layer", tag_field="kind"):
    """Centre and scale each vector, then gain and bias (Ba et al. 2016)."""

    eps: Positive
    embedding: bool
    final: bool


class RMSNorm(Strict, tag="rms", tag_field="kind"):
    """Divide each vector by its root mean square, then gain (Zhang & Sennrich 2019)."""

    eps: Positive
    embedding: bool
    final: bool


class BiaslessLayerNorm(Strict, tag="layer-without-bias", tag_field="kind"):
    """Centre and scale each vector, then gain, and no bias (Chowdhery et al. 2022, section 2)."""

    eps: Positive
    embedding: bool
    final: bool


Normalization = LayerNorm | RMSNorm | BiaslessLayerNorm

# "gelu-tanh-rounded" is "gelu-tanh" with √(2/π) rounded to 0.79788456, in Megatron-LM and what was trained with it.
Activation = Literal["relu", "gelu", "gelu-tanh", "gelu-tanh-rounded", "silu"]
FeedForwardSize = Literal["four-times-hidden-size", "independent"]


class PlainFeedForward(Strict, tag="plain", tag_field="kind"):
    """down(activation(up(x))) (Vaswani et al. 2017, section 3.3)."""

    size: FeedForwardSize
    activation: Activation
    bias: bool


class GatedFeedForward(Strict, tag="gated", tag_field="kind"):
    """down(activation(gate(x)) * up(x)) (Shazeer 2020)."""

    size: FeedForwardSize
    activation: Activation
    bias: bool


class SoftmaxRouting(Strict, tag="softmax", tag_field="kind"):
    """Experts are chosen by the softmax of x Wᵀ over all of them (Shazeer et al. 2017; Lepikhin et al. 2020).

    The scores of the chosen ones are their gates: as they are, or `normalised` to the sum 1, then times `factor`.
    Of `groups` of experts only those in the `active_groups` best count, a group being as good as its best expert
    (DeepSeek-AI 2024, V2, section 2.2.2).
    """

    normalised: bool
    factor: Positive
    groups: Count
    active_groups: Count


class SigmoidRouting(Strict, tag="sigmoid", tag_field="kind"):
    """Experts are chosen by sigmoid(x Wᵀ) plus a bias an expert that balances their load (DeepSeek-AI 2024, V3, 2.1.2).

    The biases are set by a rule and not by gradients, so they are no parameters, and only the choice looks at
    them. The rest is as in softmax routing, but that a group is as good as the sum of its two best experts.
    """

    normalised: bool
    factor: Positive
    groups: Count
    active_groups: Count


Routing = SoftmaxRouting | SigmoidRouting
Block = Literal["plain", "gated"]


class Experts(Strict, tag="experts", tag_field="kind"):
    """Several feed-forward blocks a layer, of which each token uses a few (Shazeer et al. 2017; Lepikhin et al. 2020).

    Layers `first_layer`, `first_layer` + `every`, … (from 0) have `experts` blocks of the kind `expert` and of the
    inner size `expert_size`, and a router that gives each token `active_experts` of them; beside these each token
    uses all `shared_experts` (Dai et al. 2024, section 3.2). The other layers have one block of the kind `dense` and
    of the size ffn_size; it is "none" where there are no others, and ffn_size is the size of an expert then. With
    `dense_after` such a block, with a norm and a residual connection of its own, also follows each layer of
    experts (Zoph et al. 2022, appendix C).

    In training an expert takes at most `capacity` times its even share of a batch's tokens (Fedus et al. 2021,
    section 2.2), or whatever comes where it is "none".
    """

    size: Literal["independent"]
    activation: Activation
    bias: bool
    dense: Block | Literal["none"]
    dense_after: bool
    expert: Block
    experts: Count
    active_experts: Count
    shared_experts: Annotated[
        int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")
    ]
    expert_size: Count
    first_layer: Annotated[
        int, msgspec.Meta(ge=0, le=LARGEST, description="a whole number, at least 0")
    ]
    every: Count
    routing: Routing
    capacity: Positive | Literal["none"]


FeedForward = PlainFeedForward | GatedFeedForward | Experts


# Heads ----------------------------------------------------------------------------------------------------


class LanguageModelHead(Strict, tag="language-model", tag_field="kind"):
    """One matrix from the hidden state to the vocabulary, its input scaled or not."""

    bias: bool
    input_scale: Literal["inverse-sqrt-hidden-size", "none"]


class MultiTokenHead(Strict, tag="multi-token", tag_field="kind"):
    """A language-model head and, in training, modules that predict further tokens (DeepSeek-AI 2024, V3, section 2.2).

    Each of `depth` modules has two norms, a matrix from two vectors (the state before it and the next token's
    embedding) to one, a layer like the last one of the stack, and a norm; embeddings and output matrix are the
    model's. They are left out in use and counted apart.
    """

    bias: bool
    input_scale: Literal["inverse-sqrt-hidden-size", "none"]
    depth: Count


class MaskedLanguageModelHead(Strict, tag="masked-language-model", tag_field="kind"):
    """Dense, activation, norm, then a matrix to the vocabulary (the BERT release).

    A `sentence_pair` task adds a pooler (dense and tanh over the first position) and a matrix to the two
    classes: does the second sentence follow (Devlin et al. 2018, section 3.1), or are the two in order (Lan
    et al. 2019, section 3.1)?
    """

    activation: Activation
    bias: bool
    sentence_pair: Literal["next-sentence", "sentence-order", "none"]


class EnhancedMaskDecoder(Strict, tag="enhanced-mask-decoder", tag_field="kind"):
    """A masked-language-model head that learns the absolute positions at last (He et al. 2020, section 3.2).

    The last layer runs `passes` times more over the states of the layer below it: its queries come from the
    states of the pass before, plus a trained row for each position in the first one. Then dense, activation, norm and
    a matrix to the vocabulary follow.
    """

    activation: Activation
    bias: bool
    passes: Count


class ReplacedTokenHead(Strict, tag="replaced-token", tag_field="kind"):
    """Dense, activation, then one number a token: was it replaced? (Clark et al. 2020, section 2)."""

    activation: Activation


Head = (
    LanguageModelHead
    | MultiTokenHead
    | MaskedLanguageModelHead
    | EnhancedMaskDecoder
    | ReplacedTokenHead
)


# Dropout --------------------------------------------------------------------------------------------------

DropoutSite = Literal[
    "embeddings", "attention", "residual", "feed-forward", "feed-forward-output", "final"
]


class Dropout(Strict):
    """In training, numbers at these sites are zeroed with probability `rate` (Srivastava et al. 2014).

    `embeddings`: what enters a stack, after the norm of the embeddings if there is one. `attention`: the
    weights, after the softmax. `residual`: what each block adds to the residual stream;
    `feed-forward-output`: what the feed-forward block alone adds. `feed-forward`: what enters the block's
    last matrix. `final`: what leaves a stack, after its final norm if there is one.
    """

    rate: Rate
    sites: tuple[DropoutSite, ...]

    def at(self, site: DropoutSite) -> float:
        """The rate at one site, 0 where there is no dropout."""
        return self.rate if site in self.sites else 0.0


# The whole ------------------------------------------------------------------------------------------------

# What a model was trained for, in the order of its training; a descendant lists its parent's first.
Objective = Literal[
    # pretraining
    "causal-lm",  # the next token (Radford et al. 2018, section 3.1)
    "masked-lm",  # the hidden tokens, from both sides (Devlin et al. 2018, section 3.1)
    "next-sentence-prediction",  # does this sentence follow that one? (Devlin et al. 2018, section 3.1)
    "sentence-order-prediction",  # which of two sentences came first? (Lan et al. 2019, section 3.1)
    "replaced-token-detection",  # is this token the original one? (Clark et al. 2020, section 2)
    "translation-replaced-token-detection",  # the same over a sentence and its translation (Chi et al. 2021)
    "translation-lm",  # masked tokens of a sentence beside its translation (Lample & Conneau 2019, section 3.3)
    "permutation-lm",  # tokens in a random order of prediction (Yang et al. 2019, section 2.2)
    "bidirectional-lm",  # the next token, and apart from it the previous one (Peters et al. 2018, section 3.1)
    "prefix-lm",  # the rest of a text, its beginning seen from both sides (Raffel et al. 2019, section 3.2.1)
    "sequence-to-sequence-lm",  # the masked tokens of a second segment, left to right (Dong et al. 2019)
    "span-corruption",  # missing spans, behind sentinels (Raffel et al. 2019, section 3.1.4)
    "denoising",  # the whole text from a noised one (Lewis et al. 2019, section 2.2)
    "masked-seq2seq",  # the missing span, by the decoder alone (Song et al. 2019, section 3.2)
    "blank-infilling",  # missing spans one after another, in a shuffled order (Du et al. 2021, section 2.1)
    "mixture-of-denoisers",  # short, long and suffix spans, each announced (Tay et al. 2022, section 3.1)
    "fill-in-the-middle",  # prefix and suffix first, then what stood between (Bavarian et al. 2022)
    "multi-token-prediction",  # also the tokens after the next (DeepSeek-AI 2024, section 2.2)
    "distillation",  # the outputs of a larger model (Hinton et al. 2015)
    "translation",  # a sentence in another language, from pairs (Vaswani et al. 2017)
    "classification",  # the class of an input
    # fine-tuning
    "supervised-fine-tuning",  # demonstrations of the behaviour wanted (Ouyang et al. 2022, section 3.1)
    "instruction-tuning",  # many tasks, each put as an instruction (Wei et al. 2021)
    "reward-modelling",  # which of two answers did people prefer? (Ouyang et al. 2022, section 3.5)
    "ppo",  # reinforcement learning against a reward model (Schulman et al. 2017)
    "grpo",  # the same without a value network (Shao et al. 2024, section 4.1)
    "rejection-sampling",  # the best of several answers of its own (Touvron et al. 2023, section 3.2.3)
    "dpo",  # preferences without a reward model (Rafailov et al. 2023)
    "prompt-tuning",  # trained vectors in front of the input, all else frozen (Lester et al. 2021)
    "low-rank-adaptation",  # trained low-rank updates, all else frozen (Hu et al. 2021)
]
TokenId = Annotated[int, msgspec.Meta(ge=0, le=LARGEST, description="a token id")]


class Architecture(Strict):
    """Everything that tells one family from another; a variant adds its sizes and says what differs.

    `decoder_start_id` is the token that a decoder with a source reads first: in training it stands before
    the labels, shifted right by one to make room. With "last-label" it is the last label of the text, moved
    to the front (Liu et al. 2020, section 2.2: the id of its language). Other models have "none": what a
    tokenizer puts before a text belongs to the text.

    `encoder_layers` is what an encoder-decoder has in front of the `layers` of its decoder. With
    `layer_sharing` "all" one layer's parameters serve them all (Lan et al. 2019, section 3.1).
    `residual` says where the norms stand. Under "pre-norm" and "post-norm" each block has its own, before it or after
    its sum. "parallel": attention and feed-forward read the same normalised vector, and both are added (Wang &
    Komatsuzaki 2021, the GPT-J release). "deep-norm": post-norm, the residual multiplied by √(2 layers) before each
    sum (Wang et al. 2022, DeepNet; the factor is that of Zeng et al. 2022, section 2.1).

    `padding_id` is the token that fills up a batch and is never text, if the vocabulary keeps one for that;
    what its embedding learns is nobody's concern.
    """

    structure: Literal["encoder", "decoder", "encoder-decoder"]
    objective: Annotated[tuple[Objective, ...], msgspec.Meta(min_length=1)]
    decoder_start_id: TokenId | Literal["last-label", "none"]
    padding_id: TokenId | Literal["none"]
    encoder_layers: Count | Literal["as-decoder", "none"]
    layer_sharing: Literal["all", "none"]
    residual: Literal["pre-norm", "post-norm", "parallel", "deep-norm"]
    embeddings: Embeddings
    attention: Attention
    positions: Positions
    normalization: Normalization
    feed_forward: FeedForward
    token_types: Annotated[
        int,
        msgspec.Meta(ge=0, le=LARGEST, description="rows of the token-type table, 0 for none"),
    ]
    tied_embeddings: bool
    head: Head
    dropout: Dropout


class Source(Strict):
    """Where a value comes from."""

    id: Name
    title: str
    url: Annotated[str, msgspec.Meta(pattern="^https?://", description="a web address")]


class PublishedCount(Strict):
    """The parameter count that a source prints, in its own words, and why ours differs where it does."""

    published: str
    source: Name
    note: str | None = None


class Transformers(Strict):
    """Which class of Hugging Face `transformers` is this model, and its configuration in our terms.

    `fields` gives for a key of their configuration the path of our field ("layers",
    "architecture.normalization.eps"); `constants` what the family implies and their configuration
    must be told; `absent` the keys that must be null there, which TOML cannot write. A dotted key stands
    for a nested one: "rope_parameters.rope_theta" is the entry "rope_theta" of their dictionary
    "rope_parameters". Their `position_ids` are positions, counted from 0, or the rows of the position
    table, offset included.
    """

    config_class: str
    model_class: str
    absent: tuple[str, ...]
    position_ids: Literal["positions", "rows"]
    fields: dict[str, str]
    constants: dict[str, bool | int | float | str]

    def __hash__(self) -> int:
        return hash((self.config_class, self.model_class, *sorted(self.fields.items())))


# What a generic spec can promise, and a property or a builder may then rely on: the paths of fields of a `Spec`.
Binding = Literal[
    "vocab_size",
    "max_positions",
    "architecture.structure",
    "architecture.objective",
    "architecture.decoder_start_id",
    "architecture.padding_id",
    "architecture.attention.pattern",
    "architecture.positions",
    "architecture.token_types",
    "architecture.dropout",
]


class StatedPart(Strict):
    """A part of a model of which a source states nothing but its size.

    There are `number` such parts of `parameters` each, and a token passes through `active` of them.
    """

    component: str
    parameters: Annotated[int, msgspec.Meta(ge=1, description="a whole number, at least 1")]
    number: Count
    active: Count
    source: Name


class Family(Strict):
    """The head of a spec file.

    `checkpoint` is the table of the published names of its weights, "none" where there is none here;
    `transformers` is "none" where that library has no class for it.

    `binding` is what the members promise. A model is all that its spec says, so a family of models binds "all",
    and need not say so. A generic family is no model but a kind of model: it binds the fields that it lists, and all
    others are hints to whoever builds one.
    """

    name: Name
    title: str
    sources: Annotated[tuple[Source, ...], msgspec.Meta(min_length=1)]
    checkpoint: Name
    transformers: Transformers | Literal["none"]
    binding: tuple[Binding, ...] | Literal["all"] = "all"

    @property
    def generic(self) -> bool:
        """Whether its members are kinds of models, and most of their fields hints."""
        return self.binding != "all"

    def binds(self, field: Binding) -> bool:
        """Whether the members promise this field."""
        return self.binding == "all" or field in self.binding


class Sizes(Strict):
    """What tells the members of a family apart."""

    name: Name
    layers: Count
    hidden_size: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    ffn_size: Count
    vocab_size: Count
    max_positions: Count
    parameters: PublishedCount | Literal["none"]


class Spec(Sizes):
    """One model, whole: what `holotype_spec.load` returns and everything else is built from.

    `layers` counts those of the stack that writes the logits. `max_positions` is the rows of a learned
    table, or the context that a model without one was trained for.

    `derives_from` names the model that this one was trained on from, `rumour` says who spread what of a model
    about which its makers said nothing, and `stated` what is said of the size of its parts.
    """

    family: Family
    aliases: tuple[Name, ...]
    architecture: Architecture
    derives_from: Name | None = None
    rumour: str | None = None
    stated: tuple[StatedPart, ...] = ()

    @property
    def position_rows(self) -> int:
        """Rows of a learned position table, those in front of the first position included."""
        positions = self.architecture.positions
        if isinstance(positions, TwoDimensionalPositions):
            return self.max_positions + 1
        offset = positions.offset if isinstance(positions, LearnedPositions) else 0
        return self.max_positions + offset

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of a head turn with the position; 0 without rotary positions."""
        attention, positions = self.architecture.attention, self.architecture.positions
        if not isinstance(positions, Rotary):
            return 0
        if isinstance(attention, LatentAttention):
            return attention.rope_head_dim
        return round(self.head_dim * positions.fraction)

    @property
    def nope_head_dim(self) -> int:
        """How many dimensions of a query's or a key's head carry no rotary position."""
        return self.head_dim - self.rotary_dim

    @property
    def value_head_dim(self) -> int:
        """Numbers in a value head, which in latent attention differ from those in a head of queries and keys."""
        attention = self.architecture.attention
        if isinstance(attention, LatentAttention):
            return attention.value_head_dim
        return self.head_dim

    def has_experts(self, layer: int) -> bool:
        """Whether the feed-forward block of a layer, counted from 0, consists of experts."""
        blocks = self.architecture.feed_forward
        if not isinstance(blocks, Experts) or layer < blocks.first_layer:
            return False
        return (layer - blocks.first_layer) % blocks.every == 0

    @property
    def embedding_size(self) -> int:
        """Numbers in a row of the token table."""
        width = self.architecture.embeddings.width
        return width.size if isinstance(width, FactorisedEmbedding) else self.hidden_size

    @property
    def encoder_depth(self) -> int:
        """Layers of the encoder, 0 where there is none."""
        if self.architecture.structure == "encoder":
            return self.layers
        match self.architecture.encoder_layers:
            case "none":
                return 0
            case "as-decoder":
                return self.layers
            case depth:
                return depth

    def probe(self, *, layers: int = 2, groups: int | None = None) -> Spec:
        """This architecture at sizes that expose bugs; see `holotype_spec.probes.probe`."""
        from holotype_spec.probes import probe

        return probe(self, layers=layers, groups=groups)
