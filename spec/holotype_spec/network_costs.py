"""The cost of running networks that are no stacks of attention, by the conventions of `costs`.

Where attention has its two products with keys and values, these have two with a state that a layer carries from
token to token: into it and out of it, two operations each for every number of it. They do not grow with the context.
"""

from __future__ import annotations

from holotype_spec.network_parameters import table
from holotype_spec.networks import BidirectionalLstm, Network, Rwkv4, SelectiveStateSpace


def forward_flops(network: Network) -> int:
    """Operations a token, for a perceptron a whole input, and for ELMo a word of as many characters as fit."""
    return 2 * _matrix_products(network) + 4 * _mixed(network)


def carried(network: Network) -> int:
    """The numbers that the layers carry from token to token, of one sequence."""
    match network.network:
        case SelectiveStateSpace() as kind:  # the convolution keeps all tokens but this one
            return kind.layers * kind.inner_size * (kind.state_size + kind.convolution - 1)
        case Rwkv4() as kind:
            # The token before, for both blocks, and of the mean its numerator, denominator and largest exponent.
            return kind.layers * (2 * kind.hidden_size + 3 * kind.attention_size)
        case BidirectionalLstm() as kind:  # each direction has its own
            return 2 * kind.layers * (kind.cell_size + kind.projection_size)
        case _:
            return 0


def _mixed(network: Network) -> int:
    """The numbers of state that take part in products with the token."""
    match network.network:
        case SelectiveStateSpace() as kind:
            return kind.layers * kind.inner_size * kind.state_size
        case Rwkv4() as kind:
            return kind.layers * 2 * kind.attention_size
        case _:
            return 0


def _matrix_products(network: Network) -> int:
    kind = network.network
    total = sum(
        row.size * _positions(network, row.name) for row in table(network) if row.role == "matrix"
    )
    if isinstance(kind, SelectiveStateSpace | Rwkv4) and kind.tied_embeddings:
        total += kind.vocab_size * kind.hidden_size
    return total


def _positions(network: Network, name: str) -> int:
    """At how many places of one token the matrix is used: that of a convolution over characters, at each that fits."""
    kind = network.network
    if isinstance(kind, BidirectionalLstm) and name.startswith("convolutions."):
        return kind.max_characters - int(name.split(".")[1]) + 1
    return 1
