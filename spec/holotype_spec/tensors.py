"""Every tensor of a model that a checkpoint holds: its parameters, and what a rule sets instead of gradients."""

from __future__ import annotations

from collections.abc import Iterator

from holotype_spec.parameters import Parameter, parameter_table, stack_layers, stacks
from holotype_spec.schema import Experts, SigmoidRouting, Spec


def tensor_table(spec: Spec) -> tuple[Parameter, ...]:
    """The table of parameters, and behind it that of buffers: the weights of a model travel under these names."""
    return parameter_table(spec) + buffer_table(spec)


def buffer_table(spec: Spec) -> tuple[Parameter, ...]:
    """What decides on outputs and is not trained, in the order of the data; no count has it.

    Tables that follow from the spec, such as the frequencies of rotary positions, are not among it.
    """
    return tuple(_corrections(spec))


def _corrections(spec: Spec) -> Iterator[Parameter]:
    """A bias for each expert, by which experts are chosen (DeepSeek-AI 2024, V3, section 2.1.2)."""
    blocks = spec.architecture.feed_forward
    if not (isinstance(blocks, Experts) and isinstance(blocks.routing, SigmoidRouting)):
        return
    for stack in stacks(spec):
        for layer in filter(spec.has_experts, range(stack_layers(spec, stack))):
            yield Parameter(
                name=f"{stack}.layers.{layer}.feed_forward.router.correction",
                shape=(blocks.experts,),
                role="choice-bias",
                component="router",
            )
