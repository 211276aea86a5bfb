"""Every trainable parameter of the networks that are no stacks of attention, kind by kind (see `parameters`).

Trained rates of decay act inside an exponent, where they add: they have the role of a bias. What mixes a token with the
one before, and what lets a token pass a state by, multiplies: a gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from holotype_spec.networks import (
    BidirectionalLstm,
    Network,
    Perceptron,
    Rwkv4,
    SelectiveStateSpace,
)
from holotype_spec.schema.rows import Parameter, Role


def table(network: Network) -> tuple[Parameter, ...]:
    """Every trainable parameter, tied ones once, in the order of the data."""
    match network.network:
        case SelectiveStateSpace() as kind:
            return tuple(_selective_state_space(kind))
        case Rwkv4() as kind:
            return tuple(_rwkv4(kind))
        case BidirectionalLstm() as kind:
            return tuple(_bidirectional_lstm(kind))
        case Perceptron() as kind:
            return tuple(_perceptron(kind))


def _one(name: str, shape: tuple[int, ...], role: Role, component: str) -> Parameter:
    return Parameter(name=name, shape=shape, role=role, component=component)


def _linear(
    name: str, outputs: int, inputs: int, component: str, *, bias: bool
) -> Iterator[Parameter]:
    yield _one(f"{name}.weight", (outputs, inputs), "matrix", component)
    if bias:
        yield _one(f"{name}.bias", (outputs,), "bias", component)


def _layer_norm(name: str, size: int) -> Iterator[Parameter]:
    yield _one(f"{name}.weight", (size,), "gain", "norms")
    yield _one(f"{name}.bias", (size,), "shift", "norms")


def _output(vocab_size: int, hidden_size: int, *, tied: bool) -> Iterator[Parameter]:
    if not tied:
        yield Parameter(
            name="head.output.weight",
            shape=(vocab_size, hidden_size),
            role="matrix",
            component="head",
            backbone=False,
        )


def _selective_state_space(kind: SelectiveStateSpace) -> Iterator[Parameter]:
    """Gu & Dao 2023, section 3.4 and the release, mamba_simple.py."""
    yield _one(
        "embeddings.token.weight",
        (kind.vocab_size, kind.hidden_size),
        "embedding",
        "token embeddings",
    )
    for layer in range(kind.layers):
        yield from _mamba_layer(kind, f"layers.{layer}")
    yield _one("final_norm.weight", (kind.hidden_size,), "gain", "norms")
    yield from _output(kind.vocab_size, kind.hidden_size, tied=kind.tied_embeddings)


def _mamba_layer(kind: SelectiveStateSpace, name: str) -> Iterator[Parameter]:
    d, inner, state, rank = kind.hidden_size, kind.inner_size, kind.state_size, kind.step_rank
    bias = kind.projection_bias
    yield _one(f"{name}.norm.weight", (d,), "gain", "norms")
    yield from _linear(f"{name}.input", 2 * inner, d, "projections", bias=bias)
    yield _one(f"{name}.convolution.weight", (inner, 1, kind.convolution), "matrix", "convolutions")
    if kind.convolution_bias:
        yield _one(f"{name}.convolution.bias", (inner,), "bias", "convolutions")
    # The token chooses its step, its input matrix B and its output matrix C.
    yield from _linear(f"{name}.selection", rank + 2 * state, inner, "selection", bias=False)
    yield from _linear(f"{name}.step", inner, rank, "selection", bias=True)
    yield _one(f"{name}.log_decay", (inner, state), "bias", "state")
    yield _one(f"{name}.skip", (inner,), "gain", "state")
    yield from _linear(f"{name}.output", d, inner, "projections", bias=bias)


def _rwkv4(kind: Rwkv4) -> Iterator[Parameter]:
    """Peng et al. 2023, section 3.1 and the release, RWKV-v4/src/model.py."""
    d = kind.hidden_size
    yield _one("embeddings.token.weight", (kind.vocab_size, d), "embedding", "token embeddings")
    yield from _layer_norm("embeddings.norm", d)  # the release keeps it in the first layer
    for layer in range(kind.layers):
        yield from _rwkv_layer(kind, f"layers.{layer}")
    yield from _layer_norm("final_norm", d)
    yield from _output(kind.vocab_size, d, tied=kind.tied_embeddings)


def _rwkv_layer(kind: Rwkv4, name: str) -> Iterator[Parameter]:
    d, attention, ffn = kind.hidden_size, kind.attention_size, kind.ffn_size
    time, channel = f"{name}.time_mixing", f"{name}.channel_mixing"
    yield from _layer_norm(f"{time}_norm", d)
    yield _one(f"{time}.decay", (attention,), "bias", "time mixing")
    yield _one(f"{time}.first", (attention,), "bias", "time mixing")
    for part in ("key", "value", "receptance"):
        yield _one(f"{time}.mix_{part}", (d,), "gain", "time mixing")
        yield from _linear(f"{time}.{part}", attention, d, "time mixing", bias=False)
    yield from _linear(f"{time}.output", d, attention, "time mixing", bias=False)
    yield from _layer_norm(f"{channel}_norm", d)
    for part, outputs in (("key", ffn), ("receptance", d)):
        yield _one(f"{channel}.mix_{part}", (d,), "gain", "channel mixing")
        yield from _linear(f"{channel}.{part}", outputs, d, "channel mixing", bias=False)
    yield from _linear(f"{channel}.value", d, ffn, "channel mixing", bias=False)


def _bidirectional_lstm(kind: BidirectionalLstm) -> Iterator[Parameter]:
    """Peters et al. 2018, section 3.4 and the release, allenai/bilm-tf, bilm/model.py."""
    size = kind.character_size
    yield _one("characters.weight", (kind.characters, size), "embedding", "character embeddings")
    for width, number in kind.filters:
        name = f"convolutions.{width}"
        yield _one(f"{name}.weight", (number, size, width), "matrix", "convolutions")
        yield _one(f"{name}.bias", (number,), "bias", "convolutions")
    found = sum(number for _, number in kind.filters)
    for layer in range(kind.highways):  # a transformed path and its gate
        yield from _linear(f"highways.{layer}", 2 * found, found, "highways", bias=True)
    yield from _linear("projection", kind.projection_size, found, "projection", bias=True)
    for direction in ("forward", "backward"):
        for layer in range(kind.layers):
            yield from _lstm_layer(kind, f"{direction}.layers.{layer}")


def _lstm_layer(kind: BidirectionalLstm, name: str) -> Iterator[Parameter]:
    """Sak et al. 2014, section 2: four gates from the input and the projected output before, then a projection."""
    size, cells = kind.projection_size, kind.cell_size
    yield from _linear(f"{name}.gates", 4 * cells, 2 * size, "recurrent layers", bias=True)
    yield from _linear(f"{name}.projection", size, cells, "recurrent layers", bias=False)


def _perceptron(kind: Perceptron) -> Iterator[Parameter]:
    last = len(kind.widths) - 2
    for layer, (inputs, outputs) in enumerate(pairwise(kind.widths)):
        component = "output layer" if layer == last else "hidden layers"
        yield from _linear(f"layers.{layer}", outputs, inputs, component, bias=kind.bias)
