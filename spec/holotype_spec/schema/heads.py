"""What stands between the last hidden states and the objective."""

from __future__ import annotations

from typing import Literal

from holotype_spec.schema.feed_forward import Activation
from holotype_spec.schema.values import Count, Strict


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

    The last layer runs `passes` times over the states of the layer below it, which stay its keys and values: its
    queries, and what its blocks are added to, come from the pass before, and in the first one from these states plus
    a trained row for each position. Then dense, activation, norm and a matrix to the vocabulary follow.
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
