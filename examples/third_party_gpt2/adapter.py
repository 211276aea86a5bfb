"""All that `gpt2.py` needs to be checked: build it, load weights, call it."""

from gpt2 import GPT2, Settings

from holotype_conformance.models.candidate import Candidate, Outputs


class Adapter(Candidate):
    title = "a third party's GPT-2"

    def build(self, spec, path="default"):
        sizes = (spec.vocab_size, spec.max_positions, spec.hidden_size, spec.heads, spec.layers)
        return GPT2(Settings(*sizes, dropout=spec.architecture.dropout.rate))

    def load(self, model, weights):
        model.load_released(weights.published())

    def forward(self, model, inputs):
        return self.forward_cached(model, inputs, None)

    def forward_cached(self, model, inputs, cache):
        logits, cache = model(inputs.token_ids, inputs.attention_mask, inputs.position_ids, cache)
        return Outputs(logits=logits, cache=cache)
