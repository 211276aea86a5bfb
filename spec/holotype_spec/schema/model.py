"""A model, whole: its architecture and its sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from holotype_spec.schema.attention import Attention
from holotype_spec.schema.embeddings import Embeddings
from holotype_spec.schema.family import Family, StatedPart
from holotype_spec.schema.feed_forward import FeedForward
from holotype_spec.schema.heads import Head
from holotype_spec.schema.mechanism import Probing
from holotype_spec.schema.normalization import Normalization
from holotype_spec.schema.positions import Positions
from holotype_spec.schema.probing import DROPOUT, ROWS, WINDOW, probed_sizes
from holotype_spec.schema.sizes import Sizes
from holotype_spec.schema.training import Dropout, Objective
from holotype_spec.schema.values import LARGEST, Count, Name, Strict

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

    def probed(self, probing: Probing) -> Architecture:
        """The architecture with each mechanism as its class shrinks it."""
        embeddings, depth = self.embeddings, self.encoder_layers
        width = embeddings.width.probed(probing)
        return msgspec.structs.replace(
            self,
            attention=self.attention.probed(probing),
            positions=self.positions.probed(probing),
            normalization=self.normalization.probed(probing),
            embeddings=msgspec.structs.replace(embeddings, width=width),
            # A number of its own stays one: another than that of the decoder.
            encoder_layers=probing.layers + 1 if isinstance(depth, int) else depth,
            feed_forward=self.feed_forward.probed(probing),
            head=self.head.probed(probing),
            dropout=Dropout(rate=DROPOUT, sites=self.dropout.sites),
        )


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

    def has(self, *kinds: type[Strict]) -> bool:
        """Whether the architecture has a mechanism of one of these classes, at any depth."""
        return any(isinstance(part, kinds) for part in _parts(self.architecture))

    @property
    def position_rows(self) -> int:
        """Rows of a learned position table, those in front of the first position included."""
        return self.architecture.positions.table_rows(self.max_positions)

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that RoPE turns; 0 without rotary positions."""
        architecture = self.architecture
        return architecture.attention.rotary_dim(architecture.positions, self.head_dim)

    @property
    def nope_head_dim(self) -> int:
        """Dimensions of a query's or a key's head that RoPE leaves as they are."""
        return self.head_dim - self.rotary_dim

    @property
    def value_head_dim(self) -> int:
        """Numbers in a value head, which in latent attention differ from those in a head of queries and keys."""
        return self.architecture.attention.value_size(self.head_dim)

    def has_experts(self, layer: int) -> bool:
        """Whether the feed-forward block of a layer, counted from 0, consists of experts."""
        return self.architecture.feed_forward.has_experts(layer)

    @property
    def added_positions(self) -> bool:
        """Whether vectors for positions are added to states, so that a shift of all positions shows."""
        return self.architecture.positions.added or self.architecture.head.adds_positions

    @property
    def learned_positions(self) -> bool:
        """Whether each position has a trained row, so that there are no more positions than rows."""
        return self.architecture.positions.trained or self.architecture.head.adds_positions

    @property
    def distances_only(self) -> bool:
        """Whether nothing but distances, from token to token, is known of positions: they have no ids then."""
        return self.architecture.positions.between_tokens and not self.added_positions

    @property
    def two_positions(self) -> bool:
        """Whether a token has a place in the text and one within its span (Du et al. 2021, section 2.2)."""
        return self.architecture.positions.places == 2

    @property
    def has_prefix(self) -> bool:
        """Whether a caller may say how many places at the beginning are seen by all."""
        return self.architecture.attention.pattern.has_prefix

    @property
    def mixture_of_masks(self) -> bool:
        """Whether a caller may say which of several masks a batch has."""
        return self.architecture.attention.pattern.mixed

    @property
    def segments(self) -> int:
        """Token types that may be given, 0 for none: the rows of their table.

        Where attention compares them there may be any number; XLNet's data have three (the release, data_utils.py: two
        texts, and the token that stands for both).
        """
        compared = self.architecture.positions.compares_segments
        return 3 if compared else self.architecture.token_types

    @property
    def permuted(self) -> bool:
        """Whether the tokens are predicted in an order that a caller may give."""
        return self.architecture.attention.pattern.permuted

    @property
    def logit_size(self) -> int:
        """Numbers in the logits of a token: one for each token of the vocabulary, or one: was it replaced?"""
        return self.architecture.head.logit_size(self.vocab_size)

    @property
    def embedding_size(self) -> int:
        """Numbers in a row of the token table."""
        return self.architecture.embeddings.width.token_size(self.hidden_size)

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

    def probe(
        self,
        *,
        layers: int = 2,
        groups: int | None = None,
        rows: int = ROWS,
        window: int = WINDOW,
    ) -> Spec:
        """The spec of a model of the same architecture that runs in a millisecond.

        Args:
            layers: layers a stack. Two are the least that show a mask lost after the first one.
            groups: key-value heads; by default 2 if the spec groups its queries, else as many as heads (5, or 3 wide
                ones, or as many as it takes for slopes that low precision rounds).
            rows: of a table of learned positions.
            window: keys that a query sees, where the spec has a window.
        """
        architecture = self.architecture
        probing = Probing(layers=layers, rows=rows, window=window, groups=groups)
        sizes = probed_sizes(
            self,
            architecture.attention,
            architecture.positions,
            probing,
            fixed_ffn=architecture.feed_forward.size == "four-times-hidden-size",
            trained_rows=self.learned_positions,
        )
        small = architecture.probed(probing)
        return msgspec.structs.replace(self, architecture=small, **sizes)


def _parts(node: Strict) -> Iterator[Strict]:
    """A mechanism and all that it is made of."""
    yield node
    for name in node.__struct_fields__:
        if isinstance(part := getattr(node, name), Strict):
            yield from _parts(part)
