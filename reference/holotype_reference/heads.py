"""Heads of encoders: logits of masked tokens, one number a token, and the two classes of BERT.

That of a language model stands beside the embeddings, whose matrix it may share.
"""

from __future__ import annotations

from torch import Tensor, nn

from holotype_reference.basics import Linear, norm
from holotype_reference.embeddings import VocabularyMatrix
from holotype_reference.feed_forward import ACTIVATIONS
from holotype_spec import schema


class MaskedLanguageModelHead(nn.Module):
    """output(norm(activation(transform(x)))) (the BERT release, run_pretraining.py, get_masked_lm_output)."""

    def __init__(self, spec: schema.Spec, head: schema.MaskedLanguageModelHead) -> None:
        super().__init__()
        self.build(spec, head)

    def build(
        self, spec: schema.Spec, head: schema.MaskedLanguageModelHead | schema.EnhancedMaskDecoder
    ) -> None:
        """The two matrices and the norm."""
        self.transform = Linear(spec.hidden_size, spec.embedding_size)
        self.norm = norm(spec, spec.embedding_size)
        self.output = VocabularyMatrix(spec, bias=head.bias)
        self.activation = head.activation

    def forward(self, x: Tensor, token_table: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, vocab_size)"""
        x = self.norm(ACTIVATIONS[self.activation](self.transform(x)))
        logits: Tensor = self.output(x, token_table)
        return logits


class ReplacedTokenHead(nn.Module):
    """output(activation(transform(x))), one number a token: positive if it was replaced (Clark et al. 2020, section 2).

    Its logistic function, which belongs to the loss, is the probability of that: the paper's D is the opposite, that
    of the original token, and the dense layer stands in the release alone (run_pretraining.py,
    _get_discriminator_output). There is no norm in between.
    """

    def __init__(self, spec: schema.Spec, head: schema.ReplacedTokenHead) -> None:
        super().__init__()
        self.transform = Linear(spec.hidden_size, spec.hidden_size)
        self.output = Linear(spec.hidden_size, 1)
        self.activation = head.activation

    def forward(self, x: Tensor, _token_table: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, length, 1)"""
        logits: Tensor = self.output(ACTIVATIONS[self.activation](self.transform(x)))
        return logits


class Pooler(Linear):
    """tanh(W x₀ + b): the first position speaks for the sequence (the BERT release, modeling.py, "pooler")."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, hidden_size) -> (batch, hidden_size)"""
        return super().forward(x[:, 0]).tanh()
