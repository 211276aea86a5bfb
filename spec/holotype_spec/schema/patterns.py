"""Attention patterns: the keys that each query sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

import msgspec

from holotype_spec.schema.mechanism import Mechanism, Probing
from holotype_spec.schema.rows import Parameter, table
from holotype_spec.schema.sizes import Sizes
from holotype_spec.schema.values import Count, Rate


class AttentionPattern(Mechanism):
    """A pattern that adds no parameters, in which each query may see as many keys as there are."""

    both_ways: ClassVar[bool] = False  # whatever the input, each query sees every key
    has_prefix: ClassVar[bool] = False  # a caller may say how many places all see
    mixed: ClassVar[bool] = False  # a caller may say which of several masks a batch has
    permuted: ClassVar[bool] = False  # a caller may say in which order tokens are predicted

    @property
    def in_words(self) -> str:
        """The keys that a query sees, as sentences; what belongs to the input is left out."""
        raise NotImplementedError

    def keys_seen(
        self, query: int, length: int, *, prefix: int | None, right_to_left: bool
    ) -> tuple[int, int]:
        """The first of `length` keys that a query sees, and the one behind the last: here all of them.

        Args:
            query: the place of the query, from 0.
            length: tokens of the sequence.
            prefix: places at the beginning that all see, of a pattern that has a prefix; None where none was given.
            right_to_left: of a mixture of masks, the one in which each position sees itself and those after it.
        """
        return 0, length

    def kept(self, length: int, layers: int) -> dict[int, int]:
        """The number of the last `length` tokens that a layer sees -> how many of `layers` layers see so many."""
        return {length: layers}

    def parameters(self, sizes: Sizes) -> Iterator[Parameter]:
        """Rows of the table of parameters, beside the embeddings."""
        yield from ()


class Bidirectional(AttentionPattern, tag="bidirectional", tag_field="kind"):
    """Every position attends to every position (Devlin et al. 2018, section 3)."""

    both_ways: ClassVar[bool] = True

    @property
    def in_words(self) -> str:
        return "A query sees every key."


class Causal(AttentionPattern, tag="causal", tag_field="kind"):
    """Position i attends to the keys 0 … i (Vaswani et al. 2017, section 3.1)."""

    @property
    def in_words(self) -> str:
        return "A query sees its own place and those before it."

    def keys_seen(
        self, query: int, length: int, *, prefix: int | None, right_to_left: bool
    ) -> tuple[int, int]:
        return 0, query + 1


class SlidingWindow(AttentionPattern, tag="sliding-window", tag_field="kind"):
    """Position i attends to the ``window`` keys i-window+1 … i (Jiang et al. 2023, section 2)."""

    window: Count

    @property
    def in_words(self) -> str:
        return f"A query sees its own place and the {self.window - 1:,} before it."

    def kept(self, length: int, layers: int) -> dict[int, int]:
        return {min(length, self.window): layers}

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, window=probing.window)

    def keys_seen(
        self, query: int, length: int, *, prefix: int | None, right_to_left: bool
    ) -> tuple[int, int]:
        return max(query + 1 - self.window, 0), query + 1


class Permutation(AttentionPattern, tag="permutation", tag_field="kind"):
    """Each position sees those before it in an order drawn anew for each text (Yang et al. 2019, section 2.2).

    Two streams run through the same layers (section 2.3). The content stream starts from the token and sees
    itself; the query stream starts from one trained vector, sees the content before it but never its own,
    and writes the logits in pretraining. Without an order everything is seen, by the content stream alone.
    """

    permuted: ClassVar[bool] = True

    @property
    def in_words(self) -> str:
        return "The order of prediction is drawn anew for each text; without one all is seen."

    def parameters(self, sizes: Sizes) -> Iterator[Parameter]:
        yield table("embeddings.query_stream", 1, sizes.hidden_size, "query stream")


class MixtureOfMasks(AttentionPattern, tag="mixture", tag_field="kind"):
    """Each batch has one of four masks, in these shares (Dong et al. 2019, sections 2.2 and 2.3).

    All positions; those up to and from each one; or, of two segments, the first one whole and the second
    one up to each of its positions.
    """

    bidirectional: Rate
    left_to_right: Rate
    right_to_left: Rate
    sequence_to_sequence: Rate

    has_prefix: ClassVar[bool] = True
    mixed: ClassVar[bool] = True

    @property
    def in_words(self) -> str:
        return "Each text has one of four masks."

    def keys_seen(
        self, query: int, length: int, *, prefix: int | None, right_to_left: bool
    ) -> tuple[int, int]:
        if right_to_left:
            return query, length
        return 0, length if prefix is None else max(query + 1, prefix)


class PrefixCausal(AttentionPattern, tag="prefix-causal", tag_field="kind"):
    """A prefix-LM mask: position i sees the keys 0 … i and all of the prefix, the prompt (Du et al. 2021, 2.1).

    How long the prefix is belongs to the input: in training it is what was not cut out, in use the prompt.
    """

    has_prefix: ClassVar[bool] = True

    @property
    def in_words(self) -> str:
        return (
            "A query sees its own place, those before it and the whole prefix,"
            " whose length belongs to the input."
        )

    def keys_seen(
        self, query: int, length: int, *, prefix: int | None, right_to_left: bool
    ) -> tuple[int, int]:
        return 0, max(query + 1, prefix or 0)


class AlternatingBanded(AttentionPattern, tag="alternating-banded", tag_field="kind"):
    """Causal layers and causal layers of a band take turns (Brown et al. 2020, section 2.1; Child et al. 2019).

    In a layer of the second sort position i attends to the `window` keys i-window+1 … i. Layer 0 is of the sort
    that comes `first`.
    """

    first: Literal["dense", "banded"]
    window: Count

    @property
    def in_words(self) -> str:
        return (
            "A query sees its own place and those before it, or in every second layer its own place"
            f" and the {self.window - 1:,} before it."
        )

    def kept(self, length: int, layers: int) -> dict[int, int]:
        if self.window >= length:
            return {length: layers}
        dense = (layers + (self.first == "dense")) // 2
        return {length: dense, self.window: layers - dense}

    def probed(self, probing: Probing) -> Self:
        return msgspec.structs.replace(self, window=probing.window)

    def keys_seen(
        self, query: int, length: int, *, prefix: int | None, right_to_left: bool
    ) -> tuple[int, int]:
        return 0, query + 1  # a band beside a dense layer hides nothing


Pattern = (
    Bidirectional
    | Causal
    | SlidingWindow
    | AlternatingBanded
    | Permutation
    | MixtureOfMasks
    | PrefixCausal
)
