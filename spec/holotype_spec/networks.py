"""Networks that are no stacks of attention, each kind with sizes of its own.

A file of such a family has a table ``[network]`` where others have ``[architecture]``. What a variant states under
``[variants.network]`` is laid over it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from holotype_spec.schema import (
    Activation,
    Count,
    Family,
    Name,
    Objective,
    Positive,
    PublishedCount,
    Strict,
)

Objectives = Annotated[tuple[Objective, ...], msgspec.Meta(min_length=1)]


class SelectiveStateSpace(Strict, tag="selective-state-space", tag_field="kind"):
    """Mamba: a recurrence whose step, input and output depend on the token (Gu & Dao 2023, section 3).

    A layer widens its input to twice `inner_size` (a path and its gate), convolves the path with the
    `convolution` tokens up to this one, and carries `state_size` numbers for each channel of it from token to
    token. The steps come from `step_rank` numbers. Each layer reads a normalised input and adds to it.
    """

    structure: ClassVar[str] = "state-space"
    objective: Objectives
    layers: Count
    hidden_size: Count
    inner_size: Count
    state_size: Count
    step_rank: Count
    convolution: Count
    convolution_bias: bool
    projection_bias: bool
    vocab_size: Count
    context: Count
    eps: Positive
    tied_embeddings: bool


class Rwkv4(Strict, tag="rwkv-4", tag_field="kind"):
    """RWKV-4: time mixing and channel mixing, linear attention as a recurrence (Peng et al. 2023, section 3).

    Both blocks mix a token with the one before it, channel by channel. Time mixing keeps a weighted mean of the
    values that fades by a trained rate a channel; channel mixing is a gated feed-forward with squared ReLU.
    A norm of its own stands in front of the first layer.
    """

    structure: ClassVar[str] = "recurrent"
    objective: Objectives
    layers: Count
    hidden_size: Count
    attention_size: Count
    ffn_size: Count
    vocab_size: Count
    context: Count
    eps: Positive
    tied_embeddings: bool


class BidirectionalLstm(Strict, tag="bidirectional-lstm", tag_field="kind"):
    """ELMo: convolutions over the characters of a word, then LSTMs both ways (Peters et al. 2018, section 3).

    `filters` has a pair (width in characters, number) for each convolution. What they find passes `highways`
    highway layers and a projection to `projection_size`. Each layer of each direction has `cell_size` cells and
    projects its output to `projection_size`.
    """

    structure: ClassVar[str] = "recurrent"
    objective: Objectives
    characters: Count
    character_size: Count
    max_characters: Count
    filters: Annotated[tuple[tuple[Count, Count], ...], msgspec.Meta(min_length=1)]
    highways: Annotated[int, msgspec.Meta(ge=0, le=100, description="a whole number up to 100")]
    layers: Count
    cell_size: Count
    projection_size: Count


class Perceptron(Strict, tag="perceptron", tag_field="kind"):
    """Layers of neurons, each connected to all of the layer before (Rumelhart et al. 1986).

    `widths` counts the neurons from the input to the output.
    """

    structure: ClassVar[str] = "feed-forward"
    objective: Objectives
    widths: Annotated[tuple[Count, ...], msgspec.Meta(min_length=2)]
    activation: Activation | Literal["sigmoid"]
    bias: bool


Kind = SelectiveStateSpace | Rwkv4 | BidirectionalLstm | Perceptron


class Network(Strict):
    """A model that is no stack of attention: its sizes and mechanism are those of `network`'s kind."""

    name: Name
    family: Family
    aliases: tuple[Name, ...]
    parameters: PublishedCount
    network: Kind
    derives_from: Name | None = None
