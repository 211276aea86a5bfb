"""Every tensor of a model that a checkpoint holds: its parameters, and what a rule sets instead of gradients."""

from __future__ import annotations

from collections.abc import Iterator

from holotype_spec.parameters import Parameter, parameter_table, stack_layers, stacks
from holotype_spec.schema import Spec


def tensor_table(spec: Spec) -> tuple[Parameter, ...]:
    """The table of parameters, and behind it that of buffers: the weights of a model travel under these names."""
    return parameter_table(spec) + buffer_table(spec)


def buffer_table(spec: Spec) -> tuple[Parameter, ...]:
    """Buffers: tensors that decide on outputs and are not trained, in the order of the data; no count has them.

    Tables that follow from the spec, such as the frequencies of rotary positions, are not among it.
    """
    return tuple(_buffers(spec))


def _buffers(spec: Spec) -> Iterator[Parameter]:
    for stack in stacks(spec):
        for layer in range(stack_layers(spec, stack)):
            name = f"{stack}.layers.{layer}.feed_forward"
            yield from spec.architecture.feed_forward.buffers(spec, name, layer)
