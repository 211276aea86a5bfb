"""Heads: from the last hidden states to the logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import msgspec

from holotype_spec.schema.embeddings import EmbeddingWidth
from holotype_spec.schema.feed_forward import Activation
from holotype_spec.schema.mechanism import Mechanism
from holotype_spec.schema.normalization import Normalization
from holotype_spec.schema.rows import Parameter, linear, table
from holotype_spec.schema.sizes import Sizes
from holotype_spec.schema.values import Count

HEAD = "head"


def pretraining(rows: Iterator[Parameter]) -> Iterator[Parameter]:
    """Rows of what only pretraining needs."""
    return (msgspec.structs.replace(row, backbone=False) for row in rows)


def to_vocabulary(
    sizes: Sizes, width: EmbeddingWidth, *, bias: bool, tied: bool
) -> Iterator[Parameter]:
    """Rows of the output matrix, which is the token table where it is tied, and of its bias."""
    size = width.token_size(sizes.hidden_size)
    for row in linear("head.output", sizes.vocab_size, size, HEAD, bias=bias):
        if not (tied and row.role == "matrix"):
            yield row


def transform(sizes: Sizes, width: EmbeddingWidth, norm: Normalization) -> Iterator[Parameter]:
    """Rows of the dense layer and the norm in front of the output matrix of a masked language model."""
    size = width.token_size(sizes.hidden_size)
    yield from linear("head.transform", size, sizes.hidden_size, HEAD, bias=True)
    yield from norm.parameters("head.norm", size, HEAD)


class HeadMechanism(Mechanism):
    """The layers behind the last one of the stack, up to the logits."""

    adds_positions: ClassVar[bool] = False  # to the states, a trained row for each
    masked: ClassVar[bool] = False  # predicts hidden tokens, from a transformed state
    detects: ClassVar[bool] = False  # says which tokens were replaced

    @property
    def pairs_sentences(self) -> bool:
        """Whether a pooler and a matrix to two classes judge a pair of sentences."""
        return False

    def logit_size(self, vocab_size: int) -> int:
        """Numbers in the logits of a token."""
        return vocab_size

    def parameters(
        self, sizes: Sizes, width: EmbeddingWidth, norm: Normalization, *, tied: bool
    ) -> Iterator[Parameter]:
        """Rows of the table of parameters."""
        raise NotImplementedError

    def apart(self, sizes: Sizes, *, norm: int, layer: int) -> dict[str, int]:
        """Parameters of modules that training alone needs, where norms have `norm` and the last layer `layer`."""
        return {}


class LanguageModelHead(HeadMechanism, tag="language-model", tag_field="kind"):
    """One matrix from the hidden state to the vocabulary, its input scaled or not."""

    bias: bool
    input_scale: Literal["inverse-sqrt-hidden-size", "none"]

    def parameters(
        self, sizes: Sizes, width: EmbeddingWidth, norm: Normalization, *, tied: bool
    ) -> Iterator[Parameter]:
        yield from pretraining(width.head_parameters(sizes.hidden_size))
        yield from pretraining(to_vocabulary(sizes, width, bias=self.bias, tied=tied))


class MultiTokenHead(HeadMechanism, tag="multi-token", tag_field="kind"):
    """A language-model head and, in training, modules that predict further tokens (DeepSeek-AI 2024, V3, section 2.2).

    Each of `depth` modules has two norms, a matrix from two vectors (the state before it and the next token's
    embedding) to one, a layer like the last one of the stack, and a norm; embeddings and output matrix are the
    model's. They are left out in use and counted apart.
    """

    bias: bool
    input_scale: Literal["inverse-sqrt-hidden-size", "none"]
    depth: Count

    def parameters(
        self, sizes: Sizes, width: EmbeddingWidth, norm: Normalization, *, tied: bool
    ) -> Iterator[Parameter]:
        yield from pretraining(width.head_parameters(sizes.hidden_size))
        yield from pretraining(to_vocabulary(sizes, width, bias=self.bias, tied=tied))

    def apart(self, sizes: Sizes, *, norm: int, layer: int) -> dict[str, int]:
        d = sizes.hidden_size
        return {"multi-token prediction": self.depth * (3 * norm + 2 * d * d + layer)}


class MaskedLanguageModelHead(HeadMechanism, tag="masked-language-model", tag_field="kind"):
    """Dense, activation, norm, then a matrix to the vocabulary (the BERT release).

    A `sentence_pair` task adds a pooler (dense and tanh over the first position) and a matrix to the two
    classes: does the second sentence follow (Devlin et al. 2018, section 3.1), or are the two in order (Lan
    et al. 2019, section 3.1)?
    """

    activation: Activation
    bias: bool
    sentence_pair: Literal["next-sentence", "sentence-order", "none"]

    masked: ClassVar[bool] = True

    @property
    def pairs_sentences(self) -> bool:
        return self.sentence_pair != "none"

    def parameters(
        self, sizes: Sizes, width: EmbeddingWidth, norm: Normalization, *, tied: bool
    ) -> Iterator[Parameter]:
        d = sizes.hidden_size
        if self.pairs_sentences:
            yield from linear("pooler", d, d, "pooler", bias=True)
            yield from pretraining(linear("next_sentence", 2, d, HEAD, bias=True))
        yield from pretraining(transform(sizes, width, norm))
        yield from pretraining(to_vocabulary(sizes, width, bias=self.bias, tied=tied))


class EnhancedMaskDecoder(HeadMechanism, tag="enhanced-mask-decoder", tag_field="kind"):
    """A masked-language-model head that learns the absolute positions at last (He et al. 2020, section 3.2).

    The last layer runs `passes` times over the states of the layer below it, which stay its keys and values: its
    queries, and what its blocks are added to, come from the pass before, and in the first one from these states plus
    a trained row for each position. Then dense, activation, norm and a matrix to the vocabulary follow.
    """

    activation: Activation
    bias: bool
    passes: Count

    adds_positions: ClassVar[bool] = True
    masked: ClassVar[bool] = True

    def parameters(
        self, sizes: Sizes, width: EmbeddingWidth, norm: Normalization, *, tied: bool
    ) -> Iterator[Parameter]:
        rows = table("head.position", sizes.max_positions, sizes.hidden_size, HEAD)
        yield from pretraining(iter([rows]))
        yield from pretraining(transform(sizes, width, norm))
        yield from pretraining(to_vocabulary(sizes, width, bias=self.bias, tied=tied))


class ReplacedTokenHead(HeadMechanism, tag="replaced-token", tag_field="kind"):
    """Dense, activation, then one number a token: was it replaced? (Clark et al. 2020, section 2)."""

    activation: Activation

    detects: ClassVar[bool] = True

    def logit_size(self, vocab_size: int) -> int:
        return 1

    def parameters(
        self, sizes: Sizes, width: EmbeddingWidth, norm: Normalization, *, tied: bool
    ) -> Iterator[Parameter]:
        d = sizes.hidden_size
        yield from pretraining(linear("head.transform", d, d, HEAD, bias=True))
        yield from pretraining(linear("head.output", 1, d, HEAD, bias=True))


Head = (
    LanguageModelHead
    | MultiTokenHead
    | MaskedLanguageModelHead
    | EnhancedMaskDecoder
    | ReplacedTokenHead
)
