"""A GPT-2 that declares all that can be declared, and is right within it; and one that is wrong beyond it."""

from typing import ClassVar

import msgspec
from adapter import Adapter
from torch import nn

from holotype_conformance import Difference, Floor
from holotype_conformance.models.candidate import Outputs

GELU = "architecture.feed_forward.activation"


def exact_gelu(spec):
    feed_forward = msgspec.structs.replace(spec.architecture.feed_forward, activation="gelu")
    architecture = msgspec.structs.replace(spec.architecture, feed_forward=feed_forward)
    return msgspec.structs.replace(spec, architecture=architecture)


def in_8_bits(matrix):
    step = matrix.abs().amax() / 127
    return (matrix / step).round() * step


class Typo(Adapter):
    absent: ClassVar = {"gradiants": "an engine"}


class Right(Adapter):
    absent: ClassVar = {"float16": "its kernels have none"}
    holds: ClassVar = {"reparametrised": "its matrices are stored in 8 bits"}
    gain = 1.0
    noise = 0.004
    slope = 1.001
    more = 0

    def floor(self, spec):
        return Floor(
            weights=0.05, cache=0.02, gradients=0.02, reason="8 bits in its matrices and its cache"
        )

    def differences(self, spec):
        return [Difference(field=GELU, reason="the exact GELU", change=exact_gelu)]

    def parameter_count(self, model):
        return sum(each.numel() for each in model.parameters()) + self.more

    def build(self, spec, path="default"):
        model = super().build(spec, path)
        for block in model.blocks:
            block.mlp.activate = nn.functional.gelu
        model.places.weight.register_hook(lambda gradient: gradient * self.slope)
        return model

    def load(self, model, weights):
        published = weights.published()
        self.coarse = {
            name: in_8_bits(each)
            for name, each in published.items()
            if name.endswith("c_fc.weight")
        }
        model.load_released(dict(published) | self.coarse)
        model.coarse = self.coarse

    def effective_weights(self, model):
        return model.coarse

    def forward(self, model, inputs):
        return self.step(model, inputs, None, 0.0)

    def forward_cached(self, model, inputs, cache):
        return self.step(model, inputs, cache, self.noise)

    def step(self, model, inputs, cache, noise):
        found = super().forward_cached(model, inputs, cache)
        logits = found.logits * self.gain
        size = logits.detach().square().mean().sqrt()
        return Outputs(logits=logits + noise * size, cache=found.cache)


class Wrong(Right):
    gain = 1 + 1e-7  # far below what 8 bits are off by
    noise = 0.1
    more = 1
